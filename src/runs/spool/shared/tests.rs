//! Two instances on one bucket and one database.

use serde_json::json;
use stellar_s3_server::{Fault, Server};
use tempfile::TempDir;

use super::*;
use crate::{
    blobs::{contract, path_of},
    runs::spool::ReadError,
    store::{NewPending, PackId, RunFacts, RunName, SampleInputs, StoreOptions, Weights},
};

const WEEK: Duration = Duration::from_hours(7 * 24);

struct Scene {
    server: Server,
    store: Store,
    run: Uuid,
    folder: TempDir,
}

impl Scene {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start(&folder.path().join("s3"));
        let store = Store::open("sqlite::memory:", &StoreOptions::default()).await.unwrap();
        let name = RunName::new("m", Some("r".to_owned()));
        let now = OffsetDateTime::now_utc();
        let run = store.create_run(&name, &RunFacts::default(), now).await.unwrap().0.id;
        Self { server, store, run, folder }
    }

    /// Starts an instance, where released files stay for this time.
    async fn instance(&self, name: &str, pace: Pace) -> Arc<Spool> {
        let (root, bucket) = (self.folder.path().join(name), contract::bucket(&self.server));
        Spool::open_shared(&root, bucket, WEEK, &self.store, pace).await.unwrap()
    }

    /// Writes the row of a sample with this image, and returns its id.
    async fn accept(&self, spool: &Spool, image: ContentHash) -> Uuid {
        let id = Uuid::now_v7();
        let new = NewPending {
            id,
            created: OffsetDateTime::now_utc(),
            run: self.run,
            name: id.to_string(),
            spool: spool.id().to_owned(),
            files: vec![(image, 1)],
            pack: PackId { name: "p".into(), digest: "a".repeat(64), weights: Weights::Demo },
            service_version: "0".into(),
            max_pending: 1_000_000,
            key: None,
            inputs: SampleInputs {
                content: ContentHash::of(id.as_bytes()),
                prompt: None,
                image,
                references: vec![],
                auxiliary: vec![],
                metadata: json!({}),
            },
        };
        self.store.accept(&new).await.unwrap().expect("the run exists");
        id
    }

    fn has(&self, file: ContentHash) -> bool {
        path_of(&self.server.objects().join("some/prefix"), file).is_file()
    }
}

fn image(seed: u32) -> (ContentHash, bytes::Bytes) {
    let bytes = format!("image {seed}").into_bytes();
    (ContentHash::of(&bytes), bytes.into())
}

fn pace(stay: f64, settled: f64) -> Pace {
    Pace::new(time::Duration::seconds_f64(stay), time::Duration::seconds_f64(settled))
}

fn bucket(spool: &Spool) -> &S3 {
    match &spool.files {
        Files::Shared(bucket) => bucket,
        Files::Own(_) => unreachable!("it is opened as shared"),
    }
}

/// What the background task does again and again.
async fn tidy(spool: &Arc<Spool>, store: &Store) {
    let loose: Vec<_> = std::mem::take(&mut *spool.loose()).into_iter().collect();
    spool.delete_unreferenced(store, &loose).await.unwrap();
    spool.delete_released(store).await.unwrap();
}

#[tokio::test]
async fn every_instance_knows_the_bucket_by_one_id_and_reads_every_file() {
    let scene = Scene::new().await;
    let one = scene.instance("one", Pace::default()).await;
    let two = scene.instance("two", Pace::default()).await;
    assert_eq!(one.id(), two.id());
    let (file, bytes) = image(1);
    let _held = one.keep(&scene.store, vec![(file, bytes.clone())]).await.unwrap();
    assert_eq!(two.read(file).await.unwrap(), bytes);
}

#[tokio::test]
async fn a_bucket_of_another_database_is_refused_and_left_unchanged() {
    let scene = Scene::new().await;
    let spool = scene.instance("one", Pace::default()).await;
    let (file, bytes) = image(1);
    let _held = spool.keep(&scene.store, vec![(file, bytes)]).await.unwrap();
    let other = Store::open("sqlite::memory:", &StoreOptions::default()).await.unwrap();
    let bucket = contract::bucket(&scene.server);
    let root = scene.folder.path().join("two");
    let opened = Spool::open_shared(&root, bucket, WEEK, &other, Pace::default()).await;
    let error = opened.err().expect("it is not its own").to_string();
    for word in ["some/prefix", "store.url", "store.s3", "Nothing was changed"] {
        assert!(error.contains(word), "{error}");
    }
    assert!(scene.has(file));
}

#[tokio::test]
async fn a_released_file_stays_for_its_quarantine_and_is_deleted_then() {
    let scene = Scene::new().await;
    let spool = scene.instance("one", pace(0.6, 0.1)).await;
    let ((kept, kept_bytes), (gone, gone_bytes)) = (image(1), image(2));
    let held = spool.keep(&scene.store, vec![(kept, kept_bytes), (gone, gone_bytes)]).await;
    scene.accept(&spool, kept).await;
    drop(held.unwrap());
    tidy(&spool, &scene.store).await;
    assert!(scene.has(gone), "it was released a moment ago");
    tokio::time::sleep(Duration::from_secs(1)).await;
    tidy(&spool, &scene.store).await;
    assert!(!scene.has(gone) && scene.has(kept));
    assert!(matches!(spool.read(gone).await, Err(ReadError::Absent(_))));
}

#[expect(clippy::disallowed_methods, reason = "a crash runs no destructor")]
#[tokio::test]
async fn files_of_a_crash_before_the_row_are_swept_and_no_others() {
    let scene = Scene::new().await;
    let spool = scene.instance("one", pace(0.0, 0.0)).await;
    let files: Vec<_> = (0..3).map(image).collect();
    let [orphan, named, held] = [files[0].0, files[1].0, files[2].0];
    let guard = spool.keep(&scene.store, files.clone()).await.unwrap();
    scene.accept(&spool, named).await;
    // The third file belongs to a request that goes on.
    let going_on = spool.keep(&scene.store, vec![files[2].clone()]).await.unwrap();
    std::mem::forget(guard);
    spool.held().remove(&orphan);
    let (now, hour) = (OffsetDateTime::now_utc(), time::Duration::hours(1));
    let sweep = async |before| spool.sweep_bucket(bucket(&spool), &scene.store, before).await;
    assert_eq!(sweep(now - hour).await.unwrap(), 0, "a request may be about to name it");
    assert_eq!(sweep(now + hour).await.unwrap(), 1);
    tidy(&spool, &scene.store).await;
    assert_eq!([orphan, named, held].map(|file| scene.has(file)), [false, true, true]);
    drop(going_on);
}

/// Samples with equal images are accepted by one instance while another one releases and deletes
/// them, so that puts meet every phase of a quarantine.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_file_that_a_row_names_is_deleted_while_instances_accept_and_delete() {
    let scene = Arc::new(Scene::new().await);
    let one = scene.instance("one", pace(2.4, 0.8)).await;
    let two = scene.instance("two", pace(2.4, 0.8)).await;
    let deleting = {
        let (scene, both) = (Arc::clone(&scene), [Arc::clone(&one), Arc::clone(&two)]);
        tokio::spawn(async move {
            loop {
                for spool in &both {
                    tidy(spool, &scene.store).await;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
    };
    let mut accepting = tokio::task::JoinSet::new();
    for seed in 0..16 {
        let (scene, both) = (Arc::clone(&scene), [Arc::clone(&one), Arc::clone(&two)]);
        accepting.spawn(async move {
            let (file, bytes) = image(seed);
            let mut deleted = 0;
            for round in 0..8_u32 {
                let spool = &both[((seed + round) % 2) as usize];
                let held = spool.keep(&scene.store, vec![(file, bytes.clone())]).await.unwrap();
                let id = scene.accept(spool, file).await;
                drop(held);
                tokio::time::sleep(Duration::from_millis(u64::from(seed * 3))).await;
                let read = spool.read(file).await;
                assert!(read.is_ok(), "image {seed} in round {round}: {read:?}");
                let released = scene.store.fail_pending(id, "test", "").await.unwrap();
                both[(round % 2) as usize].release(released);
                // From far below the time of settling to far beyond that of the deletion.
                let pause = u64::from((seed * 7 + round * 13) % 16) * 200;
                tokio::time::sleep(Duration::from_millis(pause)).await;
                deleted += u32::from(!scene.has(file));
            }
            deleted
        });
    }
    let deleted: u32 = accepting.join_all().await.into_iter().sum();
    assert!(deleted > 10, "only {deleted} deletions came between");
    deleting.abort();
}

#[tokio::test]
async fn an_object_store_that_fails_is_a_problem_until_it_answers() {
    let scene = Scene::new().await;
    let spool = scene.instance("one", Pace::default()).await;
    assert_eq!(spool.problem().await, None);
    scene.server.fail(Fault::Cut, u64::MAX);
    tokio::time::sleep(PROBE_EVERY).await;
    let problem = spool.problem().await.expect("the server does not answer");
    assert!(problem.contains("some/prefix"), "{problem}");
    scene.server.fail(Fault::Cut, 0);
    assert!(spool.problem().await.is_some(), "the last result is used for a second");
    tokio::time::sleep(PROBE_EVERY).await;
    assert_eq!(spool.problem().await, None);
}

#[tokio::test]
async fn the_size_is_that_of_the_files_which_rows_name() {
    let scene = Scene::new().await;
    let spool = scene.instance("one", Pace::default()).await;
    let (file, bytes) = image(1);
    for _ in 0..2 {
        let _held = spool.keep(&scene.store, vec![(file, bytes.clone())]).await.unwrap();
        scene.accept(&spool, file).await;
    }
    assert_eq!(spool.look_after(bucket(&spool), &scene.store).await.unwrap(), 0);
    assert_eq!(spool.used(), 1, "the size that the rows say");
}
