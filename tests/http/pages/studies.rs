//! `/study?study=` and `/vote?study=`: a study is made, opened, answered and read in a browser.

use axum::{body::Body, http::Request};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    harness::{Answer, App},
    pages::votes::{field, record, send, text},
};

fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |encoded, byte| encoded + &format!("%{byte:02X}"))
}

/// Sends a form whose fields may repeat.
async fn post(app: &App, path: &str, fields: &[(&str, String)]) -> Answer {
    post_for(app, path, fields, "*/*").await
}

async fn post_for(app: &App, path: &str, fields: &[(&str, String)], accept: &str) -> Answer {
    let body: Vec<String> =
        fields.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
    let request = Request::post(path)
        .header("content-type", "application/x-www-form-urlencoded")
        .header("accept", accept)
        .body(Body::from(body.join("&")))
        .unwrap();
    app.send(request).await
}

fn goes_to(answer: &Answer) -> String {
    assert_eq!(answer.status, 303, "{}", String::from_utf8_lossy(&answer.body));
    assert_eq!(answer.headers["cache-control"], "private, no-store");
    answer.headers["location"].to_str().unwrap().to_owned()
}

const TITLE: &str = "<script>alert(1)</script> which?";

/// Creates a study of four methods by the form, and returns its address.
async fn create(app: &App) -> String {
    let mut fields = vec![
        ("name", "four".to_owned()),
        ("title", TITLE.to_owned()),
        ("form", "best_of".to_owned()),
        ("questions", "overall".to_owned()),
        ("answers_per_item", "2".to_owned()),
        ("quota", "3".to_owned()),
        ("cannot_tell", "yes".to_owned()),
        ("consent", "Images of <b>people</b>.".to_owned()),
        ("kind", String::new()),
    ];
    for method in ["a", "b", "c", "d"] {
        fields.push(("runs", record(app, method, &[0.5; 6]).await.to_string()));
    }
    goes_to(&post(app, "/study/new", &fields).await)
}

#[tokio::test]
async fn a_study_is_made_opened_answered_and_read_without_javascript() {
    let app = App::start().await;
    let empty = text(&app.get("/study?new=true").await);
    assert!(empty.contains("needs runs of two methods"), "{empty}");
    let address = create(&app).await;
    assert!(address.starts_with("/study?study="), "{address}");
    let id = address.split('=').nth(1).unwrap().to_owned();
    let page = text(&app.get(&address).await);
    assert!(page.contains("&lt;script&gt;alert(1)") && !page.contains("<script>alert"), "{page}");
    assert!(page.contains("best of 4") && page.contains("Nobody has answered yet"), "{page}");
    assert!(!page.contains(" style="));
    let vote = format!("/vote?study={id}&annotator=ada&consent=yes");
    assert!(text(&app.get(&vote).await).contains("This study is not open"));
    let open = [("study", id.clone()), ("state", "open".to_owned())];
    assert_eq!(goes_to(&post(&app, "/study/state", &open).await), address);

    let start = text(&app.get(&format!("/vote?study={id}")).await);
    assert!(start.contains("Images of &lt;b&gt;people") && start.contains("name=\"consent\""));
    assert!(!start.contains("id=\"ballot\""));
    let refused = post(&app, "/vote/study", &[("study", id.clone())]).await;
    refused.problem(422, "invalid_field");
    let first = text(&app.get(&vote).await);
    assert_eq!(first.matches("class=\"frame\"").count(), 4);
    assert!(first.contains("Which image is best overall?") && first.contains("data-key=\"4\""));
    assert!(!first.contains("data-key=\"e\"") && first.contains("data-key=\"c\""), "no ties");
    let answer = async |page: &str, choice: &str| {
        let fields = [
            ("study", id.as_str()),
            ("annotator", "ada"),
            ("consent", "yes"),
            ("item", &field(page, "item").unwrap()),
            ("question", &field(page, "question").unwrap()),
            ("choice", choice),
        ];
        goes_to(&send(&app, "/vote/study", &fields).await)
    };
    let next = answer(&first, "2").await;
    let undo = next.split("undo=").nth(1).unwrap();
    let fields = [("study", &*id), ("annotator", "ada"), ("consent", "yes"), ("id", undo)];
    let again = goes_to(&send(&app, "/vote/study/undo", &fields).await);
    let again = text(&app.get(&again).await);
    assert_eq!(field(&again, "item"), field(&first, "item"), "the same item is shown again");
    let mut page = again;
    for choice in ["2", "cannot_tell", "1"] {
        page = text(&app.get(&answer(&page, choice).await).await);
    }
    assert!(page.contains("id=\"completion\"") && page.contains("answered 3 items"), "{page}");
    assert!(page.contains("if you are asked for a code"), "{page}");

    let study = text(&app.get(&address).await);
    assert!(study.contains("First-choice share by method") && study.contains("25 % is chance"));
    assert!(study.contains("Not counted: 1 ×") && study.contains("ada"), "{study}");
    assert!(study.contains("by 1 annotator about") && !study.contains("0 ties"), "{study}");
    let verdict = study.split("class=\"asked\"").nth(2).unwrap().split("</p>").next().unwrap();
    assert!(verdict.contains("not certain") || verdict.contains("equally often"), "{verdict}");
    let csv = text(&app.get(&format!("{address}&download=csv:shares")).await);
    assert!(csv.starts_with("method,shown,chosen,share,share low"), "{csv}");
    assert_eq!(csv.lines().count(), 5);
    let shared = text(&app.get(&format!("{address}&share=html")).await);
    assert!(!shared.contains("<form") && !shared.contains("/v1/studies"), "{shared}");
    let metrics = text(&app.get(&format!("{address}&view=metrics")).await);
    assert!(metrics.contains("Which metric agrees with people?"), "{metrics}");
    let all = text(&app.get("/study").await);
    assert!(all.find("best of 4").unwrap() < all.find("name=\"annotator\"").unwrap(), "{all}");
    // Two choices of one out of four, and one "cannot tell" that is no vote.
    assert!(all.contains("<h2>Votes</h2><p class=\"big\">6</p>"), "{all}");
    assert!(all.contains("counts as k − 1 votes") && !all.contains("on the left."), "{all}");
    let csv = text(&app.get("/study?download=csv:next").await);
    let votes: usize = csv
        .lines()
        .skip(1)
        .map(|line| line.split(',').nth(2).unwrap().parse::<usize>().unwrap())
        .sum();
    assert_eq!(votes, 6, "{csv}");

    assert!(study.contains("aria-label=\"Leave out: ada\""), "{study}");
    let fields = [("study", &*id), ("annotator", "adda"), ("reason", "a typo")];
    let fields = fields.map(|(name, value)| (name, value.to_owned()));
    post(&app, "/study/exclude", &fields).await.problem(404, "not_found");
    let fields = [("study", &*id), ("annotator", "ada"), ("reason", "a <i>test</i>")];
    let fields = fields.map(|(name, value)| (name, value.to_owned()));
    goes_to(&post(&app, "/study/exclude", &fields).await);
    let study = text(&app.get(&address).await);
    assert!(study.contains("a &lt;i&gt;test") && study.contains("left out"), "{study}");
    assert!(study.contains("aria-label=\"Count again: ada\""), "{study}");
    assert!(study.contains("No answer to this question is counted yet"));
    assert!(study.contains("3 answers are of annotators who are left out"), "{study}");
    goes_to(&post(&app, "/study/include", &fields[..2]).await);
    let results = app.get(&format!("/v1/studies/{id}/results")).await.ok();
    assert_eq!(
        (&results["answers"], &results["left_out"]),
        (&Value::from(2), &Value::from(Vec::<Value>::new()))
    );
}

/// Fields of a study of four methods whose gold items are these lines.
async fn with_gold(app: &App, gold: &str) -> (Vec<(&'static str, String)>, Vec<Uuid>) {
    let mut runs = Vec::new();
    for method in ["a", "b", "c", "d, <i>e</i>"] {
        runs.push(record(app, method, &[0.5; 6]).await);
    }
    let mut fields = vec![
        ("name", "whole <b>".to_owned()),
        ("form", "best_of".to_owned()),
        ("questions", "identity".to_owned()),
        ("questions", "hands_look_right".to_owned()),
        ("ties", String::new()),
        ("names", "00\r\n 01 \r\n\r\n02\r\n03\r\n".to_owned()),
        ("gold", gold.to_owned()),
        ("gold_share", "0.8".to_owned()),
        ("gold_every", "4".to_owned()),
        ("consent", "We ask, and pay 1 €.\r\n\r\nStop when <b>you</b> like.\r\n".to_owned()),
    ];
    fields.extend(runs.iter().map(|run| ("runs", run.to_string())));
    (fields, runs)
}

async fn with_own_question() -> App {
    App::with(|setup| setup.config.analysis.questions = vec!["hands_look_right".to_owned()]).await
}

#[tokio::test]
async fn a_study_with_gold_items_consent_and_an_own_question_is_made_in_the_browser() {
    let app = with_own_question().await;
    let bad = record(&app, "bad", &[0.1; 6]).await;
    let page = text(&app.get("/study?new=true").await);
    assert!(!page.contains("name=\"gold\""), "one run is too few: {page}");
    let gold = "04, b\r\n\r\n05, c,\"d, <i>e</i>\", a, bad / default\r\n";
    let (fields, runs) = with_gold(&app, gold).await;
    let page = text(&app.get("/study?new=true&k=3").await);
    for part in ["<textarea name=\"gold\"", "<textarea name=\"consent\"", "Hands look right"] {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert!(page.contains("value=\"best_of\" selected"), "as for the number of answers");

    let address = goes_to(&post(&app, "/study/new", &fields).await);
    let id = address.split('=').nth(1).unwrap();
    let plan = app.get(&format!("/v1/studies/{id}")).await.ok()["plan"].clone();
    let items = json!([
        {"name": "04", "runs": runs, "right": runs[1]},
        {"name": "05", "runs": [runs[2], runs[3], runs[0], bad], "right": runs[2]},
    ]);
    assert_eq!(plan["gold"], json!({"items": items, "share": 0.8, "least": 2, "every": 4}));
    assert_eq!(plan["consent"], "We ask, and pay 1 €.\n\nStop when <b>you</b> like.");
    assert_eq!(plan["prompts"]["names"], json!(["00", "01", "02", "03"]));
    assert_eq!(plan["questions"], json!(["identity", "hands_look_right"]));

    let draft = text(&app.get(&address).await);
    for part in [
        "<details id=\"plan\" open",
        "2 gold items, one of 4",
        "Below 80 % right",
        "Which image is the best: hands look right?",
        "4 chosen names",
        "What annotators read first",
    ] {
        assert!(draft.contains(part), "{part}: {draft}");
    }
    let start = text(&app.get(&format!("/vote?study={id}")).await);
    assert!(start.contains("<bdi>Stop when &lt;b&gt;you&lt;/b&gt; like.</bdi></p>"), "{start}");
    assert!(start.contains("at most 6 items, with 2 questions about each"), "{start}");
    assert!(start.contains("Write this name down"), "{start}");
    goes_to(&post(&app, "/study/state", &[("study", id.into()), ("state", "open".into())]).await);
    let vote = format!("/vote?study={id}&annotator=ada&consent=yes");
    let mut asked = Vec::new();
    for _ in 0..12 {
        let page = text(&app.get(&vote).await);
        let Some(item) = field(&page, "item") else { break };
        let question = field(&page, "question").unwrap();
        let fields = [
            ("study", id),
            ("annotator", "ada"),
            ("consent", "yes"),
            ("item", &item),
            ("question", &question),
            ("choice", "1"),
        ];
        goes_to(&send(&app, "/vote/study", &fields).await);
        asked.push(question);
    }
    let own = asked.iter().filter(|question| *question == "hands_look_right").count();
    assert_eq!((asked.len(), own), (4 * 2 + 2, 4), "gold items have the first question only");
    let export = text(&app.get(&format!("/v1/studies/{id}/answers?format=csv")).await);
    assert!(export.contains("bad") && !export.contains("run "), "{export}");
    let results = text(&app.get(&format!("{address}&download=csv:annotators")).await);
    assert!(results.starts_with("annotator,answers,about gold items,of them right,"), "{results}");
    assert!(results.contains("\nada,10,2,"), "{results}");
    let results = text(&app.get(&format!("{address}&question=hands_look_right")).await);
    assert!(results.contains("Which image is the best: hands look right?"), "{results}");
}

#[tokio::test]
async fn a_refused_study_names_the_line_and_keeps_what_was_filled_in() {
    let app = with_own_question().await;
    let (mut fields, _) = with_gold(&app, "04, b\r\n05, <b>bee</b>\r\n").await;
    let page = post_for(&app, "/study/new", &fields, "text/html,*/*").await;
    assert_eq!(page.status, 422);
    assert_eq!(page.headers["cache-control"], "private, no-store");
    let page = String::from_utf8(page.body.to_vec()).unwrap();
    for part in [
        "role=\"alert\"",
        "gold items, line 2: “&lt;b&gt;bee&lt;/b&gt;” is no method of the study: write one of a, b, c",
        "value=\"whole &lt;b&gt;\"",
        "04, b\n05, &lt;b&gt;bee&lt;/b&gt;</textarea>",
        "Stop when &lt;b&gt;you&lt;/b&gt; like.</textarea>",
        "name=\"questions\" value=\"hands_look_right\" checked",
        "name=\"gold_share\" min=\"0\" max=\"1\" step=\"any\" placeholder=\"0.7\" value=\"0.8\"",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert!(!page.contains("name=\"questions\" value=\"overall\" checked"), "it was not chosen");
    assert!(!page.contains("name=\"cannot_tell\" value=\"yes\" checked"), "nor was this");
    assert_eq!(page.matches("name=\"runs\"").count(), 4);
    assert_eq!(page.matches("checked").count(), 4 + 2, "{page}");

    let gold = fields.iter().position(|(name, _)| *name == "gold").unwrap();
    for (lines, said) in [
        ("04", "line 1: write the name of the samples, a comma, and the method"),
        ("\n04, a\n05, a, b", "line 2: an item has 4 images, and this line names 2 of them"),
        ("04, a, b, c, d, e", "line 1: “d” is no method"),
        ("04, a, b, c, a", "line 1: it names a method twice"),
        ("04, a\n99, a", "line 2: a has no image of the name “99”"),
        ("04, a\n\n\u{202e}5, a", "line 3: `the name of the samples` contains the invisible"),
    ] {
        fields[gold].1 = lines.to_owned();
        let detail = post(&app, "/study/new", &fields).await.problem(422, "invalid_field");
        assert!(detail.contains(said), "{lines:?}: {detail}");
    }
    fields[gold].1 = "04, a\n".repeat(101);
    let detail = post(&app, "/study/new", &fields).await.problem(422, "invalid_field");
    assert!(detail.contains("line 101: a study has at most 100"), "{detail}");
    fields[gold].1 = "04, a\n05, a".to_owned();
    let few: Vec<_> = fields.iter().cloned().chain([("gold_least", "3".to_owned())]).collect();
    let detail = post(&app, "/study/new", &few).await.problem(422, "invalid_field");
    assert!(detail.contains("`gold.least` is 3, which is more than"), "{detail}");
    fields[gold].1 = String::new();
    for (name, value, said) in [
        ("consent", "a\u{200b}b".to_owned(), "`consent` contains the invisible character U+200B"),
        ("consent", "é".repeat(4_001), "`consent` is 4001"),
        ("runs", "x".to_owned(), "does not describe a study"),
        ("quota", "many".to_owned(), "`quota` is not a whole number"),
    ] {
        let fields: Vec<_> = fields.iter().cloned().chain([(name, value)]).collect();
        let detail = post(&app, "/study/new", &fields).await.problem(422, "invalid_field");
        assert!(detail.contains(said), "{name}: {detail}");
    }
    fields.retain(|(name, _)| *name != "runs");
    let detail = post(&app, "/study/new", &fields).await.problem(422, "invalid_field");
    assert!(detail.contains("0 runs are chosen: choose 2 to 20"), "{detail}");
    assert_eq!(app.get("/v1/studies").await.ok()["items"], json!([]));
    let long = [("consent", "é".repeat(1 << 18))];
    post(&app, "/study/new", &long).await.problem(413, "payload_too_large");
}

#[tokio::test]
async fn the_number_of_answers_is_computed_on_the_page() {
    let app = App::start().await;
    let address = "/study?new=true&k=4&target=0.35&answers_per_item=5&price=0.1&seconds=15";
    let page = text(&app.get(address).await);
    assert!(page.contains("282") && page.contains("28.20") && page.contains("71 min"), "{page}");
    // Empty fields have the values that they show: k = 4, 35 %, three answers about an item.
    let page = text(&app.get("/study?new=true&k=&target=&size=true").await);
    assert!(page.contains("Tells a share of 35 % from 25 %") && page.contains("219"), "{page}");
    assert!(page.contains("placeholder=\"4\"") && page.contains("placeholder=\"0.35\""));
    let page = text(&app.get("/study?new=true&k=2&target=0.5").await);
    assert!(page.contains("role=\"alert\"") && page.contains("no number of answers"), "{page}");
    app.get("/study?new=true&nothing=1").await.problem(400, "malformed_request");
}

#[tokio::test]
async fn errors_about_a_form_say_so() {
    let app = App::start().await;
    let detail = send(&app, "/vote", &[("beauty", "1")]).await.problem(400, "malformed_request");
    assert!(detail.contains("form") && !detail.contains("query"), "{detail}");
    let detail = post(&app, "/vote", &[("annotator", "a\u{202e}b".to_owned())]).await;
    let detail = detail.problem(400, "malformed_request");
    assert!(detail.contains("in the form") && !detail.contains("query"), "{detail}");
    let fields = [("name", "x"), ("k", "many"), ("runs", "a"), ("runs", "b")];
    let fields = fields.map(|(name, value)| (name, value.to_owned()));
    let detail = post(&app, "/study/new", &fields).await;
    assert!(detail.problem(422, "invalid_field").contains("`k` is not a whole number"));
    let detail = app.get("/vote?beauty=1").await.problem(400, "malformed_request");
    assert!(detail.contains("query string"), "{detail}");
}
