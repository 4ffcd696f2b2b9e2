//! `/v1/studies`: studies, their items and answers, and what they say.

use std::collections::{BTreeMap, BTreeSet};

use axum::{body::Body, http::Request};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    harness::{Answer, App},
    pages::votes::record,
};

async fn call(app: &App, method: &str, path: &str, body: &Value) -> Answer {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/json")
        .body(Body::from(body.to_string()))
        .unwrap();
    app.send(request).await
}

async fn runs(app: &App, methods: &[&str], prompts: usize) -> Vec<Uuid> {
    let mut runs = Vec::new();
    for method in methods {
        runs.push(record(app, method, &vec![0.5; prompts]).await);
    }
    runs
}

/// Creates a study and opens it; returns its id.
async fn open(app: &App, plan: &Value) -> String {
    let created = call(app, "POST", "/v1/studies", plan).await;
    assert_eq!(created.status, 201, "{}", String::from_utf8_lossy(&created.body));
    let created: Value = serde_json::from_slice(&created.body).unwrap();
    assert_eq!(created["state"], "draft");
    let id = created["id"].as_str().unwrap().to_owned();
    call(app, "PUT", &format!("/v1/studies/{id}/state"), &json!({"state": "open"})).await.ok();
    id
}

async fn next(app: &App, study: &str, annotator: &str) -> Value {
    app.get(&format!("/v1/studies/{study}/next?annotator={annotator}")).await.ok()
}

async fn answer(app: &App, study: &str, annotator: &str, task: &Value, choice: &str) -> Answer {
    let body = json!({"annotator": annotator, "item": task["item"], "question": task["question"],
        "choice": choice});
    call(app, "POST", &format!("/v1/studies/{study}/answers"), &body).await
}

/// The position of a method's image in a task.
fn position(task: &Value, method: &str) -> Option<String> {
    let name: usize = task["name"].as_str().unwrap().parse().unwrap();
    let image = format!("image {method} {name}");
    let hash = stellar_score::content::ContentHash::of(image.as_bytes()).to_hex();
    let images = task["images"].as_array().unwrap();
    images.iter().position(|of| of == &json!(hash)).map(|at| (at + 1).to_string())
}

/// Answers everything that an annotator is asked, always with the first of these methods that is
/// shown. Returns the number of answers.
async fn answer_all(app: &App, study: &str, annotator: &str, prefers: &[&str]) -> usize {
    for count in 0.. {
        let next = next(app, study, annotator).await;
        let Some(task) = next.get("task") else { return count };
        let choice = prefers.iter().find_map(|method| position(task, method)).unwrap();
        answer(app, study, annotator, task, &choice).await.ok();
    }
    unreachable!()
}

#[tokio::test]
async fn a_best_of_four_study_gives_shares_strengths_and_three_votes_of_one_trial() {
    let app = App::start().await;
    let methods = ["a", "b", "c", "d"];
    let runs = runs(&app, &methods, 8).await;
    let plan = json!({"name": "four", "runs": runs, "form": "best_of", "answers_per_item": 3});
    let study = open(&app, &plan).await;
    for (annotator, prefers) in [("ada", ["a"]), ("bob", ["a"]), ("eve", ["b"])] {
        assert_eq!(answer_all(&app, &study, annotator, &prefers).await, 8);
    }
    let done = next(&app, &study, "ada").await;
    assert_eq!((&done["done"], &done["answered"]), (&json!("no_items"), &json!(8)));
    assert_eq!(done["completion_code"].as_str().unwrap().len(), 8);
    assert_eq!(next(&app, &study, "late").await["done"], "no_items", "enough answers");

    let votes = app.get(&format!("/v1/preferences?study={study}&limit=1000")).await.ok();
    let votes = votes["preferences"].as_array().unwrap();
    assert_eq!(votes.len(), 24 * 3);
    let mut trials: BTreeMap<&str, usize> = BTreeMap::new();
    for vote in votes {
        *trials.entry(vote["trial"].as_str().unwrap()).or_default() += 1;
        assert_ne!(vote["preferred"], "tie", "losers are not compared");
    }
    assert!(trials.len() == 24 && trials.values().all(|votes| *votes == 3));

    let results = app.get(&format!("/v1/studies/{study}/results")).await.ok();
    assert_eq!((&results["answers"], &results["prompts"]), (&json!(24), &json!(8)));
    let of = |method: &str| {
        let all = results["methods"].as_array().unwrap();
        all.iter().find(|of| of["method"] == method).unwrap().clone()
    };
    assert_eq!((&of("a")["chosen"], &of("a")["shown"]), (&json!(16.0), &json!(24)));
    assert!((of("b")["share"].as_f64().unwrap() - 1.0 / 3.0).abs() < 1e-12);
    assert_eq!(results["penalised"], true, "c and d were never chosen");
    assert!(of("a")["strength"].as_f64().unwrap() > of("b")["strength"].as_f64().unwrap());
    assert!((results["agreement"]["equal"].as_f64().unwrap() - 1.0 / 3.0).abs() < 1e-12);
    // Every method is in every position equally often for each annotator.
    let chosen: usize = results["positions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|of| of["count"].as_u64().unwrap() as usize)
        .sum();
    assert_eq!(chosen, 24);

    // Votes of one answer are not independent: strengths have intervals over prompts.
    let preferences = app.get(&format!("/v1/analysis/preferences?study={study}")).await.ok();
    assert_eq!((&preferences["answers"], &preferences["clustered"]), (&json!(72), &json!(true)));
    let alignment = app.get(&format!("/v1/analysis/alignment?study={study}&run={}", runs[0])).await;
    assert_eq!(alignment.ok()["answers"], 16 * 3 + 8);
    let none = app.get(&format!("/v1/analysis/preferences?study={}", Uuid::nil())).await.ok();
    assert_eq!(none["answers"], 0);
    let none = app.get("/v1/analysis/preferences?kind=T").await.ok();
    assert_eq!(none["answers"], 0);

    let progress = app.get(&format!("/v1/studies/{study}")).await.ok();
    assert_eq!(progress["questions"][0]["answers"], 24);
    assert_eq!(progress["questions"][0]["complete_items"], 8);
    // A deleted run takes the answers about its images along.
    let path = format!("/v1/runs/{}", runs[3]);
    app.send(Request::delete(path).body(Body::empty()).unwrap()).await;
    assert_eq!(app.get(&format!("/v1/studies/{study}/results")).await.ok()["answers"], 0);
    assert_eq!(app.get("/v1/preferences").await.ok()["preferences"], json!([]));
}

#[tokio::test]
async fn a_plan_is_idempotent_by_name_and_checked() {
    let app = App::start().await;
    let runs = runs(&app, &["a", "b", "c"], 4).await;
    let plan = json!({"name": "pairs", "runs": runs});
    let first = call(&app, "POST", "/v1/studies", &plan).await;
    assert_eq!(first.status, 201);
    let again = call(&app, "POST", "/v1/studies", &plan).await.ok();
    assert_eq!(again["id"], first.json()["id"]);
    assert_eq!((&again["images"], &again["plan"]["title"]), (&json!(2), &json!("pairs")));
    let other = json!({"name": "pairs", "runs": runs, "seed": 1});
    call(&app, "POST", "/v1/studies", &other).await.problem(409, "study_conflict");
    for (field, value) in [
        ("runs", json!([runs[0]])),
        ("runs", json!([runs[0], runs[0]])),
        ("runs", json!([runs[0], Uuid::nil()])),
        ("k", json!(3)),
        ("questions", json!(["beauty"])),
        ("questions", json!([])),
        ("answers_per_item", json!(0)),
        ("quota", json!(0)),
        ("sets_per_prompt", json!(4)),
        ("prompts", json!({"names": ["nothing"]})),
        ("prompts", json!({"dataset": "other"})),
        ("prompts", json!({"kind": "T"})),
        ("prompts", json!({"sample": 0})),
        ("gold", json!({"items": [{"name": "00", "runs": [runs[0], runs[1]], "right": runs[2]}]})),
        ("gold", json!({"items": [{"name": "99", "runs": [runs[0], runs[1]], "right": runs[0]}]})),
        ("beauty", json!(1)),
        ("name", json!("\u{202e}")),
        ("form", json!("best_of_all")),
    ] {
        let mut bad = json!({"name": "bad", "runs": runs});
        bad[field] = value;
        call(&app, "POST", "/v1/studies", &bad).await.problem(422, "invalid_field");
    }
    let gold = json!({"name": "00", "runs": [runs[0], runs[1]], "right": runs[0]});
    let few = json!({"name": "bad", "runs": runs, "gold": {"items": [gold], "least": 2}});
    let detail = call(&app, "POST", "/v1/studies", &few).await.problem(422, "invalid_field");
    assert!(detail.contains("`gold.least` is 2, which is more than"), "{detail}");
    let tied = json!({"name": "bad", "runs": runs, "form": "best_of", "k": 3, "ties": true});
    call(&app, "POST", "/v1/studies", &tied).await.problem(422, "invalid_field");
    assert_eq!(app.get("/v1/studies").await.ok()["items"].as_array().unwrap().len(), 1);
    let people = json!({"name": "people", "runs": runs, "prompts": {"people": ["person 2"]}});
    let study = open(&app, &people).await;
    assert_eq!(app.get(&format!("/v1/studies/{study}")).await.ok()["items"], 3, "three pairs");
    app.get(&format!("/v1/studies/{}", Uuid::nil())).await.problem(404, "not_found");
    app.get("/v1/studies/nonsense").await.problem(404, "not_found");
}

#[tokio::test]
async fn answers_are_idempotent_withdrawn_and_bounded_by_the_quota() {
    let app = App::start().await;
    let runs = runs(&app, &["a", "b"], 6).await;
    let plan = json!({"name": "s", "runs": runs, "quota": 2, "ties": true,
        "questions": ["overall", "identity"], "completion_code": "C0DE"});
    let created = call(&app, "POST", "/v1/studies", &plan).await;
    let id = serde_json::from_slice::<Value>(&created.body).unwrap()["id"].clone();
    let study = id.as_str().unwrap();
    assert_eq!(next(&app, study, "ada").await["done"], "not_open");
    let early = json!({"annotator": "ada", "item": 0, "choice": "1"});
    let path = format!("/v1/studies/{study}/answers");
    call(&app, "POST", &path, &early).await.problem(409, "study_closed");
    call(&app, "PUT", &format!("/v1/studies/{study}/state"), &json!({"state": "open"})).await.ok();

    let first = next(&app, study, "ada").await["task"].clone();
    assert_eq!(first["choices"], json!(["1", "2", "tie", "cannot_tell"]));
    let one = answer(&app, study, "ada", &first, "1").await.ok();
    assert_eq!(answer(&app, study, "ada", &first, "1").await.ok()["id"], one["id"]);
    let two = answer(&app, study, "ada", &first, "tie").await.ok();
    assert_ne!(two["id"], one["id"], "another answer replaces it");
    let votes = app.get("/v1/preferences").await.ok();
    assert_eq!(votes["preferences"].as_array().unwrap().len(), 1);
    assert_eq!(votes["preferences"][0]["preferred"], "tie");
    // The second question about the same item, with the same images.
    let second = next(&app, study, "ada").await["task"].clone();
    assert_eq!((&second["item"], &second["question"]), (&first["item"], &json!("identity")));
    assert_eq!(second["images"], first["images"]);
    answer(&app, study, "ada", &second, "cannot_tell").await.ok();
    for choice in ["3", "0", "left"] {
        answer(&app, study, "ada", &second, choice).await.problem(422, "invalid_field");
    }
    let withdrawn = format!("{path}/{}?annotator=", two["id"].as_str().unwrap());
    let delete =
        |who: &str| Request::delete(format!("{withdrawn}{who}")).body(Body::empty()).unwrap();
    app.send(delete("bob")).await.problem(404, "not_found");
    assert_eq!(app.send(delete("ada")).await.status, 204);
    app.send(delete("ada")).await.problem(404, "not_found");
    assert_eq!(app.get("/v1/preferences").await.ok()["preferences"], json!([]));
    // What was withdrawn is asked again first.
    assert_eq!(next(&app, study, "ada").await["task"]["item"], first["item"]);
    assert_eq!(answer_all(&app, study, "ada", &["a"]).await, 3);
    let done = next(&app, study, "ada").await;
    assert_eq!((&done["done"], &done["completion_code"]), (&json!("quota"), &json!("C0DE")));
    let asked: BTreeSet<u64> = (0..6).collect();
    let known = app.get(&format!("/v1/studies/{study}/answers?format=jsonl")).await;
    let known = String::from_utf8(known.body.to_vec()).unwrap();
    let items: BTreeSet<u64> = known
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["item"].as_u64().unwrap())
        .collect();
    let fresh = asked.difference(&items).next().unwrap();
    let over = json!({"annotator": "ada", "item": fresh, "choice": "1"});
    call(&app, "POST", &path, &over).await.problem(409, "study_closed");
    let voting = format!("/v1/analysis/preferences?question=identity&study={study}");
    assert_eq!(app.get(&voting).await.ok()["voting"]["cannot_tell"], 1);
    let gone = app.send(Request::delete("/v1/annotators/ada").body(Body::empty()).unwrap());
    assert_eq!(gone.await.ok()["preferences"], 4);
    assert_eq!(app.get(&format!("/v1/studies/{study}")).await.ok()["annotators"], json!([]));
    let gone = Request::delete(format!("/v1/studies/{study}")).body(Body::empty()).unwrap();
    assert_eq!(app.send(gone).await.status, 204);
}

#[tokio::test]
async fn annotators_who_miss_gold_items_are_left_out_and_so_are_those_whom_the_operator_names() {
    let app = App::start().await;
    let runs = runs(&app, &["a", "b"], 40).await;
    let gold: Vec<Value> = (0..4)
        .map(|at| json!({"name": format!("{at:02}"), "runs": runs, "right": runs[1]}))
        .collect();
    let plan = json!({"name": "s", "runs": runs, "quota": 40,
        "prompts": {"names": (4..40).map(|at| format!("{at:02}")).collect::<Vec<_>>()},
        "gold": {"items": gold, "share": 0.7, "least": 2, "every": 10}});
    let study = open(&app, &plan).await;
    let all = json!({"name": "all", "runs": runs, "gold": plan["gold"]});
    let all = open(&app, &all).await;
    let items = app.get(&format!("/v1/studies/{all}")).await.ok()["items"].clone();
    assert_eq!(items, 36, "names of gold items are used for no other items");
    // Ada always chooses a, which is wrong on gold items; bob chooses b.
    answer_all(&app, &study, "ada", &["a"]).await;
    answer_all(&app, &study, "bob", &["b"]).await;
    let results = app.get(&format!("/v1/studies/{study}/results")).await.ok();
    assert_eq!(results["left_out"][0]["annotator"], "ada");
    assert_eq!(results["left_out"][0]["cause"], "gold");
    let reason = results["left_out"][0]["reason"].as_str().unwrap();
    assert!(reason.starts_with("0 of 4 gold items right"), "{reason}");
    assert_eq!((&results["answers"], &results["annotators"]), (&json!(36), &json!(1)));
    // Those of ada are not deleted, and count in no analysis.
    let export = app.get(&format!("/v1/studies/{study}/answers?format=csv")).await;
    let export = String::from_utf8(export.body.to_vec()).unwrap();
    assert_eq!(export.lines().filter(|line| line.ends_with("true")).count(), 40);
    assert!(!export.contains("ada") && !export.contains("bob"), "{export}");
    let preferences = app.get("/v1/analysis/preferences").await.ok();
    assert_eq!(
        (&preferences["answers"], &preferences["methods"][0]["method"]),
        (&json!(36), &json!("b"))
    );

    let of = app.get(&format!("/v1/studies/{study}")).await.ok()["annotators"].clone();
    assert_eq!((&of[0]["gold"], &of[0]["gold_right"]), (&json!(4), &json!(0)));
    assert_eq!((&of[1]["gold"], &of[1]["gold_right"]), (&json!(4), &json!(4)));
    let path = format!("/v1/studies/{study}/exclusions/bobby");
    let typo = call(&app, "PUT", &path, &json!({"reason": "a typo"})).await;
    assert!(typo.problem(404, "not_found").contains("who has answered"));
    let path = format!("/v1/studies/{study}/exclusions/bob");
    let put = call(&app, "PUT", &path, &json!({"reason": "a colleague"})).await;
    assert_eq!(put.status, 204);
    let results = app.get(&format!("/v1/studies/{study}/results")).await.ok();
    assert_eq!((&results["answers"], &results["methods"][0]["share"]), (&json!(0), &Value::Null));
    assert_eq!(results["no_strengths"], "there are no answers");
    assert_eq!(next(&app, &study, "bob").await["done"], "excluded");
    let delete = || Request::delete(&path).body(Body::empty()).unwrap();
    assert_eq!(app.send(delete()).await.status, 204);
    app.send(delete()).await.problem(404, "not_found");
    assert_eq!(app.get(&format!("/v1/studies/{study}/results")).await.ok()["answers"], 36);
}

#[tokio::test]
async fn tasks_go_out_as_csv_and_their_answers_come_back() {
    let app = App::start().await;
    for method in ["a", "b", "c", "d"] {
        let run = json!({"method": method, "dataset": "people"});
        call(&app, "POST", "/v1/runs", &run).await;
    }
    let runs = runs(&app, &["a", "b", "c", "d"], 3).await;
    let plan = json!({"name": "s", "runs": runs, "form": "best_of", "answers_per_item": 2});
    let study = open(&app, &plan).await;
    let path = format!("/v1/studies/{study}/tasks?images=https://i.example/&ending=.png");
    let unknown = String::from_utf8(app.get(&path).await.body.to_vec()).unwrap();
    assert!(unknown.contains("withheld: the dataset people is not registered"), "{unknown}");
    let registered = json!({"prompts": [], "redistributable": false});
    call(&app, "PUT", "/v1/datasets/people/prompts", &registered).await.ok();
    let tasks = app.get(&path).await;
    assert_eq!(tasks.headers["content-type"], "text/csv; charset=utf-8");
    let tasks = String::from_utf8(tasks.body.to_vec()).unwrap();
    let mut reader = csv::Reader::from_reader(tasks.as_bytes());
    let rows: Vec<BTreeMap<String, String>> = reader.deserialize().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 6);
    for row in &rows {
        let file = row["image_4"].strip_prefix("https://i.example/").unwrap();
        assert_eq!(file.split_once('.').unwrap().1, "png");
        assert_eq!(row["photo_1"], "");
        assert!(row["photos_withheld"].contains("not declared as redistributable"), "{row:?}");
    }
    let registered = json!({"prompts": [], "redistributable": true});
    call(&app, "PUT", "/v1/datasets/people/prompts", &registered).await.ok();
    let shown = String::from_utf8(app.get(&path).await.body.to_vec()).unwrap();
    let photo = stellar_score::content::ContentHash::of(b"reference").to_hex();
    assert!(shown.contains(&photo) && !shown.contains("withheld:"), "{shown}");
    // A sample may have photos of another dataset than its run names.
    let registered = json!({"prompts": [], "redistributable": false});
    call(&app, "PUT", "/v1/datasets/others/prompts", &registered).await.ok();
    let withheld = String::from_utf8(app.get(&path).await.body.to_vec()).unwrap();
    assert!(withheld.contains("the dataset others is not declared") && !withheld.contains(&photo));

    let import = async |text: String| {
        let request = Request::post(format!("/v1/studies/{study}/import"));
        let request = request.header("content-type", "text/csv").body(Body::from(text)).unwrap();
        app.send(request).await
    };
    let line = |row: &BTreeMap<String, String>, worker: &str, choice: &str| {
        format!("x,{},{worker},{choice},{}\n", row["task"], row["code"])
    };
    let header = "HITId,Input.task,WorkerId,Answer.choice,Answer.code\n".to_owned();
    let detail = import(format!("{header}x,99-1,W1,1,{}\n", rows[0]["code"])).await;
    assert!(detail.problem(422, "invalid_field").contains("line 2: the study has no such task"));
    let detail = import(format!("{header}x,{},W1,1,WRONG\n", rows[0]["task"])).await;
    assert!(detail.problem(422, "invalid_field").contains("line 2: the code"));
    let detail = import(header.clone() + &line(&rows[0], "W1", "5")).await;
    assert!(detail.problem(422, "invalid_field").contains("line 2: `choice`"));
    let twice = header.clone() + &line(&rows[0], "W1", "1") + &line(&rows[1], "W1", "2");
    let detail = import(twice).await;
    assert!(detail.problem(422, "invalid_field").contains("line 3: this annotator has answered"));
    assert!(
        import("a,b\n1,2\n".to_owned()).await.problem(422, "invalid_field").contains("column task")
    );

    // The image of method b, wherever a task shows it.
    let chosen = |row: &BTreeMap<String, String>| {
        let name = number_of(row);
        let hash = stellar_score::content::ContentHash::of(format!("image b {name}").as_bytes());
        (1..=4).find(|at| row[&format!("image_{at}")].contains(&hash.to_hex())).unwrap().to_string()
    };
    let all: String = rows
        .iter()
        .enumerate()
        .map(|(at, row)| line(row, &format!("W{}", at % 2), &chosen(row)))
        .collect();
    assert_eq!(import(header.clone() + &all).await.ok()["accepted"], 6);
    let results = app.get(&format!("/v1/studies/{study}/results")).await.ok();
    assert_eq!(
        (&results["methods"][0]["method"], &results["methods"][0]["chosen"]),
        (&json!("b"), &json!(6.0))
    );
    let again = import(header + &line(&rows[0], "W0", "1")).await;
    assert!(again.problem(422, "invalid_field").contains("has answered about item"));
}

/// The number of the sample that a task is about: its prompt contains it.
fn number_of(row: &BTreeMap<String, String>) -> usize {
    let prompt = &row["prompt"];
    let number = prompt.split("alert(").nth(1).unwrap().split(')').next().unwrap();
    number.parse().unwrap()
}

#[tokio::test]
async fn the_sample_size_follows_the_formula() {
    let app = App::start().await;
    let of = async |query: &str| app.get(&format!("/v1/analysis/sample-size?{query}")).await;
    // ((1.959964 √(0.25 · 0.75) + 0.841621 √(0.35 · 0.65)) / 0.1)² = 156.4; × 1.8 = 281.5.
    let found = of("k=4&share=0.35&answers_per_item=5&price=0.1&seconds=15").await.ok();
    assert_eq!((&found["independent_answers"], &found["answers"]), (&json!(157), &json!(282)));
    assert_eq!((&found["items"], &found["minutes"]), (&json!(57), &json!(70.5)));
    assert!((found["cost"].as_f64().unwrap() - 28.2).abs() < 1e-9);
    let found = of("difference=0.4&correlation=0").await.ok();
    assert_eq!((&found["chance"], &found["informative"]), (&json!(0.5), &json!(1.0)));
    assert_eq!(found["answers"], 200);
    for bad in [
        "",
        "share=0.5&difference=1",
        "share=0.5",
        "share=2",
        "share=0.6&power=0.01",
        "k=9&share=0.5",
        "k=1&share=0.4",
    ] {
        of(bad).await.problem(422, "invalid_field");
    }
}
