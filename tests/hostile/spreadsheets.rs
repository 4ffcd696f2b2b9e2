//! Texts that a spreadsheet would run.

use std::time::{Duration, Instant};

use axum::{
    body::Body,
    http::{Request, header},
};
use serde_json::json;

use crate::{
    harness::{App, ONE_GRAPH},
    instances::eventually,
    support::{form::Form, images},
};

/// Names that a spreadsheet would read as a formula, in every cell that a client controls.
#[tokio::test]
async fn csv_tables_contain_no_spreadsheet_formulas() {
    let app = App::start().await;
    let formula = |of: &str| format!("=HYPERLINK(\"http://x\",\"{of}\")");
    let metadata = json!({"prompt_kind": formula("kind"), "categories": [formula("category")], "attributes": {"@a": true}});
    let mut run = String::new();
    // Enough samples for stored slices.
    for at in 0..6 {
        let form = Form::new()
            .file("image", images::png(at))
            .field("metrics", ONE_GRAPH)
            .field("method", formula("method"))
            .field("run", formula("run"))
            .field("name", formula(&format!("name {at}")))
            .field("metadata", metadata.to_string());
        run = app.score(form).await.ok()["run_id"].as_str().expect("a run").to_owned();
    }
    for csv in [
        ",name,dino_fidelity\n0,-cmd|'/C calc'!A0,0.5\n1,\"+name,\",0.25\n".to_owned(),
        ",name,@a_target,@a_pred,-b_target,-b_pred\n0,=name,1,1,1,-1\n".to_owned(),
    ] {
        let path = format!("/v1/runs/{run}/import?source=%3Dsource()");
        let import =
            Request::post(path).header(header::CONTENT_TYPE, "text/csv").body(Body::from(csv));
        app.send(import.expect("a valid request")).await.ok();
    }
    eventually!(
        "the summary of the run",
        app.get(&format!("/v1/analysis/slices?run={run}&min_samples=5")).await.status == 200
    );
    let toolkit = app.get(&format!("/v1/runs/{run}/toolkit?pack=%3Dsource()")).await.ok();
    let files: Vec<String> =
        serde_json::from_value(toolkit["files"].clone()).expect("a list of file names");
    assert_eq!(files.len(), 2, "{toolkit}");
    let mut paths: Vec<_> = files
        .iter()
        .map(|file| format!("/v1/runs/{run}/toolkit/{file}?pack=%3Dsource()"))
        .collect();
    paths.extend([
        "/v1/leaderboard?format=csv&published=true".to_owned(),
        "/v1/leaderboard?format=csv&by=run".to_owned(),
        format!("/v1/analysis/slices?run={run}&format=csv&min_samples=5"),
        format!("/v1/runs/{run}/report?format=csv&policy=none&pack=%3Dsource()"),
    ]);
    let mut marked = 0;
    for path in paths {
        let response = app.get(&path).await;
        let text = String::from_utf8(response.body.to_vec()).expect("text");
        assert_eq!(response.status, 200, "{path}: {text}");
        let mut rows = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .from_reader(text.as_bytes());
        for cell in rows
            .records()
            .flat_map(|row| row.expect("a row").iter().map(str::to_owned).collect::<Vec<_>>())
        {
            let formula =
                cell.starts_with(['=', '+', '-', '@', '\t', '\r']) && cell.parse::<f64>().is_err();
            assert!(!formula, "{path}: {cell:?} is run by a spreadsheet");
            marked += usize::from(cell.starts_with('\''));
        }
    }
    assert!(marked > 10, "the tables contain too few escaped formulas: {marked}");
}
