//! Registered prompts over HTTP.

use axum::{
    body::Body,
    http::{Request, header},
};
use serde_json::{Value, json};

use crate::harness::{Answer, App, tells};

async fn put(app: &App, dataset: &str, body: &Value) -> Answer {
    let request = Request::put(format!("/v1/datasets/{dataset}/prompts"));
    let request = request.header(header::CONTENT_TYPE, "application/json");
    app.send(request.body(Body::from(body.to_string())).unwrap()).await
}

fn prompts(identities: usize, each: usize) -> Value {
    let all: Vec<Value> = (0..identities)
        .flat_map(|identity| (0..each).map(move |at| (identity, at)))
        .map(|(identity, at)| {
            let kind = if at % 2 == 0 { "T" } else { "H" };
            json!({"identity": format!("{identity:03}"), "prompt": format!("{{}} number \
                {at}"), "kind": kind,
                   "detectables": ["horse"], "relations": [["person", "riding", "horse"]]})
        })
        .collect();
    json!({ "prompts": all })
}

#[tokio::test]
async fn prompts_are_registered_once_and_read_back_in_pages() {
    let app = App::start().await;
    let body = prompts(3, 4);
    assert_eq!(
        put(&app, "D", &body).await.ok(),
        json!({"created": 12, "changed": 0, "repeated": 0})
    );
    assert_eq!(
        put(&app, "D", &body).await.ok(),
        json!({"created": 0, "changed": 0, "repeated": 12})
    );

    let mut read = Vec::new();
    let mut path = "/v1/datasets/D/prompts?limit=5".to_owned();
    loop {
        let page = app.get(&path).await.ok();
        read.extend(page["items"].as_array().unwrap().clone());
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/v1/datasets/D/prompts?limit=5&after={next}");
    }
    assert_eq!(json!({ "prompts": read }), body);
    let of = async |query: &str| {
        let page = app.get(&format!("/v1/datasets/D/prompts?{query}")).await.ok();
        page["items"].as_array().unwrap().len()
    };
    assert_eq!(of("identity=001").await, 4);
    assert_eq!(of("kind=H").await, 6);
    assert_eq!(of("identity=001&kind=H").await, 2);
    assert_eq!(app.get("/v1/datasets").await.ok()["datasets"][0]["prompts"], 12);

    let deletion = Request::delete("/v1/datasets/D").body(Body::empty()).unwrap();
    assert_eq!(app.send(deletion).await.ok()["prompts"], 12);
    app.get("/v1/datasets/D/prompts").await.problem(404, "not_found");
}

#[tokio::test]
async fn an_invalid_prompt_is_named_by_its_position() {
    let app = App::start().await;
    let with = |change: fn(&mut Value)| {
        let mut body = prompts(1, 3);
        change(&mut body["prompts"][2]);
        body
    };
    for (body, code, words) in [
        (
            with(|prompt| prompt["identity"] = json!("")),
            "invalid_field",
            ["prompts[2]", "identity"],
        ),
        (with(|prompt| prompt["kind"] = json!("\n")), "invalid_field", ["prompts[2]", "kind"]),
        (
            with(|prompt| prompt["prompt"] = json!("x".repeat(9_000))),
            "prompt_too_long",
            ["prompts[2]", "8192"],
        ),
        (
            with(|prompt| prompt["detectables"] = json!(vec!["x"; 300])),
            "invalid_field",
            ["prompts[2]", "300"],
        ),
        (
            with(|prompt| prompt["relations"] = json!([["a", "b"]])),
            "invalid_field",
            ["JSON", "length 2"],
        ),
        (
            with(|prompt| prompt["detectable"] = json!([])),
            "invalid_field",
            ["detectable", "unknown"],
        ),
        (prompts(1, 1_001), "invalid_field", ["1001", "1000"]),
    ] {
        tells(&put(&app, "D", &body).await.problem(422, code), &words);
    }
    app.get("/v1/datasets/D/prompts").await.problem(404, "not_found");
    put(&app, "D", &prompts(1, 1)).await.ok();
    app.get("/v1/datasets/D/prompts?after=nonsense").await.problem(400, "malformed_request");
    app.get("/v1/datasets/D/prompts?limit=0").await.problem(400, "malformed_request");
}

#[tokio::test]
async fn a_dataset_is_redistributable_only_if_declared() {
    let app = App::start().await;
    let declared = async |body: Value| {
        put(&app, "D", &body).await.ok();
        app.get("/v1/datasets/D").await.ok()["redistributable"].clone()
    };
    assert_eq!(declared(json!({"prompts": []})).await, false);
    assert_eq!(declared(json!({"prompts": [], "redistributable": true})).await, true);
    assert_eq!(declared(json!({"prompts": []})).await, true, "unchanged");
    assert_eq!(declared(json!({"prompts": [], "redistributable": false})).await, false);
}
