//! The form of the first page, the page of a sample, and images.

use axum::{
    body::Body,
    http::{Request, header},
};
use serde_json::{Value, json};
use stellar_score::{
    key::{Key, KeyLimits, Scope},
    store::KeyRecord,
};
use time::OffsetDateTime;

use crate::{
    harness::{Answer, App, ONE_GRAPH},
    support::{form::Form, images::png},
};

/// A name that would break a page which does not escape it.
const HOSTILE: &str = "<script>alert(1)</script>\" onload=\"x";

fn posted(path: &str, form: Form) -> Request<Body> {
    let body = form.finish();
    Request::post(path)
        .header(header::CONTENT_TYPE, Form::content_type())
        .header(header::CONTENT_LENGTH, body.len())
        .body(Body::from(body))
        .unwrap()
}

fn text(answer: &Answer) -> String {
    String::from_utf8(answer.body.to_vec()).unwrap()
}

/// Checks that the response is a whole page under the policy of pages, and returns its text.
#[track_caller]
fn page(answer: &Answer) -> String {
    let text = text(answer);
    assert_eq!(answer.status, 200, "{text}");
    assert_eq!(answer.headers[header::CONTENT_TYPE], "text/html; charset=utf-8");
    let policy = answer.headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
    assert!(policy.contains("script-src 'self'") && !policy.contains("unsafe"), "{policy}");
    assert!(!text.contains(" style=\"") && !text.contains("<style"), "no inline style");
    assert!(text.len() < 150_000, "{} bytes", text.len());
    text
}

/// The address of the sample to which a form leads.
#[track_caller]
fn sample_at(answer: &Answer) -> String {
    assert_eq!(answer.status, 303, "{}", text(answer));
    let address = answer.headers[header::LOCATION].to_str().unwrap().to_owned();
    assert!(address.starts_with("/samples/"), "{address}");
    address
}

/// What a browser sends: every field, also empty ones.
fn browser_form(image: &[u8]) -> Form {
    Form::new()
        .file("image", image)
        .file("reference", b"")
        .field("prompt", "")
        .field("detectables", "")
        .field("method", "")
        .field("run", "")
        .field("name", "")
        .file("auxiliary", b"")
        .field("metadata", "")
}

async fn with_thumbnails() -> App {
    App::with(|setup| setup.config.store.thumbnails = 64).await
}

/// Scores a sample with an image of the person.
async fn scored(app: &App, image: &[u8], photo: &[u8]) -> Value {
    let form = Form::new()
        .file("image", image)
        .file("reference", photo)
        .field("prompt", "a person riding a horse")
        .field("metrics", format!("{ONE_GRAPH},clip_t"));
    app.score(form).await.ok()
}

async fn stored(app: &App, sample: &Value) -> Value {
    let id = sample["sample"].as_str().unwrap();
    app.get(&format!("/v1/samples/{id}?evidence=true")).await.ok()
}

#[tokio::test]
async fn the_first_page_has_a_form_an_example_and_the_request_for_programs() {
    let app = App::start().await;
    let text = page(&app.get("/").await);
    for part in [
        r#"action="/score" enctype="multipart/form-data""#,
        r#"action="/score/example""#,
        "curl",
        "http://localhost/v1/score",
        "only your browser keeps small copies",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("STELLAR_KEY"), "there are no keys");
    assert_eq!(app.get("/score").await.headers[header::LOCATION], "/");
}

#[tokio::test]
async fn a_form_with_empty_fields_is_scored_and_leads_to_its_sample() {
    let app = App::start().await;
    let address = sample_at(&app.send(posted("/score", browser_form(&png(1)))).await);
    let text = page(&app.get(&address).await);
    assert!(text.contains("No prompt was sent."), "{text}");
    assert!(text.contains("no prompt was sent") && text.contains("To get one:"), "{text}");
    assert!(text.contains("Outside any run"), "{text}");
    assert!(text.contains("metrics were not measured"), "{text}");
    assert!(text.contains("This service keeps no images."), "{text}");
    assert!(text.contains("the loaded pack lacks faces.pnet"), "{text}");
    let id = address.trim_start_matches("/samples/");
    let sample = app.get(&format!("/v1/samples/{id}")).await.ok();
    assert_eq!((&sample["prompt"], &sample["references"]), (&Value::Null, &json!([])));
}

#[tokio::test]
async fn a_filled_form_is_stored_as_the_api_stores_it() {
    let app = App::start().await;
    let form = Form::new()
        .file("image", png(1))
        .file("reference", png(2))
        .file("reference", png(3))
        .field("prompt", "  a person riding a horse\r\n")
        .field("detectables", "horse, , saddle ")
        .field("metadata", r#"{"identity": "000", "detectables": ["tree"]}"#)
        .field("method", HOSTILE)
        .field("run", "seed 1");
    let address = sample_at(&app.send(posted("/score", form)).await);
    let id = address.trim_start_matches("/samples/");
    let sample = app.get(&format!("/v1/samples/{id}")).await.ok();
    assert_eq!(sample["prompt"], "a person riding a horse");
    assert_eq!(sample["references"].as_array().unwrap().len(), 2);
    assert_eq!(sample["metadata"]["detectables"], json!(["tree", "horse", "saddle"]));
    assert_eq!((&sample["method"], &sample["run"]), (&json!(HOSTILE), &json!("seed 1")));
    let text = page(&app.get(&address).await);
    assert!(text.contains("&lt;script&gt;alert(1)&lt;/script&gt;"), "{text}");
    assert!(!text.contains("<script>alert"), "{text}");
    assert!(text.contains(&format!("/runs/{}", sample["run_id"].as_str().unwrap())), "{text}");
    assert!(text.contains("/leaderboard?method=%3Cscript%3E"), "{text}");
}

#[tokio::test]
async fn mistakes_in_the_form_are_problems_and_pages_for_browsers() {
    let app = App::start().await;
    let empty = || posted("/score", browser_form(b""));
    app.send(empty()).await.problem(422, "missing_field");
    let mut request = empty();
    request.headers_mut().insert(header::ACCEPT, "text/html".parse().unwrap());
    let answer = app.send(request).await;
    assert_eq!(answer.headers[header::CONTENT_TYPE], "text/html; charset=utf-8");
    assert!(text(&answer).contains("image"), "{}", text(&answer));
    let odd = Form::new().file("image", png(1)).field("evil", "1");
    app.send(posted("/score", odd)).await.problem(422, "unknown_field");
    let run = Form::new().file("image", png(1)).field("run", "r");
    app.send(posted("/score", run)).await.problem(422, "missing_field");
    let broken = Form::new().file("image", png(1)).field("metadata", "[1]");
    app.send(posted("/score", broken)).await.problem(422, "invalid_field");
    let many =
        (0..17).fold(Form::new().file("image", png(1)), |form, at| form.file("reference", png(at)));
    app.send(posted("/score", many)).await.problem(422, "repeated_field");
}

#[tokio::test]
async fn the_example_is_scored_by_one_click() {
    let app = App::start().await;
    let address = sample_at(&app.send(posted("/score/example", Form::new())).await);
    let text = page(&app.get(&address).await);
    assert!(text.contains("a person in a space suit"), "{text}");
    assert!(text.contains(r#"data-of="image""#) && text.contains(r#"data-of="reference[0]""#));
    assert!(text.contains("Demo weights"), "{text}");
}

#[tokio::test]
async fn the_tables_of_a_sample_are_downloads() {
    let app = App::start().await;
    let id = scored(&app, &png(1), &png(2)).await["sample"].as_str().unwrap().to_owned();
    let csv = app.get(&format!("/samples/{id}?download=csv:scores")).await;
    assert_eq!(csv.headers[header::CONTENT_TYPE], "text/csv; charset=utf-8");
    let lines = text(&csv);
    assert!(lines.starts_with("Metric,Score,Notes\r\n"), "{lines}");
    assert!(lines.contains("\r\nclip_t,") && lines.contains("\r\naesthetic,"), "{lines}");
    let latex = app.get(&format!("/samples/{id}?download=latex:texts")).await;
    assert!(text(&latex).contains("\\begin{tabular}"), "{}", text(&latex));
    app.get(&format!("/samples/{id}?download=csv:none")).await.problem(404, "not_found");
}

#[tokio::test]
async fn unknown_samples_and_parameters_are_errors() {
    let app = App::start().await;
    for id in ["x", "0192f3a1-0000-7000-8000-000000000000"] {
        app.get(&format!("/samples/{id}")).await.problem(404, "not_found");
    }
    let id = scored(&app, &png(1), &png(2)).await["sample"].as_str().unwrap().to_owned();
    app.get(&format!("/samples/{id}?odd=1")).await.problem(400, "malformed_request");
    app.get("/images/abc").await.problem(404, "not_found");
}

#[tokio::test]
async fn evidence_is_stored_with_the_sample_and_expires() {
    let app = App::start().await;
    let sample = scored(&app, &png(1), &png(2)).await;
    let read = stored(&app, &sample).await;
    let [evidence] = read["evidence"].as_array().unwrap().as_slice() else { panic!("{read}") };
    assert_eq!(evidence["pack"], read["scores"][0]["pack"]["digest"]);
    assert!(evidence["texts"].as_array().is_some_and(|texts| !texts.is_empty()), "{read}");
    let id = sample["sample"].as_str().unwrap();
    let plain = app.get(&format!("/v1/samples/{id}")).await.ok();
    assert!(plain.get("evidence").is_none(), "{plain}");
    assert!(page(&app.get(&format!("/samples/{id}")).await).contains("How the prompt was read"));

    app.store.purge_evidence(Some(OffsetDateTime::now_utc())).await.unwrap();
    assert_eq!(stored(&app, &sample).await["evidence"], json!([]));
    let text = page(&app.get(&format!("/samples/{id}")).await);
    assert!(text.contains("There is no evidence any more: it is kept for 30 days"), "{text}");
}

#[tokio::test]
async fn the_same_sample_again_brings_expired_evidence_back() {
    let app = App::start().await;
    let form = || Form::new().file("image", png(1)).field("prompt", "a horse").field("method", "m");
    let first = app.score(form()).await.ok();
    app.store.purge_evidence(None).await.unwrap();
    assert_eq!(stored(&app, &first).await["evidence"], json!([]));
    let again = app.score(form()).await.ok();
    assert_eq!((&again["outcome"], &again["sample"]), (&json!("repeated"), &first["sample"]));
    assert_eq!(stored(&app, &first).await["evidence"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn evidence_is_not_stored_if_its_retention_is_0() {
    let app = App::with(|setup| setup.config.store.evidence_retention_days = 0).await;
    let sample = scored(&app, &png(1), &png(2)).await;
    assert_eq!(stored(&app, &sample).await["evidence"], json!([]));
    let id = sample["sample"].as_str().unwrap();
    let text = page(&app.get(&format!("/samples/{id}")).await);
    assert!(text.contains("store.evidence_retention_days"), "{text}");
}

#[tokio::test]
async fn samples_of_runs_have_evidence_and_thumbnails() {
    let app = with_thumbnails().await;
    let run = app.run_of("mine").await;
    let form = Form::new().file("image", png(1)).file("reference", png(2)).field("prompt", "x");
    app.put(&run, "1", form).await;
    app.until_scored(&run, 1).await;
    let id = app.samples(&run, "").await[0]["id"].as_str().unwrap().to_owned();
    let sample = app.get(&format!("/v1/samples/{id}?evidence=true")).await.ok();
    assert_eq!(sample["evidence"].as_array().map(Vec::len), Some(1), "{sample}");
    for hash in [&sample["image"]["hash"], &sample["references"][0]] {
        let image = app.get(&format!("/images/{}", hash.as_str().unwrap())).await;
        assert_eq!(image.status, 200, "{hash}");
    }
}

#[tokio::test]
async fn thumbnails_are_kept_only_if_configured() {
    for (app, has_thumbnails) in [(App::start().await, false), (with_thumbnails().await, true)] {
        let sample = scored(&app, &png(1), &png(2)).await;
        let hash = stored(&app, &sample).await["image"]["hash"].as_str().unwrap().to_owned();
        let image = app.get(&format!("/images/{hash}")).await;
        let keep = image.headers[header::CACHE_CONTROL].to_str().unwrap();
        assert!(keep.starts_with("private"), "{keep}");
        assert_eq!(image.headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
        if has_thumbnails {
            assert_eq!((image.status.as_u16(), &image.body[..4]), (200, &b"RIFF"[..]));
            assert_eq!(image.headers[header::CONTENT_TYPE], "image/webp");
        } else {
            assert_eq!(image.status, 404);
            assert_eq!(image.headers[header::CONTENT_TYPE], "image/svg+xml");
            assert!(text(&image).contains("store.thumbnails"), "{}", text(&image));
        }
    }
}

#[tokio::test]
async fn deletion_covers_evidence_and_thumbnails() {
    let app = with_thumbnails().await;
    let (first, second) =
        (scored(&app, &png(1), &png(9)).await, scored(&app, &png(2), &png(9)).await);
    let record = stored(&app, &first).await;
    let hash = |value: &Value| value.as_str().unwrap().to_owned();
    let (image, shared) = (hash(&record["image"]["hash"]), hash(&record["references"][0]));
    let status = async |hash: &str| app.get(&format!("/images/{hash}")).await.status.as_u16();
    let delete = async |path: String| {
        app.send(Request::delete(path).body(Body::empty()).unwrap()).await.ok()
    };
    delete(format!("/v1/samples/{}", hash(&first["sample"]))).await;
    assert_eq!((status(&image).await, status(&shared).await), (404, 200), "one is shared");
    // Evidence has the faces of the deleted image.
    assert_eq!(stored(&app, &second).await["evidence"].as_array().map(Vec::len), Some(1));
    delete(format!("/v1/images/{shared}")).await;
    assert_eq!(status(&shared).await, 404);
    assert_eq!(stored(&app, &second).await["evidence"], json!([]));
}

#[tokio::test]
async fn pages_and_forms_need_their_scopes() {
    let app = with_thumbnails().await;
    let sample = scored(&app, &png(1), &png(2)).await;
    let id = sample["sample"].as_str().unwrap();
    let hash = stored(&app, &sample).await["image"]["hash"].as_str().unwrap().to_owned();
    let key = Key::generate().unwrap();
    let record = KeyRecord {
        id: key.id(),
        name: "reader".to_owned(),
        hash: key.hash(),
        scopes: vec![Scope::Read],
        limits: KeyLimits::default(),
        created: OffsetDateTime::now_utc(),
        expires: None,
        revoked: None,
    };
    assert!(app.store.create_key(&record).await.unwrap());
    let with_key = |mut request: Request<Body>| {
        let value = format!("Bearer {}", key.reveal()).parse().unwrap();
        request.headers_mut().insert(header::AUTHORIZATION, value);
        request
    };
    for path in ["/".to_owned(), format!("/samples/{id}"), format!("/images/{hash}")] {
        app.get(&path).await.problem(401, "unauthorized");
        let answer = app.send(with_key(Request::get(&path).body(Body::empty()).unwrap())).await;
        assert_eq!(answer.status, 200, "{path}");
    }
    for path in ["/score", "/score/example"] {
        let form = || posted(path, browser_form(&png(3)));
        app.send(form()).await.problem(401, "unauthorized");
        app.send(with_key(form())).await.problem(403, "scope_missing");
    }
    let text = text(&app.send(with_key(Request::get("/").body(Body::empty()).unwrap())).await);
    assert!(text.contains("STELLAR_KEY"), "{text}");
}

#[tokio::test]
async fn evidence_is_drawn_on_the_images() {
    let app = App::real_with(|config| config.store.thumbnails = 64).await;
    let file = |name: &str| std::fs::read(format!("packs/demo/goldens/{name}")).unwrap();
    let form = Form::new()
        .file("image", file("astronaut.jpg"))
        .file("reference", file("astronaut-face.jpg"))
        .field("prompt", "a person holding a helmet")
        .field("detectables", "flag, <b>helmet</b>");
    let address = sample_at(&app.send(posted("/score", form)).await);
    let text = page(&app.get(&address).await);
    assert!(text.contains(r#"<rect class="face""#) && text.contains(r#"<circle class="face""#));
    assert!(text.contains(" similar</text>") && text.contains("&lt;b&gt;helmet"), "{text}");
    assert!(!text.contains("<b>helmet"), "{text}");
    for section in [r#"id="faces""#, r#"id="objects""#, r#"id="relations""#] {
        assert!(text.contains(section), "{section}");
    }
    let id = address.trim_start_matches("/samples/");
    let stored = app.get(&format!("/v1/samples/{id}?evidence=true")).await.ok();
    let faces = &stored["evidence"][0]["faces"];
    assert_eq!(faces[0]["size"], json!([512, 512]), "{faces}");
    assert!(faces[0]["faces"][0].get("embedding").is_none(), "{faces}");
}
