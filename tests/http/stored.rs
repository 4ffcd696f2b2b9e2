//! Samples that are stored as if they had been scored.

use serde_json::json;
use stellar_score::{
    content::ContentHash,
    store::{Extras, NewSample, PackId, RunName, SampleInputs},
};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::harness::App;

/// Returns the pack that the service has loaded.
pub(crate) async fn loaded_pack(app: &App) -> PackId {
    let metrics = app.get("/v1/metrics").await.ok();
    serde_json::from_value(metrics["pack"].clone()).unwrap()
}

/// Returns the sample of a method at this place of its run, without photos, metadata and scores.
pub(crate) fn sample(pack: &PackId, method: &str, place: u32) -> NewSample {
    NewSample {
        id: Uuid::now_v7(),
        created: OffsetDateTime::now_utc(),
        run: Some(RunName::new(method, None)),
        name: Some(format!("{place:02}")),
        width: 600,
        height: 800,
        pack: pack.clone(),
        service_version: "0.1.0".into(),
        extras: Extras::default(),
        scores: vec![],
        inputs: SampleInputs {
            content: ContentHash::of(format!("{method} {place}").as_bytes()),
            prompt: Some("a person riding a horse".into()),
            image: ContentHash::of(b"image"),
            references: vec![],
            auxiliary: vec![],
            metadata: json!({}),
        },
    }
}
