//! The columns of a run.

use std::sync::Arc;

use serde_json::json;
use stellar_score::store::{AttributePlaces, NewSample, RelationKinds, RunData, Store};
use uuid::Uuid;

use crate::harness::*;

async fn read(store: &Store, run: Uuid) -> Arc<RunData> {
    store.run_data(run, None).await.unwrap().unwrap()
}

pub(crate) async fn a_run_reads_as_columns_in_the_order_of_names(db: Database) {
    let store = db.open().await;
    let mut flagged = number("ips", 0.0);
    flagged.flags.push("no_face_in_image".into());
    let mut second = scored("A", "b", vec![flagged, null("goa", "no_detectables")]);
    second.inputs.prompt = Some("a person near Saturn".into());
    second.inputs.metadata = json!({"identity": "ada", "prompt_kind": "T", "categories": ["space", "far"],
                         "attributes": {"Young": true}});
    let mut first = scored("A", "a", vec![number("ips", 0.5)]);
    first.inputs.prompt = None;
    first.inputs.metadata =
        json!({"attributes": {"Male": false}, "relations": [["person", "riding", "horse"]]});
    let run = store.record(&second).await.unwrap().run.unwrap();
    store.record(&first).await.unwrap();
    let mut third = sample("A", "c");
    third.inputs.prompt = None;
    store.record(&third).await.unwrap();

    let data = read(&store, run).await;
    assert_eq!((data.run, data.name.to_string()), (run, "A/run".to_owned()));
    assert_eq!(data.pack, Some(official()));
    assert_eq!(data.names, ["a", "b", "c"]);
    assert_eq!(data.identities, [None, Some("ada".to_owned()), None]);
    assert_eq!(data.prompt_kinds, [None, Some("T".to_owned()), None]);
    assert_eq!(data.categories, [vec![], vec!["space".to_owned(), "far".to_owned()], vec![]]);
    assert_eq!(data.attributes["Young"], AttributePlaces { present: vec![1], absent: vec![] });
    assert_eq!(data.attributes["Male"], AttributePlaces { present: vec![], absent: vec![0] });
    let kinds = |interaction, location| RelationKinds { interaction, location };
    assert_eq!(data.relations, [kinds(true, false), kinds(false, true), kinds(false, false)]);
    assert_eq!(data.sizes, [Some((1024, 768)); 3]);
    assert_eq!(data.metrics.len(), 2);
    let ips = &data.metrics["ips"];
    assert_eq!((ips.version, &ips.values[..]), (1, &[Some(0.5), Some(0.0), None][..]));
    assert_eq!((ips.nulls(), &ips.flags["no_face_in_image"][..]), (0, &[1][..]));
    let goa = &data.metrics["goa"];
    assert_eq!(goa.values, [None, None, None]);
    assert_eq!((goa.nulls(), &goa.reasons["no_detectables"][..]), (1, &[1][..]));
}

pub(crate) async fn an_unknown_run_has_no_data_and_an_empty_one_no_pack(db: Database) {
    let store = db.open().await;
    assert_eq!(store.run_data(Uuid::now_v7(), None).await.unwrap(), None);
    let run = store.record(&sample("A", "only")).await.unwrap().run.unwrap();
    let data = read(&store, run).await;
    assert_eq!((data.names.len(), data.pack.clone(), data.metrics.len()), (1, None, 0));
}

pub(crate) async fn the_newest_version_of_a_metric_is_used(db: Database) {
    let store = db.open().await;
    let mut run = None;
    for (name, version) in [("a", 2), ("b", 1), ("c", 2), ("d", 1)] {
        let scored = scored("A", name, vec![versioned("m", version, f64::from(version))]);
        run = store.record(&scored).await.unwrap().run;
    }
    let m = read(&store, run.unwrap()).await.metrics["m"].clone();
    assert_eq!((m.version, m.values), (2, vec![Some(2.0), None, Some(2.0), None]));
}

pub(crate) async fn the_pack_with_most_scores_is_read_unless_another_is_named(db: Database) {
    let store = db.open().await;
    let few = NewSample { pack: demo(), ..scored("A", "a", vec![number("m", 1.0)]) };
    let run = store.record(&few).await.unwrap().run.unwrap();
    store.record(&scored("A", "b", vec![number("m", 2.0), number("other", 3.0)])).await.unwrap();

    let data = read(&store, run).await;
    assert_eq!(data.pack, Some(official()));
    assert_eq!(data.metrics["m"].values, [None, Some(2.0)]);
    let data = store.run_data(run, Some(&demo().digest)).await.unwrap().unwrap();
    assert_eq!((data.pack.clone(), data.metrics.len()), (Some(demo()), 1));
    assert_eq!(data.metrics["m"].values, [Some(1.0), None]);
    let data = store.run_data(run, Some("unknown")).await.unwrap().unwrap();
    assert_eq!((data.pack.clone(), data.metrics.len(), data.names.len()), (None, 0, 2));
}

pub(crate) async fn batches_have_no_gaps_or_repeats(db: Database) {
    let store = db.open().await;
    let mut run = None;
    let samples = 2_003_u32;
    for place in 0..samples {
        let name = format!("{place:05}");
        let mut new = scored("A", &name, vec![number("m", f64::from(place))]);
        if place % 3 == 0 {
            new.scores = vec![null("m", "no_prompt")];
        }
        run = store.record(&new).await.unwrap().run;
    }
    let data = read(&store, run.unwrap()).await;
    assert!(data.names.is_sorted() && data.names.len() == samples as usize);
    let expected: Vec<_> = (0..samples).map(|at| (at % 3 != 0).then_some(f64::from(at))).collect();
    assert_eq!(data.metrics["m"].values, expected);
    let nulls: Vec<usize> = (0..samples as usize).filter(|at| at % 3 == 0).collect();
    assert_eq!(data.metrics["m"].reasons["no_prompt"], nulls);
}
