//! Claims over HTTP and on pages: which metric agrees best with people, how often a method is
//! first, and how scores change with the photo.

use axum::{body::Body, http::Request};
use serde_json::{Value, json};
use stellar_score::{
    analysis::refresh_stale,
    content::ContentHash,
    store::{NewScore, PackId, RunName, ScoreValue},
};
use uuid::Uuid;

use crate::harness::{App, tells};
use crate::pages::votes::text;
use crate::stored::{self, loaded_pack};

/// A sample: its person, prompt, photo, and scores of `dino`, `dreamsim` and `clip_t`.
struct Made {
    person: usize,
    prompt: usize,
    photo: usize,
    scores: [f64; 3],
}

/// Stores and finishes a run of these samples, named by their positions.
async fn record(app: &App, method: &str, run: &str, samples: &[Made]) -> Uuid {
    let pack = loaded_pack(app).await;
    record_of(app, &pack, method, run, samples).await
}

/// Like [`record`], with scores of any pack.
async fn record_of(app: &App, pack: &PackId, method: &str, run: &str, samples: &[Made]) -> Uuid {
    let mut found = None;
    for (place, of) in samples.iter().enumerate() {
        let score = |(metric, value): (&str, f64)| NewScore {
            metric: metric.into(),
            metric_version: 1,
            value: ScoreValue::Number(value),
            flags: vec![],
        };
        let named = ["dino", "dreamsim", "clip_t"].into_iter().zip(of.scores);
        let mut new = stored::sample(pack, method, place as u32);
        new.inputs.prompt = Some(format!("prompt {}", of.prompt));
        new.inputs.references =
            vec![ContentHash::of(format!("{} {}", of.person, of.photo).as_bytes())];
        new.inputs.metadata = json!({
            "identity": format!("person {}", of.person),
            "prompt_kind": if place % 2 == 0 { "T" } else { "H" },
        });
        new.run = Some(RunName::new(method, Some(run.to_owned())));
        new.scores = named.map(score).collect();
        found = app.store.record(&new).await.unwrap().run;
    }
    refresh_stale(&app.store).await.unwrap();
    let run = found.unwrap();
    let request = Request::post(format!("/v1/runs/{run}/finish")).body(Body::empty()).unwrap();
    app.send(request).await;
    app.until_run(&run.to_string(), "its end", |run| run["state"] == "finished").await;
    run
}

/// Two runs of 40 prompts over ten people. People prefer what `dino` prefers in nine of ten
/// prompts and `clip_t` in half of them. `dreamsim` is `dino` with the sign of a distance.
async fn two_runs_with_votes(app: &App) -> [Uuid; 2] {
    let of = |shift: f64| -> Vec<Made> {
        (0..40)
            .map(|at| {
                let quality = f64::from(at * 7919 % 40) / 40.0;
                let other = if (at * 3 + at / 10 * 3) % 10 < 5 { shift } else { -shift };
                Made {
                    person: at as usize % 10,
                    prompt: at as usize,
                    photo: 0,
                    scores: [quality + shift, 1.0 - quality - shift, 0.2 + other / 10.0],
                }
            })
            .collect()
    };
    let a = record(app, "<i>better</i>", "r", &of(0.2)).await;
    let b = record(app, "worse", "r", &of(0.0)).await;
    let votes: Vec<Value> = (0..40)
        .map(|at| {
            json!({"question": "overall", "annotator": "ada", "name": format!("{at:02}"),
                "run_a": a, "run_b": b, "preferred": if at % 10 == at / 10 { "b" } else { "a" }})
        })
        .collect();
    let request = Request::post("/v1/preferences")
        .header("content-type", "application/json")
        .body(Body::from(json!({ "preferences": votes }).to_string()))
        .unwrap();
    app.send(request).await.ok();
    [a, b]
}

fn close(found: &Value, expected: f64) {
    assert!((found.as_f64().unwrap() - expected).abs() < 1e-9, "{found} is not {expected}");
}

fn metric<'a>(found: &'a Value, code: &str) -> &'a Value {
    let all = found["metrics"].as_array().unwrap();
    all.iter().find(|of| of["metric"] == code).unwrap_or_else(|| panic!("{code} in {found}"))
}

#[tokio::test]
async fn metrics_are_compared_in_their_agreement_with_people() {
    let app = App::start().await;
    let [a, _] = two_runs_with_votes(&app).await;
    let found = app.get("/v1/analysis/alignment/differences").await.ok();
    let all = &found["slices"][0];
    assert_eq!((&all["reference"], &all["comparisons"]), (&json!("dino"), &json!(3)));
    let (dino, dreamsim, clip) =
        (metric(all, "dino"), metric(all, "dreamsim"), metric(all, "clip_t"));
    assert_eq!((&dino["verdict"], &dino["best"]), (&json!("reference"), &json!(true)));
    // 36 of 40 preferences are those of dino, 20 those of clip_t.
    close(&dino["tau"], 0.8);
    assert_eq!(dreamsim["verdict"], "not_distinguishable");
    assert_eq!((&dreamsim["difference"], &dreamsim["best"]), (&json!(0.0), &json!(true)));
    assert_eq!((&clip["verdict"], &clip["best"]), (&json!("worse"), &json!(false)), "{clip}");
    assert!(clip["high"].as_f64() < Some(0.0) && clip["p_holm"].as_f64() < Some(0.05), "{clip}");
    assert_eq!(clip["clusters"], 10);

    let against = "/v1/analysis/alignment/differences?against=clip_t&metrics=dino&slices=true";
    let found = app.get(against).await.ok();
    assert_eq!(
        (&found["against"], &found["slices"][0]["comparisons"]),
        (&json!("clip_t"), &json!(1))
    );
    assert_eq!(metric(&found["slices"][0], "dino")["verdict"], "better");
    let kinds: Vec<_> = found["slices"].as_array().unwrap().iter().map(|of| &of["kind"]).collect();
    assert!(kinds.contains(&&json!("prompt_kind")), "{kinds:?}");
    let of_run = format!("/v1/analysis/alignment/differences?run={a}&kind=T");
    assert_eq!(app.get(&of_run).await.ok()["answers"], 20);
    let none = app.get("/v1/analysis/alignment/differences?question=identity").await.ok();
    assert_eq!((&none["answers"], &none["slices"][0]["reference"]), (&json!(0), &Value::Null));
    let path = "/v1/analysis/alignment/differences?against=";
    tells(&app.get(&format!("{path}clip_n")).await.problem(422, "invalid_field"), &["clip_n"]);
    tells(&app.get(&format!("{path}beauty")).await.problem(422, "unknown_metric"), &["beauty"]);

    let page = text(&app.get("/study").await);
    for words in ["the best", "worse than the best", "not distinguishable from the best"] {
        assert!(page.contains(words), "{words} is missing in {page}");
    }
    let page = text(&app.get("/study?against=clip_t&slices=true").await);
    for words in ["better than the reference", "data-table=\"best\""] {
        assert!(page.contains(words), "{words} is missing in {page}");
    }
    let csv = text(&app.get("/study?download=csv:differences").await);
    assert!(csv.contains("\r\nclip_t,40,10,") && csv.contains("worse than the best"), "{csv}");
    assert!(text(&app.get("/study?download=latex:differences").await).contains("\\toprule"));
}

#[tokio::test]
async fn first_places_are_counted_by_metrics_and_people() {
    let app = App::start().await;
    let none = app.get("/v1/analysis/first-places").await.ok();
    assert_eq!((&none["no_shares"], &none["people"]), (&json!("too_few_runs"), &Value::Null));
    assert!(text(&app.get("/first-places").await).contains("At least two methods"));
    let [a, b] = two_runs_with_votes(&app).await;
    let found = app.get("/v1/analysis/first-places").await.ok();
    assert_eq!((&found["prompts"], &found["runs"][0]["id"]), (&json!(40), &json!(a)));
    let share = |code: &str, run: usize| metric(&found, code)["shares"][run].clone();
    assert_eq!(
        (&share("dino", 0)["share"], &share("dino", 1)["share"]),
        (&json!(1.0), &json!(0.0))
    );
    assert_eq!(share("dino", 0)["share_interval"], "wilson_over_prompts");
    assert_eq!(share("dreamsim", 0)["share"], 1.0);
    let half = share("clip_t", 0);
    assert_eq!((&half["share"], &half["of"]), (&json!(0.5), &json!(40)));
    let people = &found["people"];
    assert_eq!((&people["answers"], &people["chance"]), (&json!(40), &json!(0.5)));
    close(&people["shares"][0]["share"], 0.9);
    assert!(people["shares"][0]["low"].as_f64() < Some(0.9));

    let of = |query: &str| format!("/v1/analysis/first-places?runs={b},{a}&{query}");
    let found = app.get(&of("kind=T&metrics=clip_t&question=identity")).await.ok();
    assert_eq!((&found["prompts"], &found["people"]), (&json!(20), &Value::Null));
    assert_eq!(found["metrics"].as_array().unwrap().len(), 1);
    assert_eq!(found["metrics"][0]["shares"][1]["share"], 0.5);
    let one = app.get("/v1/analysis/first-places?methods=worse").await.ok();
    assert_eq!(one["no_shares"], "too_few_runs");
    assert_eq!(app.get(&of("kind=X")).await.ok()["no_shares"], "no_common_prompts");
    let many = format!("/v1/analysis/first-places?runs={}", Uuid::nil());
    assert_eq!(app.get(&many).await.status, 404);

    let page = text(&app.get("/first-places").await);
    for words in ["By metric", "By people", "100 %", "90 %", "&lt;i&gt;better"] {
        assert!(page.contains(words), "{words} is missing in {page}");
    }
    assert!(!page.contains("<i>better"), "names stay text");
    let csv = text(&app.get("/first-places?download=csv:first_places").await);
    assert!(csv.contains("\r\nclip_t,40,0,0.5,"), "{csv}");
    assert!(
        text(&app.get("/first-places?download=latex:first_choices").await).contains("people & 90")
    );
    assert!(text(&app.get("/leaderboard").await).contains("href=\"/first-places\""));
}

#[tokio::test]
async fn scores_of_another_pack_than_the_wanted_one_are_no_first_places() {
    let app = App::start().await;
    let made = |shift: f64| -> Vec<Made> {
        let sample = |at: usize| Made {
            person: at,
            prompt: at,
            photo: at,
            scores: [shift, shift, shift * at as f64],
        };
        (0..4).map(sample).collect()
    };
    let a = record(&app, "a", "r", &made(0.1)).await;
    let b = record(&app, "b", "r", &made(0.2)).await;
    let other =
        PackId { name: "other".into(), digest: "0123".repeat(16), ..loaded_pack(&app).await };
    record_of(&app, &other, "c", "r", &made(0.3)).await;
    for pack in ["other", other.digest.as_str()] {
        let query = format!("runs={a},{b}&pack={pack}");
        let found = app.get(&format!("/v1/analysis/first-places?{query}")).await.ok();
        assert_eq!((&found["no_shares"], &found["pack"]), (&json!("no_scores"), &Value::Null));
        assert_eq!((&found["prompts"], &found["metrics"]), (&json!(4), &json!([])));
        let found = app.get(&format!("/v1/analysis/gallery?{query}")).await.ok();
        assert_eq!((&found["runs"][0]["has_scores"], &found["total"]), (&json!(false), &json!(4)));
        assert_eq!(found["rows"][0]["images"][0]["scores"], json!({}));
    }
    let found = app.get(&format!("/v1/analysis/first-places?runs={a},{b}")).await.ok();
    assert_eq!(found["metrics"].as_array().unwrap().len(), 3);

    // Named methods are found wherever their runs are in the list.
    let found = app.get("/v1/analysis/first-places?methods=b,a").await.ok();
    assert_eq!((&found["runs"][0]["id"], &found["runs"][1]["id"]), (&json!(a), &json!(b)));
    let many: Vec<String> = (0..17).map(|at| format!("m{at}")).collect();
    let path = format!("/v1/analysis/first-places?methods={}", many.join(","));
    tells(&app.get(&path).await.problem(400, "malformed_request"), &["16 methods"]);
    let path = format!("/v1/analysis/correlations?runs={a},{b}&method=a");
    tells(&app.get(&path).await.problem(400, "malformed_request"), &["leave out `method`"]);
    app.get(&format!("/v1/analysis/correlations?runs={a},,{b},")).await.ok();
}

#[tokio::test]
async fn scores_with_another_photo_of_the_same_person_have_a_spread() {
    let app = App::start().await;
    // Ten people, two prompts, two photos; the second photo adds 0.2 to dino, more for some people.
    let swapped: Vec<Made> = (0..40_usize)
        .map(|at| {
            let (person, prompt, photo) = (at / 4, at / 2 % 2, at % 2);
            let by_photo = photo as f64 * (0.2 + 0.02 * (person % 3) as f64);
            let base = 0.1 * (person * 7 % 10) as f64;
            Made { person, prompt, photo, scores: [base + by_photo, base, 0.3] }
        })
        .collect();
    let run = record(&app, "mine", "swapped", &swapped).await;
    let found = app.get(&format!("/v1/runs/{run}/photo-swap")).await.ok();
    assert_eq!(
        (&found["groups"], &found["samples"], &found["people"], &found["groups_with_repeats"]),
        (&json!(20), &json!(40), &json!(10), &json!(0))
    );
    let dino = metric(&found, "dino");
    let (low, high) = (dino["spread_low"].as_f64().unwrap(), dino["spread_high"].as_f64().unwrap());
    let spread = dino["spread"].as_f64().unwrap();
    assert!(low < spread && spread < high && (spread - 0.22 / 2_f64.sqrt()).abs() < 0.02, "{dino}");
    assert_eq!(dino["photo_spread"], Value::Null);
    assert_eq!(metric(&found, "dreamsim")["share"], 0.0, "no score depends on the photo");
    assert_eq!(metric(&found, "clip_t")["share"], Value::Null, "no variance at all");
    let half = app.get(&format!("/v1/runs/{run}/photo-swap?kind=T&metrics=dino")).await.ok();
    assert_eq!((&half["no_swap"], &half["groups"]), (&json!("no_swapped_photos"), &json!(0)));

    // The same photos again, in another run of the method: photo and chance are told apart.
    let again = record(&app, "mine", "again", &swapped).await;
    let both = app.get(&format!("/v1/runs/{run}/photo-swap?with={again}&metrics=dino")).await.ok();
    assert_eq!((&both["groups_with_repeats"], &both["runs"][1]["id"]), (&json!(20), &json!(again)));
    assert_eq!(both["metrics"][0]["rest_spread"], 0.0);
    let other = record(&app, "other", "r", &swapped[..4]).await;
    let path = format!("/v1/runs/{run}/photo-swap?with={other}");
    tells(&app.get(&path).await.problem(422, "invalid_field"), &["another method"]);

    let page = text(&app.get(&format!("/runs/{run}")).await);
    assert!(page.contains("How much do scores depend on the photo?"), "{page}");
    let page = text(&app.get(&format!("/runs/{run}?photos=true")).await);
    for words in ["When the photo is swapped", "one image a photo", "no spread"] {
        assert!(page.contains(words), "{words} is missing in {page}");
    }
    let csv = text(&app.get(&format!("/runs/{run}?photos=true&download=csv:photos")).await);
    assert!(csv.starts_with("metric,groups,people,mean,spread"), "{csv}");
    let page = text(&app.get(&format!("/runs/{other}?photos=true")).await);
    assert!(page.contains("When the photo is swapped"), "{page}");
}
