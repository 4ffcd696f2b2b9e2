//! Analyses over HTTP: leaderboard with intervals, comparison, preferences, correlations, slices,
//! trade-off and percentiles.

use axum::{body::Body, http::Request};
use serde_json::{Value, json};
use stellar_score::{
    analysis::refresh_stale,
    store::{NewScore, ScoreValue},
};
use uuid::Uuid;

use crate::harness::{Answer, App, tells};
use crate::snapshot::stable;
use crate::stored::{self, loaded_pack};

/// Stores and summarises a run of 40 samples of eight identities, with `shift` added to `ips`.
async fn record(app: &App, method: &str, shift: f64) -> Uuid {
    let pack = loaded_pack(app).await;
    let mut run = None;
    for place in 0..40_u32 {
        let person = place % 8;
        let score = |metric: &str, value: f64, flags: Vec<String>| NewScore {
            metric: metric.into(),
            metric_version: 1,
            value: ScoreValue::Number(value),
            flags,
        };
        let noise = f64::from(place * 7919 % 40) / 400.0;
        let flags = if place < 2 { vec!["no_face_in_image".to_owned()] } else { vec![] };
        let scores = vec![
            score("ips", f64::from(person) / 20.0 + shift + noise, flags),
            score("clip_t", if place % 10 == 9 { 0.1 } else { 0.4 - shift / 10.0 - noise }, vec![]),
            score("clip_n", 0.2, vec![]),
        ];
        let mut new = stored::sample(&pack, method, place);
        new.inputs.metadata = json!({
            "identity": format!("person {person}"),
            "prompt_kind": if place < 30 { "T" } else { "H" },
            "attributes": {"Young": person % 2 == 0},
        });
        new.scores = scores;
        run = app.store.record(&new).await.unwrap().run;
    }
    refresh_stale(&app.store).await.unwrap();
    run.unwrap()
}

async fn post(app: &App, media_type: &str, body: impl Into<Body>) -> Answer {
    let request = Request::post("/v1/preferences")
        .header("content-type", media_type)
        .body(body.into())
        .unwrap();
    app.send(request).await
}

async fn post_json(app: &App, preferences: &[Value]) -> Answer {
    post(app, "application/json", json!({ "preferences": preferences }).to_string()).await
}

async fn delete(app: &App, path: &str) -> Answer {
    app.send(Request::delete(path).body(Body::empty()).unwrap()).await
}

fn close(found: &Value, expected: f64) {
    assert!((found.as_f64().unwrap() - expected).abs() < 1e-9, "{found} is not {expected}");
}

#[tokio::test]
async fn the_leaderboard_has_intervals_ranks_and_penalties() {
    let app = App::start().await;
    record(&app, "better", 0.3).await;
    record(&app, "worse", 0.0).await;
    let board = app.get("/v1/leaderboard?sort=ips&policy=none").await.ok();
    insta::assert_snapshot!(stable(board.clone()));
    let ips = &board["rows"][0]["metrics"]["ips"];
    let penalised = app.get("/v1/leaderboard?sort=ips").await.ok();
    let of = &penalised["rows"][0]["metrics"]["ips"];
    assert_eq!((&of["penalised"], &of["penalty_rate"]), (&json!(4), &json!(0.1)));
    assert!(of["mean"].as_f64() < ips["mean"].as_f64());
    let ranked = app.get("/v1/leaderboard?sort=mean_rank&metrics=ips").await.ok();
    assert_eq!(
        (&ranked["rows"][0]["method"], &ranked["rows"][0]["mean_rank"]),
        (&json!("better"), &json!(1.0))
    );
}

#[tokio::test]
async fn a_slice_is_selected_by_one_filter_with_a_minimum_size() {
    let app = App::start().await;
    record(&app, "mine", 0.0).await;
    let of = |board: Value| board["rows"][0]["metrics"]["ips"]["n"].clone();
    assert_eq!(of(app.get("/v1/leaderboard?prompt_kind=T").await.ok()), 30);
    assert_eq!(of(app.get("/v1/leaderboard?attribute=!Young").await.ok()), 20);
    assert_eq!(of(app.get("/v1/leaderboard?relation=interaction").await.ok()), 40);
    assert_eq!(of(app.get("/v1/leaderboard?prompt_kind=H").await.ok()), 10, "a benchmark");
    let few = app.get("/v1/leaderboard?prompt_kind=H&min_samples=20").await.ok();
    assert_eq!(few["rows"], json!([]), "10 are fewer than 20");
    assert_eq!(of(app.get("/v1/leaderboard?size=512_to_1023").await.ok()), 40);
    let both =
        app.get("/v1/leaderboard?prompt_kind=T&category=x").await.problem(400, "malformed_request");
    tells(&both, &["prompt_kind", "category", "one"]);
    let unknown =
        app.get("/v1/leaderboard?relation=sideways").await.problem(400, "malformed_request");
    tells(&unknown, &["sideways", "interaction", "location"]);
    let time = app.get("/v1/leaderboard?since=yesterday").await.problem(400, "malformed_request");
    tells(&time, &["since", "2026-03-01T00:00:00Z"]);
    assert_eq!(app.get("/v1/leaderboard?since=2100-01-01T00:00:00Z").await.ok()["rows"], json!([]));
    assert_eq!(
        app.get("/v1/leaderboard?trained_on_evaluation_photos=true").await.ok()["rows"],
        json!([])
    );
    app.get("/v1/leaderboard?policy=kind").await.problem(400, "malformed_request");
}

#[tokio::test]
async fn published_rows_accompany_measured_ones_and_both_download_as_csv() {
    let app = App::start().await;
    record(&app, "=mine", 0.0).await;
    assert_eq!(app.get("/v1/leaderboard").await.ok().get("published"), None);
    let board = app.get("/v1/leaderboard?published=true&dataset=Stellar-H").await.ok();
    assert_eq!(board["rows"], json!([]));
    let published = board["published"]["rows"].as_array().unwrap();
    assert_eq!(published.len(), 4);
    let cell = &published[0]["metrics"]["ips"];
    assert_eq!((&cell["mean"], &cell["comparable"]), (&json!(0.622), &json!(false)));
    assert_eq!(cell["reason"], "nothing_measured");
    let aps = &published[0]["metrics"]["aps"];
    assert_eq!((&aps["mean"], &aps["reason"]), (&json!(0.685), &json!("other_statistic")));
    tells(aps["explanation"].as_str().unwrap(), &["area", "share"]);
    assert_eq!(board["published"]["user_study"]["answers"], 2500);
    assert_eq!(board["published"]["user_study"]["shares"][0]["share"], 0.781);
    tells(board["published"]["source"].as_str().unwrap(), &["2312.06116"]);

    // An alias finds both parts, and a flag or a kind of prompt selects among them.
    for (filter, count) in [
        ("dataset=stellar", 8),
        ("dataset=stellar_t", 4),
        ("dataset=stellar&prompt_kind=H", 4),
        ("dataset=other", 0),
        ("trained_on_evaluation_photos=true", 4),
    ] {
        let board = app.get(&format!("/v1/leaderboard?published=true&{filter}")).await.ok();
        let rows = board["published"]["rows"].as_array().unwrap();
        assert_eq!(rows.len(), count, "{filter}");
    }

    let response = app.get("/v1/leaderboard?published=true&format=csv").await;
    assert_eq!(response.headers["content-type"], "text/csv; charset=utf-8");
    let text = String::from_utf8(response.body.to_vec()).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("source,method,run,dataset,pack,weights,metric,version"));
    assert_eq!(lines.len(), 1 + 3 + 4 * 6 + 4 * 4);
    assert!(lines[1].starts_with("measured,'=mine,"), "{}", lines[1]);
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with("published,StellarNet,,Stellar-T,,,ips,,,,,,0.637"))
    );
}

#[tokio::test]
async fn two_runs_compare_on_the_same_prompts() {
    let app = App::start().await;
    let (a, b) = (record(&app, "better", 0.3).await, record(&app, "worse", 0.0).await);
    let found = app.get(&format!("/v1/runs/{a}/compare/{b}?policy=none&slices=true")).await.ok();
    let whole = found["slices"][0]["metrics"].as_array().unwrap();
    let ips = whole.iter().find(|of| of["metric"] == "ips").unwrap();
    insta::assert_snapshot!(stable(ips.clone()));
    // Eight identities with equal signs: two of 256 assignments. Holm doubles p for ips and clip_t.
    close(&ips["p"], 2.0 / 256.0);
    close(&ips["p_holm"], 4.0 / 256.0);
    assert!(found["slices"].as_array().unwrap().iter().any(|slice| slice["label"] == "!Young"));
    let only = app.get(&format!("/v1/runs/{b}/compare/{a}?metrics=ips&policy=none")).await.ok();
    assert_eq!(only["slices"].as_array().unwrap().len(), 1);
    assert_eq!(only["slices"][0]["metrics"].as_array().unwrap().len(), 1);
    assert_eq!(only["slices"][0]["metrics"][0]["finding"], "worse");
    close(&only["slices"][0]["metrics"][0]["p_holm"], 2.0 / 256.0);
}

#[tokio::test]
async fn runs_that_cannot_be_compared_are_refused_with_the_reason() {
    let app = App::start().await;
    let a = record(&app, "mine", 0.0).await;
    let nobody = Uuid::now_v7();
    for path in [format!("/v1/runs/{a}/compare/{nobody}"), format!("/v1/runs/x/compare/{a}")] {
        app.get(&path).await.problem(404, "not_found");
    }
    for unknown in ["0".repeat(64), "elsewhere".to_owned()] {
        let path = format!("/v1/runs/{a}/compare/{a}?pack={unknown}");
        tells(&app.get(&path).await.problem(400, "malformed_request"), &["unknown pack", "demo"]);
    }
    let by_name = app.get(&format!("/v1/runs/{a}/compare/{a}?pack=demo")).await.ok();
    assert_eq!(by_name["pack"]["name"], "demo");
    let import = Request::post(format!("/v1/runs/{a}/import?source=elsewhere"));
    let import =
        import.header("content-type", "text/csv").body(Body::from(",name,pick_score\n0,x,0.5\n"));
    app.send(import.expect("a valid request")).await.ok();
    let b = record(&app, "other", 0.0).await;
    let path = format!("/v1/runs/{b}/compare/{a}?pack=elsewhere");
    tells(&app.get(&path).await.problem(409, "nothing_to_compare"), &["other/default"]);
    let path = format!("/v1/runs/{a}/compare/{a}?confidence=1.5");
    tells(&app.get(&path).await.problem(400, "malformed_request"), &["confidence", "0.999"]);
    app.get(&format!("/v1/runs/{a}/compare/{a}?metrics=beauty"))
        .await
        .problem(422, "unknown_metric");
}

#[tokio::test]
async fn preferences_are_accepted_listed_and_deleted() {
    let app = App::start().await;
    let (a, b) = (record(&app, "better", 0.3).await, record(&app, "worse", 0.0).await);
    let vote = |annotator: &str, place: u32| {
        json!({"question": "overall", "annotator": annotator, "name": format!("{place:02}"), "run_a": a, "run_b": b,
               "preferred": "a"})
    };
    let votes: Vec<Value> = (0..5).map(|place| vote("ada", place)).collect();
    assert_eq!(post_json(&app, &votes).await.ok()["accepted"], 5);
    let csv =
        format!("question,annotator,name,run,rating\nobject,bob,00,{a},4\nobject,bob,00,{b},2\n");
    assert_eq!(post(&app, "text/csv", csv).await.ok()["accepted"], 2);
    let csv =
        format!("question,annotator,name,run_a,run_b,preferred\noverall,bob,00,{a},{b},tie\n");
    assert_eq!(post(&app, "text/csv; charset=utf-8", csv).await.ok()["accepted"], 1);

    let mut seen = Vec::new();
    let mut after = String::new();
    loop {
        let page = app.get(&format!("/v1/preferences?limit=3{after}")).await.ok();
        seen.extend(page["preferences"].as_array().unwrap().clone());
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(seen.len(), 8);
    assert_eq!(
        app.get("/v1/preferences?question=object").await.ok()["preferences"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    assert_eq!(
        app.get("/v1/preferences?annotator=bob").await.ok()["preferences"]
            .as_array()
            .unwrap()
            .len(),
        3
    );
    let id = seen[0]["id"].as_str().unwrap();
    assert_eq!(delete(&app, &format!("/v1/preferences/{id}")).await.status, 204);
    delete(&app, &format!("/v1/preferences/{id}")).await.problem(404, "not_found");
    assert_eq!(delete(&app, "/v1/annotators/bob").await.ok()["preferences"], 3);
    delete(&app, "/v1/annotators/bob").await.problem(404, "not_found");
}

#[tokio::test]
async fn invalid_preferences_are_refused_by_position() {
    let app = App::start().await;
    let a = record(&app, "mine", 0.0).await;
    let rating =
        json!({"question": "overall", "annotator": "ada", "name": "00", "run": a, "rating": 3});
    let with = |field: &str, value: Value| {
        let mut response = rating.clone();
        response[field] = value;
        response
    };
    for (bad, words) in [
        (with("name", json!("unknown")), vec!["preferences[1]", "unknown", "nothing was recorded"]),
        (with("run_a", json!(a)), vec!["preferences[1]", "neither a vote"]),
        (with("annotator", json!(" ")), vec!["preferences[1]", "annotator"]),
        (with("rating", json!(1e9)), vec!["rating", "1000000000"]),
    ] {
        let detail = post_json(&app, &[rating.clone(), bad]).await.problem(422, "invalid_field");
        tells(&detail, &words);
    }
    tells(
        &post_json(&app, &[with("question", json!("beauty"))]).await.problem(422, "invalid_field"),
        &["beauty", "overall"],
    );
    tells(&post_json(&app, &[]).await.problem(422, "invalid_field"), &["1 to 10000"]);
    tells(
        &post(&app, "text/csv", "who,what\na,b\n").await.problem(422, "invalid_field"),
        &["header", "annotator"],
    );
    let csv =
        format!("question,annotator,name,run,rating\noverall,ada,00,{a},3\noverall,ada,77,{a},3\n");
    tells(&post(&app, "text/csv", csv).await.problem(422, "invalid_field"), &["line 3", "77"]);
    post(&app, "text/plain", "x").await.problem(415, "unsupported_media_type");
    assert_eq!(app.get("/v1/preferences").await.ok()["preferences"], json!([]));
}

#[tokio::test]
async fn alignment_reports_how_far_annotators_and_metrics_agree() {
    let app = App::start().await;
    let (a, b) = (record(&app, "better", 0.3).await, record(&app, "worse", 0.0).await);
    record(&app, "unseen", 0.1).await;
    let votes: Vec<Value> = (0..40)
        .flat_map(|place| ["ada", "bob"].map(|who| (place, who)))
        .map(|(place, who)| {
            let preferred = if place % 8 == 7 { "b" } else { "a" };
            json!({"question": "overall", "annotator": who, "name": format!("{place:02}"), "run_a": a, "run_b": b,
                   "preferred": preferred})
        })
        .collect();
    post_json(&app, &votes).await.ok();

    let found = app.get("/v1/analysis/alignment?metrics=ips").await.ok();
    assert_eq!((&found["answers"], &found["agreement"]["votes_alpha"]), (&json!(80), &json!(1.0)));
    assert_eq!(
        found["agreement"]["votes_alpha_low"],
        json!(1.0),
        "perfect agreement has no spread"
    );
    let ips = &found["slices"][0]["metrics"][0];
    // One run is better in all pairs: 35 prompts agree and 5 disagree of 40.
    close(&ips["tau"], 0.75);
    close(&ips["agreement"], 0.875);
    assert!(ips["low"].as_f64().unwrap() < 0.75 && ips["high"].as_f64().unwrap() > 0.75);
    assert!(found["slices"].as_array().unwrap().iter().any(|slice| slice["kind"] == "prompt_kind"));
    assert_eq!(found["published"]["tau"]["ips"], 0.455);
    let relation = app.get("/v1/analysis/alignment?question=relation").await.ok();
    assert_eq!(
        (&relation["answers"], &relation["published"]["tau"]["rfs"]),
        (&json!(0), &json!(0.163))
    );

    let found = app.get("/v1/analysis/preferences").await.ok();
    let best = &found["methods"][0];
    assert_eq!(
        (&best["method"], &best["share"], &best["pairs"]),
        (&json!("better"), &json!(0.875), &json!(80))
    );
    assert!(best["strength_low"].as_f64() > Some(0.0));
    let next = app.get("/v1/preferences/next?limit=4").await.ok();
    let pairs = next["pairs"].as_array().unwrap();
    assert_eq!((pairs.len(), &pairs[0]["judged"]), (4, &json!(0)));
    // `unseen` is as strong as the average of the two others. These have won 70 and 10 votes, and
    // half a win each.
    let expected = 1.0 / (1.0 + (10.5_f64 / 70.5).sqrt());
    close(&pairs[0]["gain"], expected * (1.0 - expected));
    assert!(pairs.iter().all(|pair| pair["method_a"] == "unseen" || pair["method_b"] == "unseen"));
}

#[tokio::test]
async fn metrics_correlate_over_a_run_or_all() {
    let app = App::start().await;
    let run = record(&app, "mine", 0.0).await;
    record(&app, "other", 0.5).await;
    for (coefficient, query) in [
        ("kendall", ""),
        ("spearman", "&coefficient=spearman"),
        ("pearson", "&coefficient=pearson"),
    ] {
        let found = app.get(&format!("/v1/analysis/correlations?run={run}{query}")).await.ok();
        assert_eq!((&found["coefficient"], &found["samples"]), (&json!(coefficient), &json!(40)));
        assert_eq!(found["metrics"], json!(["ips", "clip_t", "clip_n"]), "by family");
        close(&found["matrix"][0][0]["value"], 1.0);
        assert_eq!(found["matrix"][2][1], json!({"value": null, "reason": "constant", "n": 40}));
        assert!(found["matrix"][1][0]["value"].as_f64().unwrap() < 0.0);
    }
    let all = app.get("/v1/analysis/correlations?metrics=ips,clip_t").await.ok();
    assert_eq!((&all["runs"], &all["samples"], &all["of"]), (&json!(2), &json!(80), &json!(80)));
    assert_eq!(app.get("/v1/analysis/correlations?method=other").await.ok()["samples"], 40);
    app.get(&format!("/v1/analysis/correlations?run={}", Uuid::now_v7()))
        .await
        .problem(404, "not_found");
    app.get("/v1/analysis/correlations?coefficient=phi").await.problem(400, "malformed_request");
}

#[tokio::test]
async fn slices_show_where_a_run_fails() {
    let app = App::start().await;
    let run = record(&app, "mine", 0.0).await;
    let found = app.get(&format!("/v1/analysis/slices?run={run}")).await.ok();
    assert_eq!((&found["samples"], &found["stale"]), (&json!(40), &json!(false)));
    let slices = found["slices"].as_array().unwrap();
    let young = slices.iter().find(|slice| slice["label"] == "Young").unwrap();
    insta::assert_snapshot!(stable(young.clone()));
    let kinds = app
        .get(&format!("/v1/analysis/slices?run={run}&kind=prompt_kind&min_samples=5&metrics=ips"))
        .await
        .ok();
    let labels: Vec<_> =
        kinds["slices"].as_array().unwrap().iter().map(|slice| slice["label"].clone()).collect();
    assert_eq!(labels, ["", "H", "T"]);
    let csv = app.get(&format!("/v1/analysis/slices?run={run}&format=csv")).await;
    assert!(String::from_utf8_lossy(&csv.body).starts_with("kind,label,samples,"));
    tells(
        &app.get(&format!("/v1/analysis/slices?run={run}&min_samples=2"))
            .await
            .problem(400, "malformed_request"),
        &["5"],
    );
    app.get(&format!("/v1/analysis/slices?run={}", Uuid::now_v7())).await.problem(404, "not_found");
    app.get("/v1/analysis/slices").await.problem(400, "malformed_request");
}

#[tokio::test]
async fn a_method_worse_in_both_metrics_is_off_the_front() {
    let app = App::start().await;
    record(&app, "identity", 0.6).await;
    record(&app, "prompt", 0.0).await;
    let found = app.get("/v1/analysis/trade-off?policy=none").await.ok();
    insta::assert_snapshot!(stable(found));
    // With the same metric on both axes, the better method is ahead in both.
    let same = app.get("/v1/analysis/trade-off?policy=none&x=ips&y=ips").await.ok();
    assert_eq!(
        (&same["points"][1]["on_front"], &same["points"][1]["dominated_by"]),
        (&json!(false), &json!(["identity"]))
    );
    tells(
        &app.get("/v1/analysis/trade-off?x=clip_n").await.problem(400, "malformed_request"),
        &["clip_n"],
    );
    app.get("/v1/analysis/trade-off?y=beauty").await.problem(422, "unknown_metric");
}

#[tokio::test]
async fn a_declared_cost_is_an_axis_of_the_trade_off() {
    let app = App::start().await;
    record(&app, "identity", 0.6).await;
    record(&app, "prompt", 0.0).await;
    let path = "/v1/analysis/trade-off?policy=none&x=seconds_per_image&y=ips";
    assert_eq!(app.get(path).await.ok()["points"], json!([]), "nothing is declared");
    for (method, seconds) in [("identity", 2.0), ("prompt", 9.0)] {
        let card = json!({"name": method, "card": {"per_image": {"seconds": seconds}}});
        assert_eq!(app.send(crate::runs::post("/v1/methods", &card)).await.status, 200);
    }
    let found = app.get(path).await.ok();
    let points = found["points"].as_array().unwrap();
    // The faster one comes first: less is better.
    assert_eq!((&points[0]["method"], &points[0]["on_front"]), (&json!("identity"), &json!(true)));
    assert_eq!(
        points[0]["x"],
        json!({"mean": 2.0, "low": null, "high": null, "no_interval": "declared", "n": 0})
    );
    assert_eq!(
        (&points[1]["on_front"], &points[1]["dominated_by"]),
        (&json!(false), &json!(["identity"]))
    );
    let both = "/v1/analysis/trade-off?x=seconds_per_image&y=seconds_per_subject";
    tells(&app.get(both).await.problem(400, "malformed_request"), &["metric"]);
    let page = app.get("/leaderboard?view=trade-off&x=seconds_per_image&y=ips&policy=none").await;
    let page = String::from_utf8_lossy(&page.body).into_owned();
    assert!(page.contains("Seconds per image (declared), lower is better"), "{page}");
}

#[tokio::test]
async fn a_score_has_its_percentile_within_its_pack_on_request() {
    let app = App::start().await;
    let a = record(&app, "better", 0.5).await;
    record(&app, "worse", 0.0).await;
    let sample = app.store.run_samples(a).await.unwrap().unwrap().last().unwrap().id;
    let plain = app.get(&format!("/v1/samples/{sample}")).await.ok();
    assert!(plain["scores"].as_array().unwrap().iter().all(|score| score.get("place").is_none()));
    let with = app.get(&format!("/v1/samples/{sample}?percentiles=true")).await.ok();
    let ips =
        with["scores"].as_array().unwrap().iter().find(|score| score["metric"] == "ips").unwrap();
    assert_eq!(ips["place"]["population"], 80);
    assert!(ips["place"]["percentile"].as_f64().unwrap() > 50.0);
    assert_eq!(ips["place"]["percentile"], ips["place"]["better_than"]);
    app.get(&format!("/v1/samples/{sample}?percentiles=maybe"))
        .await
        .problem(400, "malformed_request");
}

#[tokio::test]
async fn a_report_has_percentiles_on_request_and_flags_few_identities() {
    let app = App::start().await;
    let better = record(&app, "better", 0.5).await;
    record(&app, "worse", 0.0).await;
    let row = |report: &Value| {
        let rows = report["rows"].as_array().unwrap();
        rows.iter().find(|row| row["metric"] == "ips").unwrap().clone()
    };
    let plain = row(&app.get(&format!("/v1/runs/{better}/report?policy=none")).await.ok());
    assert_eq!((plain.get("place"), &plain["statistic"]), (None, &json!("sample_mean")));
    let people = plain["clusters"].as_u64().unwrap();
    assert_eq!(plain["few_clusters"], people < 8);
    let with =
        row(&app.get(&format!("/v1/runs/{better}/report?policy=none&percentiles=true")).await.ok());
    assert_eq!(with["place"]["population"], 80);
    // Half of the population is the run itself, the other half is lower.
    assert!((60.0..90.0).contains(&with["place"]["better_than"].as_f64().unwrap()), "{with}");
    app.get(&format!("/v1/runs/{better}/report?percentiles=often"))
        .await
        .problem(400, "malformed_request");
}
