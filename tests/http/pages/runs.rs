//! Pages about runs: the list, a run, comparisons and the gallery, and the routes behind them.

use axum::{
    body::Body,
    http::{Request, header},
};
use serde_json::{Value, json};
use stellar_score::{
    analysis::refresh_stale,
    content::ContentHash,
    key::{KeyLimits, Scope},
    store::{NewSample, NewScore, NewThumbnail, ScoreValue},
};
use uuid::Uuid;

use crate::{
    harness::{App, tells},
    keys::new_key,
    runs::{csv, form, post},
    stored::{self, loaded_pack},
    support::{form::Form, images::png},
};

/// A name that must stay text.
const HOSTILE: &str = "<script>alert(1)</script>\u{5d0}\u{5d1}";

/// Longest page without images, in bytes.
const MOST_BYTES: usize = 150 << 10;

/// Stores a run of 24 samples of six people. `shift` is added to `ips`, and `person` names the
/// people. `clip_t` is lower the better `ips` is.
async fn record(app: &App, method: &str, shift: f64, person: &str) -> Uuid {
    let pack = loaded_pack(app).await;
    let mut run = None;
    for place in 0..24_u32 {
        let of = place % 6;
        let score = |metric: &str, value: ScoreValue| NewScore {
            metric: metric.into(),
            metric_version: 1,
            value,
            flags: vec![],
        };
        let noise = f64::from(place * 7919 % 24) / 2400.0;
        let ips = match place {
            23 => ScoreValue::Null { reason: "no_face_in_reference".into() },
            _ => ScoreValue::Number(f64::from(of) / 20.0 + shift * f64::from(of + 1) + noise),
        };
        let scores = vec![
            score("ips", ips),
            score("clip_t", ScoreValue::Number(0.4 - shift / 10.0 - noise)),
            score("clip_n", ScoreValue::Number(0.2)),
        ];
        let mut new = stored::sample(&pack, method, place);
        new.inputs.prompt = Some(format!("a person riding horse {}", place / 6));
        new.inputs.image = ContentHash::of(format!("image {method} {place}").as_bytes());
        new.inputs.references = vec![ContentHash::of(person.as_bytes())];
        new.inputs.metadata = json!({
            "identity": format!("{person} {of}"),
            "categories": if place < 12 { vec!["sport"] } else { vec![] },
            "attributes": {"Young": of % 2 == 0},
        });
        new.scores = scores;
        run = app.store.record(&new).await.unwrap().run;
    }
    refresh_stale(&app.store).await.unwrap();
    run.unwrap()
}

impl App {
    /// Reads a page and checks what all pages have in common.
    async fn page(&self, address: &str) -> String {
        let answer = self.get(address).await;
        let text = String::from_utf8(answer.body.to_vec()).unwrap();
        assert_eq!(answer.status, 200, "{address}: {text}");
        assert_eq!(answer.headers[header::CONTENT_TYPE], "text/html; charset=utf-8");
        assert!(text.len() < MOST_BYTES, "{address} has {} bytes", text.len());
        assert!(!text.contains("<script>alert"), "{address}");
        assert!(!text.contains("style=\"") && !text.contains("NaN"), "{address}");
        assert_eq!(text.matches("<h1").count(), 1, "{address}");
        text
    }

    async fn download(&self, address: &str) -> String {
        let answer = self.get(address).await;
        let text = String::from_utf8(answer.body.to_vec()).unwrap();
        assert_eq!(answer.status, 200, "{address}: {text}");
        let disposition = answer.headers[header::CONTENT_DISPOSITION].to_str().unwrap();
        assert!(disposition.starts_with("attachment"), "{disposition}");
        text
    }

    async fn finished(&self, run: Uuid) {
        let run = run.to_string();
        assert_eq!(self.finish(&run).await.status, 202);
        self.until_run(&run, "its end", |run| run["state"] == "finished").await;
    }
}

fn place(text: &str, part: &str) -> usize {
    text.find(part).unwrap_or_else(|| panic!("`{part}` is missing in {text}"))
}

#[tokio::test]
async fn runs_are_listed_newest_first_with_filters_and_pages() {
    let app = App::start().await;
    tells(&app.page("/runs").await, &["There are no runs yet", "stellar-score submit"]);
    for (method, dataset) in [("first", "one"), ("second", "two"), (HOSTILE, "two")] {
        let body = json!({"method": method, "dataset": dataset});
        assert_eq!(app.send(post("/v1/runs", &body)).await.status, 201);
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    let page = app.page("/runs").await;
    assert!(page.contains("&lt;script&gt;alert(1)"), "{page}");
    assert!(place(&page, ">second</bdi>") < place(&page, ">first</bdi>"));
    let page = app.page("/runs?order=oldest").await;
    assert!(place(&page, ">first</bdi>") < place(&page, ">second</bdi>"));
    let page = app.page("/runs?dataset=one").await;
    assert!(page.contains(">first</bdi>") && !page.contains(">second</bdi>"), "{page}");
    assert!(app.page("/runs?state=finished").await.contains("No run matches"));

    let first = app.page("/runs?limit=2").await;
    assert!(!first.contains(">first</bdi>"), "{first}");
    let next = first.split("href=\"").find(|link| link.contains("after=")).unwrap();
    let next = next.split('"').next().unwrap().replace("&amp;", "&");
    assert!(app.page(&next).await.contains(">first</bdi>"));
    let csv = app.download("/runs?download=csv%3Aruns").await;
    assert_eq!(csv.lines().count(), 4, "{csv}");
    // Long names do not make a page heavy, and are clipped.
    for at in 0..50 {
        let body = json!({"method": format!("{}{at}", "\u{1f600}x".repeat(50)), "dataset": "long"});
        assert_eq!(app.send(post("/v1/runs", &body)).await.status, 201);
    }
    assert!(app.page("/runs?dataset=long").await.contains("\u{1f600}…"));
    app.get("/runs?state=gone").await.problem(400, "malformed_request");
}

#[tokio::test]
async fn an_open_run_shows_its_progress_and_a_finished_one_none() {
    let app = App::start().await;
    let run = app.run_of("A").await;
    let page = app.page(&format!("/runs/{run}")).await;
    tells(&page, &["data-events=\"/v1/runs/", "The run waits for samples", "Reload"]);
    app.put(&run, "one", form(1)).await;
    app.until_scored(&run, 1).await;
    let page = app.page(&format!("/runs/{run}")).await;
    tells(&page, &[">1</span> scored", "aesthetic"]);
    app.finish(&run).await;
    app.until_run(&run, "its end", |run| run["state"] == "finished").await;
    assert!(!app.page(&format!("/runs/{run}")).await.contains("data-events"));
    let nowhere = "/runs/01932b5e-7c7e-7000-8000-000000000000";
    app.get(nowhere).await.problem(404, "not_found");
}

#[tokio::test]
async fn a_run_shows_scores_distributions_samples_and_slices() {
    let app = App::start().await;
    let run = record(&app, HOSTILE, 0.0, HOSTILE).await;
    let page = app.page(&format!("/runs/{run}?min_samples=5")).await;
    let report = app.get(&format!("/v1/runs/{run}/report")).await.ok();
    let row = report["rows"].as_array().unwrap().iter().find(|row| row["metric"] == "ips").unwrap();
    tells(&page, &["ips-title", "Best samples", "no face in reference", "not Young", "Compare"]);
    let csv = app.download(&format!("/runs/{run}?download=csv%3Ascores")).await;
    assert!(csv.contains(&format!("ips,{},{}", row["mean"], row["low"])), "{csv}\n{row}");
    let latex = app.download(&format!("/runs/{run}?download=latex%3Ascores")).await;
    assert!(latex.contains("\\toprule") && latex.contains("clip\\_t"), "{latex}");
    let svg = app.download(&format!("/runs/{run}?download=svg%3Aips")).await;
    assert!(svg.contains("<svg xmlns") && svg.contains("23 scores from"), "{svg}");
    let svg = app
        .download(&format!("/runs/{run}?metric=clip_t&download=svg%3Aslices&min_samples=5"))
        .await;
    assert!(svg.contains("clip_t by slice"), "{svg}");

    // The best sample is one of the last person, and the worst one of the first.
    let ranked = |query: &str| {
        let path = format!("/v1/runs/{run}/ranked?metric=ips&limit=1{query}");
        let app = &app;
        async move { app.get(&path).await.ok()["samples"][0].clone() }
    };
    let (best, worst) = (ranked("").await, ranked("&order=worst").await);
    assert_eq!(best["identity"], format!("{HOSTILE} 5"));
    assert_eq!(worst["identity"], format!("{HOSTILE} 0"));
    let link = |sample: &Value| format!("/samples/{}", sample["id"].as_str().unwrap());
    assert!(place(&page, &link(&best)) < place(&page, &link(&worst)));
    app.get(&format!("/v1/runs/{run}/ranked?metric=none")).await.problem(422, "unknown_metric");
    app.get(&format!("/runs/{run}?metric=none")).await.problem(422, "unknown_metric");

    let found = app.get(&format!("/v1/runs/{run}/distributions?metrics=ips")).await.ok();
    let ips = &found["metrics"][0];
    assert_eq!((found["metrics"].as_array().unwrap().len(), &ips["n"]), (1, &json!(23)));
    let counts = ips["counts"].as_array().unwrap().iter().map(|count| count.as_u64().unwrap());
    assert_eq!(counts.sum::<u64>(), 23);
}

#[tokio::test]
async fn a_penalty_that_cannot_be_decided_does_not_hide_the_scores() {
    let app = App::start().await;
    let run = app.run_of("A").await;
    let text = ",name,identity_preservation\n0,a,0.5\n1,b,0.6\n";
    app.send(csv(&run, "them", text)).await.ok();
    let page = app.page(&format!("/runs/{run}")).await;
    tells(&page, &["the penalty needs clip_t", "policy=none", "ips-title", "No image: the scores"]);
    assert!(!page.contains("data-table=\"scores\""), "{page}");
    let page = app.page(&format!("/runs/{run}?policy=none")).await;
    assert!(page.contains("data-table=\"scores\""), "{page}");
}

#[tokio::test]
async fn pages_need_a_key_with_the_scope_read() {
    let app = App::start().await;
    let run = record(&app, "A", 0.0, "ada").await;
    let (_, score) = new_key("score", &[Scope::Score], KeyLimits::default());
    let (key, read) = new_key("read", &[Scope::Read], KeyLimits::default());
    for record in [&score, &read] {
        assert!(app.store.create_key(record).await.unwrap());
    }
    for path in ["/runs", "/gallery", "/compare", &format!("/runs/{run}")] {
        let answer = app.get(path).await;
        assert_eq!(answer.status, 401, "{path}");
        let request = Request::get(path).header(header::AUTHORIZATION, format!("Bearer {key}"));
        assert_eq!(app.send(request.body(Body::empty()).unwrap()).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn failed_samples_are_shown_with_their_reasons() {
    let app = App::start().await;
    let run = app.run_of("A").await;
    let mut broken = png(1);
    let end = broken.len() - 20;
    broken[end - 8..end].fill(0);
    let sent = app.put(&run, "bad", Form::new().file("image", broken)).await;
    assert_eq!(sent.status, 202, "{sent:?}");
    app.until_run(&run, "its failure", |run| run["counts"]["failed"] == 1).await;
    let found = app.get(&format!("/v1/runs/{run}/failures")).await.ok();
    assert_eq!((&found["failed"], &found["reasons"][0]["samples"]), (&json!(1), &json!(1)));
    let code = found["reasons"][0]["code"].as_str().unwrap();
    let page = app.page(&format!("/runs/{run}")).await;
    tells(&page, &["Failed samples", &code.replace('_', " "), ">bad</bdi>"]);
}

#[tokio::test]
async fn two_runs_are_compared_by_metric_person_prompt_and_sample() {
    let app = App::start().await;
    assert!(app.page("/compare").await.contains("No run has scores yet"));
    let a = record(&app, "A", 0.1, HOSTILE).await;
    let b = record(&app, HOSTILE, 0.0, HOSTILE).await;
    let page = app.page(&format!("/compare?runs={a}&runs={b}&policy=none")).await;
    tells(&page, &["A is better", "A is worse", "24 pairs", "Where A gains most", "Swap"]);
    let csv =
        app.download(&format!("/compare?a={a}&b={b}&policy=none&download=csv%3Acomparison")).await;
    assert!(csv.lines().any(|line| line.starts_with("ips,") && line.contains("better")), "{csv}");

    let changes = |query: &str| {
        let path = format!("/v1/runs/{a}/compare/{b}/changes?metric=ips&policy=none{query}");
        let app = &app;
        async move { app.get(&path).await.ok() }
    };
    let found = changes("").await;
    assert_eq!((&found["groups_found"], &found["pairs"]), (&json!(6), &json!(23)));
    assert_eq!(found["groups"][0]["label"], format!("{HOSTILE} 5"));
    assert!((found["gains"][0]["difference"].as_f64().unwrap() - 0.6).abs() < 1e-9, "{found}");
    assert_eq!(found["losses"], json!([]));
    let found = changes("&by=prompt").await;
    assert_eq!((&found["groups_found"], &found["groups"][0]["clusters"]), (&json!(4), &json!(6)));
    let page = app.page(&format!("/compare?a={a}&b={b}&policy=none&metric=ips&by=prompt")).await;
    assert!(page.contains("By prompt") && page.contains("a person riding horse"), "{page}");
    let slices = format!("/compare?a={a}&b={b}&policy=none&metric=ips&slices=true&min_pairs=5");
    assert!(app.page(&slices).await.contains("Category of the prompt: sport"));

    let other = app.run_of("C").await;
    let page = app.page(&format!("/compare?a={a}&b={other}")).await;
    assert!(page.contains("There is nothing to compare"), "{page}");
    app.get(&format!("/compare?a={a}&b=none")).await.problem(404, "not_found");
    app.get(&format!("/v1/runs/{a}/compare/{b}/changes?metric=dino"))
        .await
        .problem(409, "nothing_to_compare");
}

#[tokio::test]
async fn a_shared_page_is_one_file_without_links_and_images_of_others() {
    let app = App::start().await;
    let (a, b) = (record(&app, "A", 0.0, "p").await, record(&app, "B", 0.1, "p").await);
    for run in [a, b] {
        app.finished(run).await;
    }
    for address in [
        format!("/runs/{a}?share=html"),
        format!("/compare?a={a}&b={b}&share=html"),
        format!("/gallery?runs={a},{b}&share=html"),
    ] {
        let answer = app.get(&address).await;
        assert_eq!(answer.status, 200, "{address}");
        let disposition = answer.headers[header::CONTENT_DISPOSITION].to_str().unwrap();
        assert!(disposition.starts_with("attachment"), "{disposition}");
        let text = String::from_utf8(answer.body.to_vec()).unwrap();
        for part in ["<script", "<form", "<button", "href=\"/", "src=\"/", "<link"] {
            assert!(!text.contains(part), "{address} has {part}");
        }
        assert!(text.contains("Image not included"), "{address}");
        assert!(text.contains("<style>"), "{address}");
    }
}

#[tokio::test]
async fn images_are_in_a_shared_file_only_if_all_datasets_say_that_they_may() {
    let app = App::start().await;
    let pack = loaded_pack(&app).await;
    let run = json!({"method": "A", "dataset": "people"});
    assert_eq!(app.send(post("/v1/runs", &run)).await.status, 201);
    let mut new = NewSample {
        scores: vec![NewScore {
            metric: "ips".into(),
            metric_version: 1,
            value: ScoreValue::Number(0.5),
            flags: vec![],
        }],
        ..stored::sample(&pack, "A", 0)
    };
    let thumbnail = NewThumbnail { image: new.inputs.image, webp: "small".into() };
    (new.extras.thumbnails, new.extras.began) = (vec![thumbnail], Some(new.created));
    let run = app.store.record(&new).await.unwrap().run.unwrap();
    let address = format!("/runs/{run}?share=html");
    let has_image = async || {
        let text = String::from_utf8(app.get(&address).await.body.to_vec()).unwrap();
        let has = text.contains("data:image/webp;base64,");
        assert_ne!(has, text.contains("Image not included"), "{text}");
        has
    };
    let declare = async |dataset: &str, redistributable: bool| {
        let body = json!({"prompts": [], "redistributable": redistributable});
        let request = Request::put(format!("/v1/datasets/{dataset}/prompts"))
            .header("content-type", "application/json")
            .body(Body::from(body.to_string()))
            .unwrap();
        app.send(request).await.ok();
    };
    assert!(!has_image().await, "nothing says that they may");
    declare("people", true).await;
    assert!(has_image().await);
    declare("others", false).await;
    assert!(!has_image().await, "a sample may have photos of another dataset");
    declare("others", true).await;
    assert!(has_image().await);
}

#[tokio::test]
async fn the_gallery_has_the_newest_finished_run_of_each_method() {
    let app = App::start().await;
    assert!(app.page("/gallery").await.contains("There is no finished run"));
    let a = record(&app, "A", 0.1, HOSTILE).await;
    let b = record(&app, HOSTILE, 0.0, HOSTILE).await;
    app.finished(a).await;
    let one = app.get("/v1/analysis/gallery").await.ok();
    assert_eq!((&one["runs"][0]["id"], &one["total"]), (&json!(a), &json!(24)));
    app.finished(b).await;
    let page = app.page("/gallery").await;
    tells(&page, &["&lt;script&gt;", "First in ips", "First in clip_t", "a person riding horse"]);
    assert_eq!(page.matches("<section class=\"row").count(), 20);
    assert!(app.page("/gallery?offset=20").await.matches("<section class=\"row").count() == 4);

    let found = app.get("/v1/analysis/gallery?sort=disagreement&limit=24").await.ok();
    let rows = found["rows"].as_array().unwrap();
    // `ips` prefers A and `clip_t` the other; one row has no `ips`.
    assert_eq!((&rows[0]["disagreement"], &rows[23]["disagreement"]), (&json!(1.0), &Value::Null));
    assert_eq!(rows[23]["name"], "23");
    let place = usize::from(found["runs"][0]["id"] != json!(a));
    assert_eq!(rows[0]["images"][place]["first"], json!(["ips"]));

    let named = format!("runs={a},{b}");
    let page = app.page(&format!("/gallery?{named}&slice=category%3Asport")).await;
    assert!(page.contains("12 rows"), "{page}");
    let page = app.page(&format!("/gallery?{named}&slice=attribute%3A!Young")).await;
    assert!(page.contains("12 rows") && page.contains(">not Young</option>"), "{page}");
    let person = "%3Cscript%3Ealert(1)%3C%2Fscript%3E%D7%90%D7%91%203";
    assert!(app.page(&format!("/gallery?{named}&identity={person}")).await.contains("4 rows"));
    assert!(
        app.page(&format!("/gallery?{named}&identity=nobody")).await.contains("No row matches")
    );
    app.get("/gallery?slice=sport").await.problem(400, "malformed_request");
    let csv = app.download(&format!("/gallery?{named}&download=csv%3Agallery")).await;
    assert_eq!(csv.lines().count(), 41, "{csv}");

    // A person prefers the other's image in one row; `ips` is the only metric against it.
    let vote = json!({"preferences": [{"question": "overall", "annotator": "ada", "name": "07",
        "run_a": a, "run_b": b, "preferred": "b"}]});
    assert_eq!(app.send(post("/v1/preferences", &vote)).await.status, 200);
    let found = app.get(&format!("/v1/analysis/gallery?{named}&sort=people")).await.ok();
    let first = &found["rows"][0];
    assert_eq!(
        (&first["name"], &first["votes"], &first["against_people"]),
        (&json!("07"), &json!(1), &json!(0.5))
    );
}
