//! The leaderboard, correlations and the guide to metrics as pages.

use std::collections::BTreeSet;

use axum::{
    body::Body,
    http::{Request, StatusCode, header},
};
use serde_json::json;
use stellar_score::{
    analysis::refresh_stale,
    key::{Key, KeyLimits, Scope},
    metrics::REGISTRY,
    store::{KeyRecord, NewScore, ScoreValue},
};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::harness::{Answer, App, tells};
use crate::stored::{self, loaded_pack};

/// A name that must stay text.
const HOSTILE: &str = "<script>alert(1)</script>\u{5d0}\u{5d1} \u{1f984}";

/// Longest page, in bytes.
const MOST_BYTES: usize = 150 << 10;

/// Samples of a run: by name, with the numbers of some metrics.
struct Samples {
    count: u32,
    /// Number of the first name.
    first: u32,
    people: u32,
    metrics: Vec<(&'static str, f64)>,
}

impl Samples {
    /// 40 samples of eight people, with this mean of `ips`.
    fn with_ips(ips: f64) -> Self {
        let metrics = vec![("ips", ips), ("clip_t", 0.4), ("clip_n", 0.1), ("dreamsim", 0.5)];
        Self { count: 40, first: 0, people: 8, metrics }
    }

    async fn record(&self, app: &App, method: &str) -> Uuid {
        let pack = loaded_pack(app).await;
        let mut run = None;
        for place in self.first..self.first + self.count {
            let person = place % self.people;
            let noise = f64::from(person) / 100.0 + f64::from(place * 7919 % 40) / 4000.0;
            let score = |(metric, mean): &(&str, f64)| NewScore {
                metric: (*metric).to_owned(),
                metric_version: 1,
                value: ScoreValue::Number(mean + noise),
                flags: vec![],
            };
            let mut new = stored::sample(&pack, method, place);
            new.inputs.metadata =
                json!({"identity": format!("person {person}"), "prompt_kind": "T"});
            new.scores = self.metrics.iter().map(score).collect();
            run = app.store.record(&new).await.unwrap().run;
        }
        refresh_stale(&app.store).await.unwrap();
        run.unwrap()
    }
}

/// Returns the text of a page, which must be whole, small and free of inline code.
#[track_caller]
fn page(answer: &Answer) -> String {
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    assert_eq!(answer.status, StatusCode::OK, "{text}");
    assert_eq!(answer.headers[header::CONTENT_TYPE], "text/html; charset=utf-8");
    assert!(text.ends_with("</html>"), "{text}");
    assert!(text.len() < MOST_BYTES, "{} bytes", text.len());
    assert!(!text.contains(" style=") && !text.contains("<style"), "inline style");
    assert!(!text.contains("<script>"), "inline script");
    text
}

/// Returns the text of a page without tags, spaces collapsed.
fn words(html: &str) -> String {
    let mut text = String::new();
    let mut is_tag = false;
    for char in html.chars() {
        match char {
            '<' => is_tag = true,
            '>' => {
                is_tag = false;
                text.push(' ');
            }
            _ if !is_tag => text.push(char),
            _ => {}
        }
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace(" ,", ",").replace(" .", ".")
}

/// Returns the positions of these texts, which must all occur.
#[track_caller]
fn places(text: &str, parts: &[&str]) -> Vec<usize> {
    let place = |part: &&str| text.find(part).unwrap_or_else(|| panic!("no `{part}`: {text}"));
    parts.iter().map(place).collect()
}

#[tokio::test]
async fn the_leaderboard_says_who_is_better_and_whether_that_is_certain() {
    let app = App::start().await;
    Samples::with_ips(0.7).record(&app, "good").await;
    Samples::with_ips(0.3).record(&app, "poor").await;
    let text = page(&app.get("/leaderboard?sort=ips&policy=none").await);
    tells(
        &words(&text),
        &[
            "good is better than poor in Identity (IPS), and the difference is certain",
            "Identity (IPS)",
            "higher is better",
            "lower is better",
            "Demo weights: scores of the loaded pack mean nothing",
            "None is applied: scores as measured",
        ],
    );
    let found = places(&text, &[">good<", ">poor<"]);
    assert!(found[0] < found[1], "the better one comes first");
    assert!(text.contains("<td><b>1</b><td>") && text.contains("<td>2<td>"), "ranks: {text}");
    assert!(text.contains("<svg><path d=\"M"), "intervals are bars");
    let ends = page(&app.get("/leaderboard?sort=ips&policy=none&intervals=numbers").await);
    assert!(!ends.contains("<svg><path d=\"M") && words(&ends).contains(" to "), "{ends}");

    let shared = page(&app.get("/leaderboard?policy=none").await);
    tells(
        &words(&shared),
        &["good and poor share the first place in Prompt match (CLIP-T)", "1–2"],
    );
}

#[tokio::test]
async fn the_penalty_is_explained_where_it_is_chosen() {
    let app = App::start().await;
    Samples::with_ips(0.7).record(&app, "good").await;
    for (policy, explained) in [
        ("stellar", "counts as a copy if it matches its prompt hardly better"),
        ("toolkit", "wrong predictions count as right"),
        ("none", "A method that copies the reference image can come first"),
    ] {
        let text = page(&app.get(&format!("/leaderboard?policy={policy}")).await);
        tells(&words(&text), &[explained]);
    }
}

#[tokio::test]
async fn columns_are_chosen_and_ordered_by_the_list_of_metrics() {
    let app = App::start().await;
    Samples::with_ips(0.7).record(&app, "good").await;
    // Both forms: a list, and the repeated field of the form.
    for list in ["metrics=dreamsim,ips", "metrics=dreamsim&metrics=ips&dataset="] {
        let text = page(&app.get(&format!("/leaderboard?{list}")).await);
        let head = text.split("<thead>").nth(1).unwrap().split("</thead>").next().unwrap();
        let found = places(head, &["Perceptual distance (DreamSim)", "Identity (IPS)"]);
        assert!(found[0] < found[1], "{head}");
        assert!(!head.contains("CLIP-T"), "{head}");
        assert!(text.contains("metrics=ips%2Cdreamsim"), "a link moves the second column");
    }
    let text = page(&app.get("/leaderboard").await);
    let head = text.split("<thead>").nth(1).unwrap().split("</thead>").next().unwrap();
    let found = places(head, &["(IPS)", "(CLIP-T)", "(DreamSim)", "(CLIP-N)"]);
    assert!(found.is_sorted(), "identity comes first, support last: {head}");
}

#[tokio::test]
async fn rows_over_different_images_are_apart() {
    let app = App::start().await;
    Samples::with_ips(0.7).record(&app, "one").await;
    Samples::with_ips(0.6).record(&app, "two").await;
    Samples { first: 20, ..Samples::with_ips(0.9) }.record(&app, "other").await;
    let text = page(&app.get("/leaderboard?sort=ips&policy=none").await);
    tells(&words(&text), &["Compare rows of one group only", "Group A: 2 rows", "Group B: 1 row"]);
    assert!(text.contains("<tr class=\"begins apart\">"), "{text}");
    assert!(text.contains("on=common"), "a way to compare them");
    let found = places(&text, &[">one<", ">two<", ">other<"]);
    assert!(found.is_sorted(), "a higher mean over other images is not on top");
    let by_name = page(&app.get("/leaderboard?sort=name&policy=none").await);
    assert_eq!(by_name.matches("class=\"begins").count(), 1, "groups stay together by name");
    let plane = page(&app.get("/leaderboard?view=trade-off&policy=none").await);
    tells(&words(&plane), &["Do not compare dots with squares"]);
    assert_eq!(plane.matches("<rect class=").count(), 1, "one row of the smaller group");
    let charts = page(&app.get("/leaderboard?view=charts&metrics=ips").await);
    assert_eq!(charts.matches("class=\"axis\"").count(), 1, "a rule between the groups");
    let common = page(&app.get("/leaderboard?on=common&policy=none").await);
    assert!(!words(&common).contains("Compare rows of one group only"));
    assert!(words(&common).contains("only those that all rows of a pack share"));
}

#[tokio::test]
async fn published_rows_are_marked_and_not_ranked() {
    let app = App::start().await;
    Samples::with_ips(0.7).record(&app, "mine").await;
    assert!(!page(&app.get("/leaderboard").await).contains("published, not measured here"));
    let text = page(&app.get("/leaderboard?published=true&dataset=Stellar-T").await);
    assert_eq!(text.matches("published, not measured here").count(), 4);
    tells(&words(&text), &["0.637", "They have no interval and no rank"]);
    let csv = app.get("/leaderboard?published=true&download=csv:leaderboard").await;
    let csv = String::from_utf8(csv.body.to_vec()).unwrap();
    assert!(csv.contains("\r\npublished,StellarNet,,Stellar-T,"), "{csv}");
}

#[tokio::test]
async fn hostile_names_stay_text_in_every_view() {
    let app = App::start().await;
    Samples::with_ips(0.7).record(&app, HOSTILE).await;
    Samples::with_ips(0.3).record(&app, &"x".repeat(250)).await;
    for view in ["table", "charts", "trade-off"] {
        let text = page(&app.get(&format!("/leaderboard?view={view}")).await);
        assert!(text.contains("&lt;script&gt;alert(1)"), "{view}: {text}");
    }
    let text = page(&app.get("/correlations").await);
    assert!(text.contains("&lt;script&gt;alert(1)"), "{text}");
    let echo = page(&app.get("/leaderboard?method=%22%3E%3Cscript%3E").await);
    assert!(echo.contains("&quot;&gt;&lt;script&gt;"), "{echo}");
}

#[tokio::test]
async fn tables_and_charts_download() {
    let app = App::start().await;
    Samples::with_ips(0.7).record(&app, "good & =best").await;
    Samples::with_ips(0.3).record(&app, "poor").await;
    let get = async |path: &str| {
        let answer = app.get(path).await;
        let text = String::from_utf8(answer.body.to_vec()).unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{text}");
        let file = answer.headers[header::CONTENT_DISPOSITION].to_str().unwrap().to_owned();
        (file, text)
    };
    let (file, csv) = get("/leaderboard?metrics=ips&policy=none&download=csv:leaderboard").await;
    assert!(file.contains("leaderboard.csv"), "{file}");
    let lines: Vec<_> = csv.lines().collect();
    assert!(lines[0].ends_with("mean_rank,ips,ips_low,ips_high,ips_n,ips_rank,ips_last_rank"));
    assert!(lines[1].starts_with("measured,good & =best,,,A,"), "{csv}");
    assert!(lines[1].ends_with(",40,1,1") && lines[2].ends_with(",40,2,2"), "{csv}");
    let api = app.get("/v1/leaderboard?policy=none").await.ok();
    let mean = api["rows"][0]["metrics"]["ips"]["mean"].as_f64().unwrap().to_string();
    assert!(lines[1].contains(&format!(",{mean},")), "all digits: {csv}");
    let (file, latex) =
        get("/leaderboard?metrics=ips&policy=none&download=latex:leaderboard").await;
    assert!(file.contains("leaderboard.tex"), "{file}");
    tells(&latex, &["IPS $\\uparrow$", "good \\& =best", "\\textbf{", "\\scriptsize"]);
    for path in [
        "/leaderboard?view=charts&download=svg:ips",
        "/leaderboard?view=trade-off&download=svg:plane",
        "/correlations?download=svg:correlations",
    ] {
        let (_, svg) = get(path).await;
        assert!(svg.starts_with("<?xml") && svg.contains("<style>"), "{svg}");
    }
    let (_, csv) = get("/correlations?download=csv:pairs&intervals=true").await;
    let head = "Metric,With,Family,Family of the other,Kendall's tau,from,to,Images\r\n";
    assert!(csv.starts_with(head), "{csv}");
    app.get("/leaderboard?download=csv:nothing").await.problem(404, "not_found");
}

#[tokio::test]
async fn a_page_to_share_is_one_file() {
    let app = App::start().await;
    for path in ["/leaderboard", "/leaderboard?view=trade-off", "/correlations"] {
        let address = format!("{path}{}share=html", if path.contains('?') { '&' } else { '?' });
        let text = String::from_utf8(app.get(&address).await.body.to_vec()).unwrap();
        assert!(text.contains("<style>") && !text.contains("href"), "an empty {path}: {text}");
    }
    Samples::with_ips(0.7).record(&app, HOSTILE).await;
    Samples::with_ips(0.3).record(&app, "poor").await;
    let digest = app.get("/v1/metrics").await.ok()["pack"]["digest"].as_str().unwrap().to_owned();
    for path in [
        "/leaderboard?share=html&dataset=",
        "/leaderboard?share=html&view=charts",
        "/leaderboard?share=html&view=trade-off",
        "/correlations?share=html",
        "/metrics-guide?share=html",
    ] {
        let answer = app.get(path).await;
        let text = String::from_utf8(answer.body.to_vec()).unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{text}");
        let file = answer.headers[header::CONTENT_DISPOSITION].to_str().unwrap();
        assert!(file.starts_with("attachment") && file.ends_with(".html\""), "{file}");
        assert!(text.contains("<style>") && !text.contains("<script"), "{path}");
        for part in [" src=", "<link", "<form", "href=\"/", "href=\"http", "url(http"] {
            assert!(!text.contains(part), "{path} has {part}");
        }
        tells(&text, &[&digest, "weights demo", &OffsetDateTime::now_utc().date().to_string()]);
    }
    let metrics = REGISTRY.iter().map(|metric| (metric.code, 0.5)).collect();
    Samples { count: 8, metrics, ..Samples::with_ips(0.0) }.record(&app, "all").await;
    let text = app.get("/leaderboard?share=html").await;
    let tables = String::from_utf8_lossy(&text.body).matches("<table>").count();
    assert_eq!(tables, REGISTRY.len().div_ceil(5), "tables that fit on paper");
    let text = app.get("/leaderboard?share=html&policy=toolkit").await;
    tells(&words(&String::from_utf8_lossy(&text.body)), &["Penalty toolkit", "The metrics"]);
    app.get("/leaderboard?share=pdf").await.problem(400, "malformed_request");
}

#[tokio::test]
async fn empty_pages_say_what_to_do() {
    let app = App::start().await;
    for path in ["/leaderboard", "/leaderboard?view=charts", "/leaderboard?view=trade-off"] {
        tells(&page(&app.get(path).await), &["stellar-score submit"]);
    }
    tells(&page(&app.get("/correlations").await), &["Nothing to correlate yet"]);
    let filtered = page(&app.get("/leaderboard?dataset=none").await);
    tells(&filtered, &["No row fits these filters", "Clear all filters"]);
}

#[tokio::test]
async fn wrong_parameters_are_refused_with_the_right_ones() {
    let app = App::start().await;
    let refused = async |path: &str, status, code: &str, told: &[&str]| {
        tells(&app.get(path).await.problem(status, code), told);
    };
    refused("/leaderboard?view=pie", 400, "malformed_request", &["pie", "trade-off"]).await;
    refused("/leaderboard?order=best", 400, "malformed_request", &["order"]).await;
    refused("/leaderboard?limit=0", 400, "malformed_request", &["limit", "1 to 1000"]).await;
    refused("/leaderboard?metrics=beauty", 422, "unknown_metric", &["beauty", "ips"]).await;
    refused("/leaderboard?view=trade-off&x=clip_n", 400, "malformed_request", &["clip_n"]).await;
    refused("/correlations?coefficient=r", 400, "malformed_request", &["kendall"]).await;
    let both = "/leaderboard?prompt_kind=T&category=x";
    refused(both, 400, "malformed_request", &["prompt_kind", "category"]).await;
    // Dates of browsers are midnights; the API takes times only.
    page(&app.get("/leaderboard?since=2026-01-02&until=2100-01-01").await);
    refused("/leaderboard?since=2026-13-02", 400, "malformed_request", &["since"]).await;
}

#[tokio::test]
async fn a_hundred_methods_with_all_metrics_are_one_small_page() {
    let app = App::start().await;
    let metrics = REGISTRY.iter().map(|metric| (metric.code, 0.123_456)).collect();
    let samples = Samples { count: 2, first: 0, people: 2, metrics };
    for method in 0..101 {
        samples.record(&app, &format!("a method with a usual name {method:03}")).await;
    }
    let text = page(&app.get("/leaderboard?policy=none").await);
    assert_eq!(text.matches("<tr>").count(), 101, "the head and a hundred rows");
    assert_eq!(text.matches("<svg><path").count(), 100 * REGISTRY.len());
    tells(&words(&text), &["100 of 101 rows", "Next rows"]);
    let next = text.split("rel=\"next\" href=\"").nth(1).unwrap().split('"').next().unwrap();
    let last = page(&app.get(&next.replace("&amp;", "&")).await);
    tells(&words(&last), &["1 of 101 rows", "First rows"]);
    let csv = app.get("/leaderboard?download=csv:leaderboard").await;
    assert_eq!(String::from_utf8_lossy(&csv.body).lines().count(), 102, "all rows and the head");
    page(&app.get("/leaderboard?view=charts").await);
    page(&app.get("/leaderboard?view=trade-off").await);
    page(&app.get("/leaderboard?limit=1000").await);
    page(&app.get("/correlations").await);
}

#[tokio::test]
async fn the_plane_shows_the_front_and_what_is_certainly_worse() {
    let app = App::start().await;
    let of = |ips, clip_t| Samples {
        metrics: vec![("ips", ips), ("clip_t", clip_t), ("clip_n", 0.0)],
        ..Samples::with_ips(ips)
    };
    of(0.7, 0.5).record(&app, "best").await;
    of(0.3, 0.2).record(&app, "worst").await;
    let text = page(&app.get("/leaderboard?view=trade-off&policy=none").await);
    assert_eq!(text.matches("class=\"dot\"").count(), 1);
    assert_eq!(text.matches("class=\"hollow\"").count(), 1);
    let rows = words(text.split("<tbody>").nth(1).unwrap());
    let found = places(&rows, &["best", "yes", "worst", "no best"]);
    assert!(found.is_sorted(), "{rows}");
}

#[tokio::test]
async fn correlations_have_a_map_words_and_a_table() {
    let app = App::start().await;
    let run = Samples::with_ips(0.5).record(&app, "mine").await;
    let text = page(&app.get(&format!("/correlations?run={run}")).await);
    tells(
        &words(&text),
        &["40 images of 1 run", "rise together (1.00)", "65 of 100 such pairs", "mine / default"],
    );
    assert!(text.contains("class=\"high\"") && text.contains(" selected"), "{text}");
    let with = page(&app.get("/correlations?intervals=true&metrics=ips,dreamsim").await);
    tells(&words(&with), &["Hide the intervals", "from", "to"]);
    let unknown = "/correlations?run=00000000-0000-7000-8000-000000000000";
    app.get(unknown).await.problem(404, "not_found");
}

#[tokio::test]
async fn the_guide_explains_every_metric_and_how_it_fails() {
    let app = App::start().await;
    let text = page(&app.get("/metrics-guide").await);
    for metric in REGISTRY {
        assert_eq!(text.matches(&format!(" id=\"{}\"", metric.code)).count(), 1, "{}", metric.code);
        assert_eq!(text.matches(&format!("href=\"#{}\"", metric.code)).count(), 1);
        assert!(metric.guide.failure_modes.len() >= 2, "{}", metric.code);
    }
    tells(&text, &["stellar-score pack verify", "0.005", "Where it misleads"]);
    let names: BTreeSet<_> = REGISTRY.iter().map(|metric| metric.guide.label()).collect();
    assert_eq!(names.len(), REGISTRY.len(), "names differ");
    let listed = app.get("/v1/metrics").await.ok();
    assert_eq!(listed["metrics"][0]["name"], "Prompt match");
    assert!(listed["metrics"][0]["failure_modes"][0].is_string());
}

#[tokio::test]
async fn pages_need_a_key_with_the_scope_read() {
    let app = App::start().await;
    let key = async |scope| {
        let key = Key::generate().unwrap();
        let record = KeyRecord {
            id: key.id(),
            name: format!("{scope:?}"),
            hash: key.hash(),
            scopes: vec![scope],
            limits: KeyLimits::default(),
            created: OffsetDateTime::now_utc(),
            expires: None,
            revoked: None,
        };
        assert!(app.store.create_key(&record).await.unwrap());
        key.reveal()
    };
    let (reads, votes) = (key(Scope::Read).await, key(Scope::Annotate).await);
    for path in ["/leaderboard", "/correlations", "/metrics-guide"] {
        assert_eq!(app.get(path).await.status, StatusCode::UNAUTHORIZED, "{path}");
        for (key, status) in [(&reads, StatusCode::OK), (&votes, StatusCode::FORBIDDEN)] {
            let request = Request::get(path).header(header::AUTHORIZATION, format!("Bearer {key}"));
            let answer = app.send(request.body(Body::empty()).unwrap()).await;
            assert_eq!(answer.status, status, "{path}");
        }
    }
}
