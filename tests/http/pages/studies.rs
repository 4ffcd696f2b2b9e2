//! `/study?study=` and `/vote?study=`: a study is made, opened, answered and read in a browser.

use axum::{body::Body, http::Request};
use serde_json::Value;

use crate::{
    harness::{Answer, App},
    pages::votes::{field, record, send, text},
};

fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |encoded, byte| encoded + &format!("%{byte:02X}"))
}

/// Sends a form whose fields may repeat.
async fn post(app: &App, path: &str, fields: &[(&str, String)]) -> Answer {
    let body: Vec<String> =
        fields.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
    let request = Request::post(path)
        .header("content-type", "application/x-www-form-urlencoded")
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
    assert!(first.contains("Which image is the best overall?") && first.contains("data-key=\"4\""));
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
    assert!(page.contains("id=\"completion\"") && page.contains("about 3 items"), "{page}");

    let study = text(&app.get(&address).await);
    assert!(study.contains("First-choice share by method") && study.contains("25 % is chance"));
    assert!(study.contains("Not counted: 1 ×") && study.contains("ada"), "{study}");
    let csv = text(&app.get(&format!("{address}&download=csv:shares")).await);
    assert!(csv.starts_with("method,shown,chosen,share,share low"), "{csv}");
    assert_eq!(csv.lines().count(), 5);
    let shared = text(&app.get(&format!("{address}&share=html")).await);
    assert!(!shared.contains("<form") && !shared.contains("/v1/studies"), "{shared}");
    let metrics = text(&app.get(&format!("{address}&view=metrics")).await);
    assert!(metrics.contains("Which metric agrees with people?"), "{metrics}");
    assert!(text(&app.get("/study").await).contains("best of 4"), "it is listed");

    let fields = [("study", &*id), ("annotator", "ada"), ("reason", "a <i>test</i>")];
    let fields = fields.map(|(name, value)| (name, value.to_owned()));
    goes_to(&post(&app, "/study/exclude", &fields).await);
    let study = text(&app.get(&address).await);
    assert!(study.contains("a &lt;i&gt;test") && study.contains("left out"), "{study}");
    assert!(study.contains("No answer to this question is counted yet"));
    goes_to(&post(&app, "/study/include", &fields[..2]).await);
    let results = app.get(&format!("/v1/studies/{id}/results")).await.ok();
    assert_eq!(
        (&results["answers"], &results["left_out"]),
        (&Value::from(2), &Value::from(Vec::<Value>::new()))
    );
}

#[tokio::test]
async fn the_number_of_answers_is_computed_on_the_page() {
    let app = App::start().await;
    let address = "/study?new=true&k=4&target=0.35&answers_per_item=5&price=0.1&seconds=15";
    let page = text(&app.get(address).await);
    assert!(page.contains("282") && page.contains("28.20") && page.contains("71 min"), "{page}");
    let page = text(&app.get("/study?new=true&target=0.5").await);
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
    let detail =
        post(&app, "/study/new", &[("name", "x".to_owned()), ("k", "many".to_owned())]).await;
    assert!(detail.problem(422, "invalid_field").contains("`k` is not a whole number"));
    let detail = app.get("/vote?beauty=1").await.problem(400, "malformed_request");
    assert!(detail.contains("query string"), "{detail}");
}
