use stellar_score::{
    content::ContentHash,
    store::{NewPending, PackId, SampleInputs, Weights},
};
use uuid::Uuid;

/// A pack that no test loads.
pub(crate) fn other_pack() -> PackId {
    PackId { name: "other".into(), digest: "e".repeat(64), weights: Weights::Official }
}

/// A blocked sample `one` of this run that needs [`other_pack`], with its files in this spool.
pub(crate) fn of_another_pack(run: Uuid, folder: &str) -> NewPending {
    let (image, photo) = (ContentHash::of(b"image"), ContentHash::of(b"photo"));
    NewPending {
        id: Uuid::now_v7(),
        created: time::OffsetDateTime::now_utc(),
        run,
        name: "one".into(),
        spool: folder.to_owned(),
        files: vec![(image, 1), (photo, 1)],
        pack: other_pack(),
        service_version: "0.1.0".into(),
        max_pending: 10,
        key: None,
        inputs: SampleInputs {
            content: image,
            prompt: None,
            image,
            references: vec![photo],
            auxiliary: vec![],
            metadata: serde_json::json!({}),
        },
    }
}
