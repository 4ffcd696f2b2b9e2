use super::*;

const CLIP: &str =
    ",name,clip_t,clip_n,clip_i\n0,000-0-00,0.4448,0.161,0.4988\n1,000-0-01,,NaN,-1e-05\n";
const APS: &str =
    ",name,Young_target,Young_pred,Male_target,Male_pred\n0,a,1,-1,-1,-1\n1,b,1,1,1.0,-1.0\n";

fn failed(text: &str) -> String {
    parse(text, None, 1000).unwrap_err().to_string()
}

#[test]
fn scores_are_read_by_metric_and_missing_ones_as_none() {
    let table = parse(CLIP, Some("clip_laion_CLIP.csv"), 1000).unwrap();
    assert_eq!(table.names, ["000-0-00", "000-0-01"]);
    let Columns::Scores(scores) = table.columns else { panic!("scores") };
    assert_eq!(scores[0], ("clip_t", vec![Some(0.4448), None]));
    assert_eq!(scores[1], ("clip_n", vec![Some(0.161), None]));
    assert_eq!(scores[2], ("clip_i", vec![Some(0.4988), Some(-1e-5)]));
}

#[test]
fn columns_in_another_order_are_the_same_columns() {
    let text = ",name,human_preference_score_v2,human_preference_score_v1\n0,a,2,1\n";
    let Columns::Scores(scores) = parse(text, None, 1000).unwrap().columns else {
        panic!("scores")
    };
    assert_eq!(scores, [("hpsv1", vec![Some(1.0)]), ("hpsv2", vec![Some(2.0)])]);
}

#[test]
fn attributes_are_read_with_targets_and_predictions() {
    let table = parse(APS, Some("attribute_preservation_syn.csv"), 1000).unwrap();
    let Columns::Attributes(attributes) = table.columns else { panic!("attributes") };
    assert_eq!(attributes[0].attribute, "Young");
    assert_eq!(attributes[0].targets, [true, true]);
    assert_eq!(attributes[1].targets, [false, true]);
    assert_eq!(attributes[1].predictions, [false, false]);
}

#[test]
fn written_tables_are_read_back_unchanged() {
    for text in [CLIP, APS] {
        let table = parse(text, None, 1000).unwrap();
        assert_eq!(parse(&table.write(), None, 1000).unwrap(), table);
    }
    let names = ["a,b", "say \"so\"", "plain"].map(str::to_owned).to_vec();
    let scores = vec![Some(0.1 + 0.2), Some(f64::MIN_POSITIVE), Some(-1e100)];
    let columns = Columns::Scores(vec![("ips", scores)]);
    let table = Table { file: File::of_name("identity_preservation.csv").unwrap(), names, columns };
    assert_eq!(parse(&table.write(), None, 1000).unwrap(), table);
}

#[test]
fn written_tables_have_the_toolkits_header_and_index() {
    let table = parse(APS, None, 1000).unwrap();
    assert_eq!(table.write().replace("1.0", "1"), APS.replace("1.0", "1"));
}

#[test]
fn a_table_that_was_saved_without_its_index_is_the_same_table() {
    let with = parse(",name,dino_fidelity\n0,a,1\n1,b,0.5\n", None, 10).unwrap();
    assert_eq!(parse("name,dino_fidelity\na,1\nb,0.5\n", None, 10).unwrap(), with);
    let error = parse("name,dino_fidelity\na,1\nb,high\n", None, 10).unwrap_err().to_string();
    assert!(error.contains("line 3, column `dino_fidelity`"), "{error}");
}

#[test]
fn rows_and_columns_are_counted_while_they_are_read() {
    let rows = ",name,dino_fidelity\n0,a,1\n1,b,1\n2,c,1\n";
    assert_eq!(parse(rows, None, 2).unwrap_err(), ToolkitError::TooManyRows(2));
    assert!(parse(rows, None, 3).is_ok());
    let wide = ",name".to_owned() + &",x_target,x_pred".repeat(200_000) + "\n";
    let rows = ",name,dino_fidelity\n0,a,1\n";
    for (before, line) in [("", 1), ("\n\n", 3), ("\"two\nlines\"", 2), (rows, 3)] {
        let error = parse(&format!("{before}{wide}"), None, 2).unwrap_err();
        assert_eq!(
            error,
            ToolkitError::TooManyColumns(TooWide { line, most: MOST_COLUMNS }),
            "{before:?}"
        );
    }
    let columns: Vec<_> = (0..126).map(|at| format!(",{at}_target,{at}_pred")).collect();
    let cells = ",1".repeat(252);
    let rows = MOST_CELLS / 252;
    let rows: Vec<_> = (0..=rows).map(|at| format!("{at},s{at}{cells}\n")).collect();
    let error =
        parse(&format!(",name{}\n{}", columns.concat(), rows.concat()), None, 200_000).unwrap_err();
    assert_eq!(error, ToolkitError::TooManyCells(MOST_CELLS));
    assert_eq!(parse("name;dino_fidelity\na;1\n", None, 2).unwrap_err(), ToolkitError::Semicolons);
}

#[test]
fn names_with_control_characters_and_numbers_beyond_all_scores_are_rejected() {
    assert!(failed(",name,dino_fidelity\n0,a\u{1b}[2J,1\n").contains("U+001B"));
    assert!(failed(",name,dino_fidelity\n0,\"a\nb\",1\n").contains("U+000A"));
    for number in ["1e101", "-1e308"] {
        assert!(
            failed(&format!(",name,dino_fidelity\n0,a,{number}\n")).contains("1e100"),
            "{number}"
        );
    }
}

#[test]
fn formulas_are_marked_and_read_back_without_the_mark() {
    let names = ["=HYPERLINK(\"x\")", "@a", "plain"].map(str::to_owned).to_vec();
    let columns = Columns::Scores(vec![("ips", vec![Some(-0.5); 3])]);
    let table = Table { file: File::of_name("identity_preservation.csv").unwrap(), names, columns };
    let text = table.write();
    assert!(text.contains("'=HYPERLINK") && text.contains("'@a,-0.5"), "{text}");
    assert_eq!(parse(&text, None, 10).unwrap(), table);
}

#[test]
fn an_attribute_with_a_comma_in_its_name_stays_one_column() {
    let labels = || vec![true];
    let columns = Columns::Attributes(vec![AttributeColumn {
        attribute: "a,b".to_owned(),
        targets: labels(),
        predictions: labels(),
    }]);
    let file = File::of_name("attribute_preservation_syn.csv").unwrap();
    let table = Table { file, names: vec!["x".to_owned()], columns };
    assert_eq!(parse(&table.write(), None, 10).unwrap(), table);
}

#[test]
fn an_invalid_column_is_reported_with_its_file() {
    assert!(failed(",name,clip_t,clip_n\n0,a,1,1\n").contains("`clip_i` is missing"));
    assert!(
        failed(",name,clip_t,clip_n,clip_i,note\n0,a,1,1,1,1\n").contains("`note` does not belong")
    );
    assert!(failed(",name,dino_fidelity,dino_fidelity\n0,a,1,1\n").contains("twice"));
    assert!(failed(",name,Young_target\n0,a,1\n").contains("`Young_pred` is missing"));
    let unknown = failed("name,score\na,1\n");
    assert!(unknown.contains("score") && unknown.contains("object_faithfulness"), "{unknown}");
}

#[test]
fn a_name_that_contradicts_the_columns_is_rejected() {
    let error = parse(CLIP, Some("identity_stability.csv"), 1000).unwrap_err().to_string();
    assert!(error.contains("identity_stability.csv") && error.contains("`clip…csv`"), "{error}");
}

#[test]
fn an_invalid_cell_is_reported_with_its_line_and_column() {
    let error = failed(",name,dino_fidelity\n0,a,1\n1,b,high\n");
    assert!(error.contains("line 3, column `dino_fidelity`") && error.contains("high"), "{error}");
    assert!(failed(",name,dino_fidelity\n0,a,inf\n").contains("finite"));
    assert!(failed(",name,Young_target,Young_pred\n0,a,1,0\n").contains("neither 1 nor -1"));
    assert!(failed(",name,dino_fidelity\n0,a,1\n1,a,1\n").contains("\"a\" occurs twice"));
    assert!(failed(",name,dino_fidelity\n0,,1\n").contains("it is empty"));
    assert!(failed(",name,dino_fidelity\n0,a\n").contains("CSV"));
    assert_eq!(parse(",name,dino_fidelity\n", None, 1000).unwrap_err(), ToolkitError::Empty);
}
