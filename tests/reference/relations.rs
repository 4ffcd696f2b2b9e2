//! Parsed relations compared with hand-annotated ones: `tests/data/relations/*.txt`.

use std::fs;

use stellar_score::text::relations::{
    Relation, RelationKind, RelationSource, annotated, relations, relations_of,
};

struct Case {
    prompt: String,
    detectables: Vec<String>,
    expected: Vec<(String, String)>,
}

/// Reads `prompt | detectable; … | predicate > object; …` lines.
fn cases(name: &str) -> Vec<Case> {
    let path = format!("{}/tests/data/relations/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let list = |text: &str| -> Vec<String> {
        text.split(';').map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect()
    };
    text.lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let mut columns = line.split('|');
            let mut column =
                || columns.next().unwrap_or_else(|| panic!("{line:?} lacks a column")).trim();
            let (prompt, detectables, expected) = (column(), column(), column());
            let pair = |item: String| {
                let (predicate, object) =
                    item.split_once(" > ").unwrap_or_else(|| panic!("{line:?}"));
                (predicate.trim().to_owned(), object.trim().to_owned())
            };
            Case {
                prompt: prompt.to_owned(),
                detectables: list(detectables),
                expected: list(expected).into_iter().map(pair).collect(),
            }
        })
        .collect()
}

/// Returns the number of cases and a description of each wrong one.
fn wrong(name: &str) -> (usize, Vec<String>) {
    let cases = cases(name);
    let wrong = cases.iter().filter_map(|case| {
        let found = if case.detectables.is_empty() {
            relations(&case.prompt)
        } else {
            relations_of(&case.prompt, &case.detectables)
        };
        assert!(found.iter().all(|relation| relation.subject == "person"));
        let found: Vec<_> =
            found.into_iter().map(|relation| (relation.predicate, relation.object)).collect();
        (found != case.expected).then(|| {
            format!("{}\n    found    {found:?}\n    expected {:?}", case.prompt, case.expected)
        })
    });
    (cases.len(), wrong.collect())
}

#[test]
fn listed_prompts_give_their_relations() {
    let (count, wrong) = wrong("prompts");
    assert!(count >= 150);
    assert!(wrong.is_empty(), "{} of {count} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn prompts_written_before_the_parser_are_95_percent_correct() {
    let (count, wrong) = wrong("held_out");
    assert_eq!(count, 50);
    assert!(wrong.len() * 20 <= count, "{} of {count} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn prompts_written_blind_after_the_parser_are_95_percent_correct() {
    let (count, wrong) = wrong("held_out_late");
    assert_eq!(count, 50);
    assert!(wrong.len() * 20 <= count, "{} of {count} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn prompts_of_a_third_list_are_95_percent_correct() {
    let (count, wrong) = wrong("held_out_third");
    assert_eq!(count, 58);
    assert!(wrong.len() * 20 <= count, "{} of {count} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn prompts_of_a_fourth_list_are_95_percent_correct() {
    let (count, wrong) = wrong("held_out_fourth");
    assert_eq!(count, 52);
    assert!(wrong.len() * 20 <= count, "{} of {count} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn relations_have_a_kind_and_a_source() {
    let detectables = ["clown", "skis", "DOG", "mountains", "dog"].map(String::from);
    let found = relations_of("{} as a clown skiing next to a dog on a mountain", &detectables);
    let relation = |predicate: &str, object: &str, kind, source| Relation {
        subject: "person".into(),
        predicate: predicate.into(),
        object: object.into(),
        kind,
        source,
    };
    assert_eq!(
        found,
        [
            relation("skiing", "skis", RelationKind::Interaction, RelationSource::Implied),
            relation("skiing next to", "dog", RelationKind::Interaction, RelationSource::Parsed),
            relation("on", "mountains", RelationKind::Location, RelationSource::Parsed),
        ]
    );
    let triplets = [
        ["person".into(), "next to".into(), "dog".into()],
        ["dog".into(), "chases".into(), "cat".into()],
    ];
    assert_eq!(
        annotated(&triplets)
            .iter()
            .map(|relation| (relation.kind, relation.source))
            .collect::<Vec<_>>(),
        [
            (RelationKind::Location, RelationSource::Annotation),
            (RelationKind::Interaction, RelationSource::Annotation),
        ]
    );
}

#[test]
fn empty_and_very_long_prompts_are_handled() {
    for prompt in
        ["", "{}", "{} {} {}", ",,,", "and and and", "of of", "to", "riding", "as", "👍", "a a a"]
    {
        assert_eq!(relations(prompt), [], "{prompt:?}");
        assert_eq!(relations_of(prompt, &["  ".into(), "clown".into()]), [], "{prompt:?}");
    }
    assert_eq!(relations(&"a, ".repeat(3_000_000)), []);
    let long = "riding a bike, ".repeat(5_000);
    assert_eq!(relations(&long).len(), 1);
}
