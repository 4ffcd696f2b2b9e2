//! Tokenizers compared with the ids of the Python originals (`scripts/text_fixtures.py`), and on
//! hostile input.

use std::{
    fs,
    sync::LazyLock,
    time::{Duration, Instant},
};

use proptest::prelude::*;
use serde::Deserialize;
use stellar_text::{
    Cleaning, ClipTokenizer, MAX_CHARS, TokenizerError, Tokens, WordPieceTokenizer,
};

const START: i64 = 49_406;
const END: i64 = 49_407;
const CLIP_FLAVOURS: [Cleaning; 3] = [Cleaning::HfSlow, Cleaning::HfFast, Cleaning::Openai];

static CLIP: LazyLock<ClipTokenizer> = LazyLock::new(|| {
    ClipTokenizer::from_merges(&read("packs/demo/tokenizers/clip-merges.txt"), Cleaning::HfSlow)
        .unwrap()
});
static BERT: LazyLock<WordPieceTokenizer> = LazyLock::new(|| {
    WordPieceTokenizer::from_vocab(&read("packs/demo/tokenizers/bert-vocab.txt")).unwrap()
});

fn read(path: &str) -> String {
    let path = format!("{}/../../{path}", env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn clip(cleaning: Cleaning) -> ClipTokenizer {
    CLIP.with_cleaning(cleaning).unwrap()
}

/// One line of a fixture file: a prompt, and the original's result for each flavour.
#[derive(Deserialize)]
struct Case {
    text: String,
    #[serde(default = "once")]
    repeat: usize,
    #[serde(default)]
    special: bool,
    hf_slow: Option<Expected>,
    hf_fast: Option<Expected>,
    openai: Option<Expected>,
    bert: Option<Expected>,
}

#[derive(Deserialize)]
struct Expected {
    ids: Vec<i64>,
    count: usize,
}

fn once() -> usize {
    1
}

impl Case {
    fn prompt(&self) -> String {
        self.text.repeat(self.repeat)
    }

    fn expected(&self, cleaning: Cleaning) -> &Expected {
        let expected = match cleaning {
            Cleaning::HfSlow => &self.hf_slow,
            Cleaning::HfFast => &self.hf_fast,
            Cleaning::Openai => &self.openai,
            Cleaning::Bert => &self.bert,
        };
        expected.as_ref().expect("every line of a fixture file has all flavours")
    }
}

fn cases(name: &str) -> Vec<Case> {
    let cases: Vec<Case> = read(&format!("tests/data/text/{name}.jsonl"))
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(cases.len() >= 300);
    cases
}

#[track_caller]
fn compare(prompt: &str, cleaning: Cleaning, ours: &Tokens, expected: &Expected, context: usize) {
    assert_eq!(ours.ids, expected.ids, "{cleaning:?} {prompt:?}");
    assert_eq!(ours.count, expected.count, "{cleaning:?} {prompt:?}");
    assert_eq!(ours.truncated, expected.count > context, "{cleaning:?} {prompt:?}");
}

#[test]
fn clip_ids_equal_the_originals_in_every_flavour() {
    let cases = cases("clip");
    for cleaning in CLIP_FLAVOURS {
        let tokenizer = clip(cleaning);
        for case in &cases {
            compare(
                &case.prompt(),
                cleaning,
                &tokenizer.encode(&case.prompt(), 77),
                case.expected(cleaning),
                77,
            );
        }
    }
    for length in [1, 75, 76, 77, 78] {
        assert!(
            cases.iter().any(|case| case.expected(Cleaning::HfSlow).count == length + 2),
            "no prompt has {length} tokens"
        );
    }
}

#[test]
fn bert_ids_equal_the_original() {
    for case in cases("bert") {
        compare(
            &case.prompt(),
            Cleaning::Bert,
            &BERT.encode(&case.prompt(), 35),
            case.expected(Cleaning::Bert),
            35,
        );
    }
}

#[test]
fn special_tokens_in_a_prompt_are_plain_text() {
    let special: Vec<Case> = cases("clip").into_iter().filter(|case| case.special).collect();
    assert!(special.len() >= 10);
    for cleaning in CLIP_FLAVOURS {
        for case in &special {
            let ids = clip(cleaning).encode(&case.prompt(), 77).ids;
            let inner = &ids[1..ids.len() - 1];
            assert!(
                !inner.contains(&START) && !inner.contains(&END),
                "{cleaning:?} {:?}",
                case.text
            );
        }
    }
    assert!(!BERT.encode("a [SEP] b [CLS]", 35).ids[1..9].iter().any(|id| [101, 102].contains(id)));
}

#[test]
fn flavours_differ_where_their_originals_do() {
    let ids = |cleaning, text| clip(cleaning).encode(text, 77).ids;
    assert_eq!(ids(Cleaning::HfSlow, "don’t"), ids(Cleaning::HfSlow, "don't"));
    assert_ne!(ids(Cleaning::HfFast, "don’t"), ids(Cleaning::HfFast, "don't"));
    assert_eq!(ids(Cleaning::Openai, "<a> &amp;"), ids(Cleaning::Openai, "<a> &"));
    assert_ne!(ids(Cleaning::HfSlow, "<a> &amp;"), ids(Cleaning::HfSlow, "<a> &"));
    assert_ne!(ids(Cleaning::HfSlow, "ΟΔΟΣ"), ids(Cleaning::HfFast, "ΟΔΟΣ"));
}

#[test]
fn context_of_any_length_keeps_the_end_token_last() {
    for context in 0..6 {
        let tokens = CLIP.encode("a cat on a mat", context);
        assert_eq!((tokens.ids.len(), tokens.count, tokens.truncated), (context, 7, true));
        assert!(tokens.ids.last().is_none_or(|&last| last == END));
    }
    assert_eq!(CLIP.encode("", 77), Tokens { ids: vec![START, END], count: 2, truncated: false });
}

#[test]
fn text_beyond_the_longest_prompt_is_ignored_and_reported() {
    let longest = "é ".repeat(MAX_CHARS / 2);
    let more = format!("{longest}cat");
    for cleaning in CLIP_FLAVOURS {
        assert_eq!(clip(cleaning).encode(&more, 77), clip(cleaning).encode(&longest, 77));
    }
    let blank = " ".repeat(MAX_CHARS);
    assert!(!CLIP.encode(&blank, 77).truncated);
    assert_eq!(
        CLIP.encode(&format!("{blank}cat"), 77),
        Tokens { ids: vec![START, END], count: 2, truncated: true }
    );
    assert!(BERT.encode(&more, 35).truncated);
}

#[test]
fn ten_megabytes_of_any_text_are_encoded_quickly() {
    let units = [
        "word ",
        "x",
        "&amp;",
        "&",
        "Ã©",
        "ÃƒÂ©",
        "\u{301}",
        "é",
        "'",
        "\x1b[",
        "&#x41;",
        "\u{fffd}â€",
        "Â ",
        "👍",
        "\r\n",
        "𠀀",
        "Σ",
        "&ampere",
        "\u{85}",
        "ﷺ",
        "㈀ ",
    ];
    let deep = format!("é&{}", "amp;".repeat(10_000_000 / 4));
    let long = units.iter().map(|unit| unit.repeat(10_000_000 / unit.len())).chain([deep]);
    for text in long {
        for cleaning in CLIP_FLAVOURS {
            let start = Instant::now();
            let tokens = clip(cleaning).encode(&text, 77);
            // Unoptimised code on a busy machine. Code that reads everything, or is quadratic,
            // takes minutes.
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "{cleaning:?} {:?} {:?}",
                &text[..16],
                start.elapsed()
            );
            assert!(tokens.truncated && tokens.ids.len() <= 77);
        }
        assert!(BERT.encode(&text, 35).truncated);
    }
}

#[test]
fn broken_tokenizer_files_are_refused_with_the_reason() {
    let merges = read("packs/demo/tokenizers/clip-merges.txt");
    let error = |text: &str| ClipTokenizer::from_merges(text, Cleaning::HfSlow).unwrap_err();
    assert_eq!(error(""), TokenizerError::MergeCount { found: 0, expected: 48_894 });
    assert_eq!(
        error(&format!("#version: 0.2\n{merges}")),
        TokenizerError::MergeCount { found: 48_895, expected: 48_894 }
    );
    let (first, rest) = merges.split_once('\n').unwrap();
    for line in ["#version: 0.2", "i", "", "i  n", "in n"] {
        assert_eq!(
            error(&format!("{line}\n{rest}")),
            TokenizerError::Merge { line: 1, text: line.to_owned() }
        );
    }
    assert!(
        ClipTokenizer::from_merges(
            &format!("{first}\r\n{}", rest.replace('\n', "\r\n")),
            Cleaning::HfSlow
        )
        .is_ok()
    );
    assert_eq!(
        CLIP.with_cleaning(Cleaning::Bert).unwrap_err(),
        TokenizerError::Cleaning(Cleaning::Bert)
    );
    assert_eq!(
        WordPieceTokenizer::from_vocab("[CLS]\n[SEP]\n").unwrap_err(),
        TokenizerError::MissingToken("[UNK]")
    );
}

#[test]
fn cleanings_are_named_in_snake_case_in_a_manifest() {
    for (name, cleaning) in [
        ("hf_slow", Cleaning::HfSlow),
        ("hf_fast", Cleaning::HfFast),
        ("openai", Cleaning::Openai),
        ("bert", Cleaning::Bert),
    ] {
        assert_eq!(serde_json::from_value::<Cleaning>(name.into()).unwrap(), cleaning);
    }
    assert!(serde_json::from_value::<Cleaning>("HfSlow".into()).is_err());
}

/// Strings of characters that matter to cleaning: far more likely mojibake or HTML than random
/// ones.
fn nasty() -> impl Strategy<Value = String> {
    let pieces = prop_oneof![
        "[ -~]{0,8}",
        "[\u{80}-\u{ff}]{1,6}",
        "[ÂÃâ€œ™š¢£Ÿž\u{a0}ðŸ˜вЂРСГВΓÇ√‚├┬]{1,8}",
        "&(amp;)*(#x?[0-9a-f]{1,9}|[a-zA-Z]{1,9})[; ]",
        "[\u{300}-\u{36f}ΑΣΩσςİıſ'’]{1,5}",
        "\\PC{1,5}",
        any::<char>().prop_map(String::from),
    ];
    prop::collection::vec(pieces, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn every_text_gives_framed_ids_without_special_tokens_inside(text in nasty(), context in 2_usize..100) {
        for cleaning in CLIP_FLAVOURS {
            let Tokens { ids, count, truncated } = clip(cleaning).encode(&text, context);
            prop_assert_eq!(ids.len(), count.min(context));
            prop_assert_eq!(truncated, count > context);
            prop_assert_eq!((ids[0], ids[ids.len() - 1]), (START, END));
            prop_assert!(ids[1..ids.len() - 1].iter().all(|id| (0..START).contains(id)));
        }
        let Tokens { ids, count, .. } = BERT.encode(&text, context);
        prop_assert_eq!(ids.len(), count.min(context));
        prop_assert_eq!((ids[0], ids[ids.len() - 1]), (101, 102));
        prop_assert!(ids[1..ids.len() - 1].iter().all(|id| !(101..=103).contains(id)));
    }
}
