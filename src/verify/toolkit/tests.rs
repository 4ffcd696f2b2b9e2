use super::*;
use crate::{
    metrics::{AttributePrediction, Explanation, Score},
    scoring::Metadata,
    verify::Scored,
};

fn pack() -> Pack {
    Pack::open(concat!(env!("CARGO_MANIFEST_DIR"), "/packs/demo")).unwrap()
}

fn case(name: &str, detectables: &[&str]) -> Case {
    let detectables = detectables.iter().map(|label| (*label).to_owned()).collect();
    Case {
        name: name.to_owned(),
        metadata: Metadata { detectables, ..Metadata::default() },
        ..Case::default()
    }
}

fn scored(code: &'static str, outcome: MetricResult) -> Scored {
    Scored::new(BTreeMap::from([(code, outcome)]))
}

#[expect(clippy::unnecessary_wraps, reason = "combined with outcomes without a number")]
fn number(value: f64) -> MetricResult {
    Ok(value.into())
}

fn file(name: &str, text: &str) -> ScoreFile {
    ScoreFile { name: name.to_owned(), table: toolkit::parse(text, Some(name), 10).unwrap() }
}

/// Compares samples `a`, `b` … without detectables with one file.
fn compared(
    code: &'static str,
    outcomes: Vec<MetricResult>,
    file: ScoreFile,
) -> ToolkitCertificate {
    let cases: Vec<_> = ["a", "b", "c"].map(|name| case(name, &[])).into();
    compared_cases(&cases[..outcomes.len()], code, outcomes, file)
}

fn compared_cases(
    cases: &[Case],
    code: &'static str,
    outcomes: Vec<MetricResult>,
    file: ScoreFile,
) -> ToolkitCertificate {
    let scored = outcomes.into_iter().map(|outcome| Ok(scored(code, outcome))).collect();
    let pack = pack();
    let tolerances = Tolerances::default();
    compare(&pack, cases, &scored, &[file], &tolerances)
}

#[test]
fn rows_are_matched_by_name_and_the_worst_is_listed() {
    let ips =
        file("identity_preservation.csv", ",name,identity_preservation\n0,b,0.504\n1,a,0.251\n");
    let found = compared("ips", vec![number(0.25), number(0.5)], ips);
    assert!(found.passed, "{found:#?}");
    let [line] = &found.metrics[..] else { panic!("one metric") };
    assert_eq!((line.rows, line.failed_rows, line.worst[0].row.as_str()), (2, 0, "b"));
    assert!((line.largest_difference - 0.004).abs() < 1e-12);

    let ips =
        file("identity_preservation.csv", ",name,identity_preservation\n0,b,0.5051\n1,a,0.25\n");
    let found = compared("ips", vec![number(0.25), number(0.5)], ips);
    assert!(!found.passed && !found.metrics[0].passed);
    assert_eq!((found.metrics[0].failed_rows, found.metrics[0].worst[0].row.as_str()), (1, "b"));
}

#[test]
fn tolerances_depend_on_the_precision_of_both_sides_and_can_be_overridden() {
    let usual = Tolerances::default();
    assert_eq!(
        (usual.of("clip_t", true), usual.of("pick_score", true), usual.of("aesthetic", true)),
        (5e-3, 1e-4, 2e-2)
    );
    let own = Tolerances::new(&[("clip_t".to_owned(), 1e-4)]).unwrap();
    assert_eq!((own.of("clip_t", true), own.of("clip_i", true)), (1e-4, 5e-3));
    assert_eq!((usual.of("pick_score", false), usual.of("image_reward", false)), (5e-3, 2e-2));
    for (wrong, words) in
        [(("beauty", 1.0), "beauty"), (("ips", f64::NAN), "NaN"), (("ips", -1.0), "-1")]
    {
        let error = Tolerances::new(&[(wrong.0.to_owned(), wrong.1)]).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    // Every metric of the toolkit's files has one.
    for (_, code) in toolkit::FILES.iter().flat_map(|file| file.scores) {
        assert!(usual.of(code, true) > 0.0, "{code}");
    }
}

#[test]
fn unmatched_rows_and_numbers_on_one_side_only_are_failures() {
    let text = ",name,identity_preservation\n0,a,0.25\n1,b,0.3\n2,c,\n3,stranger,0.1\n";
    let outcomes = vec![number(0.25), Err(NullReason::NoReference), number(0.5)];
    let found = compared("ips", outcomes, file("identity_preservation.csv", text));
    assert!(!found.passed && found.metrics[0].passed, "{found:#?}");
    let problems = found.problems.join("\n");
    for words in [
        "row \"stranger\"",
        "b: ips is null here (no_reference), but 0.3",
        "c: ips is 0.5 here, but empty",
    ] {
        assert!(problems.contains(words), "`{words}` is not in {problems}");
    }
    assert_eq!(found.problems.len(), 3);
}

#[test]
fn a_file_without_comparable_rows_does_not_pass() {
    let text = ",name,identity_preservation\n0,a,0\n";
    let found = compared(
        "ips",
        vec![Err(NullReason::NoFaceInReference)],
        file("identity_preservation.csv", text),
    );
    assert!(!found.passed);
    assert_eq!(found.metrics[0].left_out.len(), 1);
    let found = compared(
        "ips",
        vec![Err(NullReason::Unavailable)],
        file("identity_preservation.csv", text),
    );
    assert!(
        !found.passed && found.metrics.is_empty() && found.notes[1].contains("no graphs"),
        "{found:#?}"
    );
}

#[test]
fn an_image_without_a_row_is_noted_and_one_that_cannot_be_scored_fails() {
    let ips = || file("identity_preservation.csv", ",name,identity_preservation\n0,a,0.25\n");
    let found = compared("ips", vec![number(0.25), number(0.5)], ips());
    assert!(found.passed && found.notes[1].contains("1 images have no row"), "{found:#?}");
    let (pack, cases) = (pack(), [case("a", &[]), case("b", &[])]);
    let all = vec![Ok(scored("ips", number(0.25))), Err("it is damaged".to_owned())];
    let tolerances = Tolerances::default();
    let found = compare(&pack, &cases, &all, &[ips()], &tolerances);
    assert!(!found.passed && found.problems == ["b: it is damaged"], "{found:#?}");
}

#[test]
fn objects_are_compared_unless_the_toolkits_blanks_compete() {
    let cases =
        [case("a", &["cup", "dog"]), case("b", &["clown", "dog"]), case("c", &["dog", "dog"])];
    let outcomes = || vec![number(0.5), number(0.4), number(0.6)];
    let text = ",name,object_faithfulness\n0,a,0.5\n1,b,0.1\n2,c,0.3\n";
    let found = compared_cases(&cases, "goa", outcomes(), file("object_faithfulness.csv", text));
    assert!(found.passed && found.metrics[0].rows == 1, "{found:#?}");
    let left_out: Vec<_> = found.metrics[0]
        .left_out
        .iter()
        .map(|row| (row.row.as_str(), row.why.contains("blanks")))
        .collect();
    assert_eq!(left_out, [("b", true), ("c", false)]);
    // Blanks can only lower a score.
    let text = text.replace("b,0.1", "b,0.45");
    let found = compared_cases(&cases, "goa", outcomes(), file("object_faithfulness.csv", &text));
    assert!(!found.passed && found.metrics[0].worst[0].row == "b", "{found:#?}");
}

#[test]
fn a_photo_without_a_face_counts_as_0_in_the_toolkit_only() {
    let sis = |number: &str| {
        file(
            "identity_stability.csv",
            &format!(",name,identity_stability\n0,a,{number}\n1,b,0.5\n"),
        )
    };
    let outcomes = || {
        let faceless = Score { flags: vec![Flag::FacelessPhotos], ..0.25.into() };
        vec![Ok(faceless), number(0.5)]
    };
    for (toolkit, passes, left_out) in [("0", true, 1), ("0.25", true, 0), ("0.1", false, 0)] {
        let found = compared("sis", outcomes(), sis(toolkit));
        assert_eq!(
            (found.passed, found.metrics[0].left_out.len()),
            (passes, left_out),
            "{found:#?}"
        );
    }
}

#[test]
fn predictions_are_equal_or_on_the_boundary() {
    let predicted = |attribute: &str, prediction, decision| AttributePrediction {
        attribute: attribute.to_owned(),
        target: Some(true),
        prediction,
        decision,
        left_out: None,
    };
    let predictions = vec![
        predicted("Male", Some(true), Some(2.0)),
        predicted("Young", Some(true), Some(5e-4)),
        predicted("Big_Lips", None, None),
    ];
    let outcome: MetricResult =
        Ok(Score { explanation: Explanation::Predictions(predictions), ..1.0.into() });
    let header =
        ",name,Male_target,Male_pred,Young_target,Young_pred,Big_Lips_target,Big_Lips_pred\n";
    let csv =
        |cells: &str| file("attribute_preservation_syn.csv", &format!("{header}0,a,{cells}\n"));
    let found = compared(APS, vec![outcome.clone()], csv("1,1,1,-1,1,-1"));
    assert!(found.passed, "{found:#?}");
    assert_eq!((found.metrics[0].rows, found.metrics[0].left_out.len()), (1, 2));
    let found = compared(APS, vec![outcome.clone()], csv("1,-1,1,1,1,-1"));
    assert!(!found.passed && found.metrics[0].worst[0].row == "a Male", "{found:#?}");
    let found = compared(APS, vec![outcome], csv("-1,1,1,1,1,-1"));
    assert!(found.problems[0].starts_with("a Male: absent in"), "{found:#?}");
}

#[test]
fn a_file_of_another_clip_is_noted() {
    let csv = |name| file(name, ",name,clip_t,clip_n,clip_i\n0,a,0.25,,\n");
    let found =
        compared("clip_t", vec![number(0.25)], csv("clip_openai_clip-vit-base-patch32.csv"));
    assert!(found.notes.iter().any(|note| note.contains("different CLIP models")), "{found:#?}");
    let own = csv("clip_laion_CLIP-ViT-bigG-14-laion2B-39B-b160k.csv");
    let found = compared("clip_t", vec![number(0.25)], own);
    assert!(!found.notes.iter().any(|note| note.contains("different CLIP models")), "{found:#?}");
}

#[test]
fn only_toolkit_files_are_read_and_each_kind_once() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let dino = write("dino.csv", ",name,dino_fidelity\n0,a,1\n");
    let other = write("report.csv", "x\n");
    let (files, notes) = read_score_files(&[dino.clone(), other]).unwrap();
    assert_eq!((files[0].name.as_str(), notes.len()), ("dino.csv", 1));
    assert_eq!(files[0].metrics()[0].code, "dino");
    let second = write("dino_old.csv", ",name,dino_fidelity\n0,a,1\n");
    let error = read_score_files(&[dino, second]).unwrap_err().to_string();
    assert!(error.contains("dino_old.csv and dino.csv"), "{error}");
    let wrong = write("identity_stability.csv", ",name,dino_fidelity\n0,a,1\n");
    assert!(format!("{:#}", read_score_files(&[wrong]).unwrap_err()).contains("rename it"));
}
