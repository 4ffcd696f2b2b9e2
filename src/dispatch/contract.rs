//! What every dispatch guarantees, tested on both: the database, and a NATS server.

use std::{
    collections::{BTreeSet, VecDeque},
    env,
    io::{self, Write as _},
    sync::Arc,
    time::Duration,
};

use serde_json::json;
use tempfile::TempDir;
use time::OffsetDateTime;
use tokio::{
    sync::{Mutex, Notify, watch},
    time::Instant,
};
use uuid::Uuid;

use super::{Broker, Dispatch, Jetstream, Local, Outcome, Taken};
use crate::{
    config::Config,
    content::ContentHash,
    store::{
        NewPending, PackId, PendingId, RunFacts, RunName, SampleInputs, Store, StoreOptions,
        Weights,
    },
    supervisor::Supervisor,
    telemetry::Telemetry,
};

/// Longer than a broker on this machine takes for anything.
const PATIENCE: Duration = Duration::from_secs(20);

/// Within this time a sample that must not come would have come.
const A_WHILE: Duration = Duration::from_millis(300);

/// Silence after which the broker gives a sample to somebody else. The shortest that is allowed.
pub(super) const ACK_SECONDS: u64 = 2;

/// One database with one run, and instances that score its samples.
pub(super) struct Scene {
    pub(super) store: Store,
    run: Uuid,
    pub(super) pack: PackId,
    prefix: String,
    folder: TempDir,
}

/// An instance that scores.
pub(super) struct Instance {
    pub(super) dispatch: Box<dyn Dispatch>,
    pub(super) telemetry: Telemetry,
    pub(super) broker: Option<Broker>,
    work: Arc<Notify>,
    /// Taken, and not used by the test yet.
    ahead: Mutex<VecDeque<Taken>>,
    pub(super) stop: watch::Sender<bool>,
}

impl Scene {
    pub(super) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("stellar.db").display());
        let store = Store::open(&url, &StoreOptions::default()).await.unwrap();
        let name = RunName::new("m", Some("r".to_owned()));
        let now = OffsetDateTime::now_utc();
        let run = store.create_run(&name, &RunFacts::default(), now).await.unwrap().0.id;
        // Every test has a stream of its own on the server.
        let prefix = format!("test-{}", Uuid::now_v7().simple());
        let pack = PackId { name: "p".into(), digest: "a".repeat(64), weights: Weights::Demo };
        Self { store, run, pack, prefix, folder }
    }

    /// Writes the row of a sample, and returns its id.
    pub(super) async fn accept(&self) -> Uuid {
        let id = Uuid::now_v7();
        let image = ContentHash::of(id.as_bytes());
        let new = NewPending {
            id,
            created: OffsetDateTime::now_utc(),
            run: self.run,
            name: id.to_string(),
            spool: "spool".to_owned(),
            files: vec![(image, 1)],
            pack: self.pack.clone(),
            service_version: "0".into(),
            max_pending: 1_000_000,
            key: None,
            inputs: SampleInputs {
                content: image,
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

    pub(super) fn announced(&self, sample: Uuid) -> PendingId {
        PendingId { id: sample, run: self.run, pack: self.pack.digest.clone() }
    }

    /// Accepts and announces samples, and returns their ids.
    pub(super) async fn announce(&self, to: &Instance, samples: usize) -> Vec<Uuid> {
        let mut ids = Vec::new();
        for _ in 0..samples {
            let id = self.accept().await;
            to.dispatch.announce(self.announced(id));
            ids.push(id);
        }
        ids
    }

    fn of(&self) -> (String, String) {
        ("spool".to_owned(), self.pack.digest.clone())
    }

    fn local(&self) -> Instance {
        let (work, stop) = (Arc::new(Notify::new()), watch::Sender::new(false));
        let leads = watch::Sender::new(true).subscribe();
        let folder = self.folder.path();
        let local =
            Local::open(self.store.clone(), self.of(), folder, leads, Arc::clone(&work)).unwrap();
        let (dispatch, telemetry) = (Box::new(local), Telemetry::new());
        Instance { dispatch, telemetry, broker: None, work, ahead: Mutex::default(), stop }
    }

    /// Starts an instance on the server of `TEST_NATS_URL`; `None` without one.
    pub(super) async fn nats(&self) -> Option<Instance> {
        let Ok(url) = env::var("TEST_NATS_URL") else {
            let notice = b"SKIPPED a test of NATS: TEST_NATS_URL is not set\n";
            io::stderr().write_all(notice).unwrap();
            return None;
        };
        let mut settings = Config::load(None).unwrap().dispatch.nats;
        settings.servers = vec![url];
        settings.prefix.clone_from(&self.prefix);
        settings.ack_seconds = ACK_SECONDS;
        let telemetry = Telemetry::new();
        let of_nats = telemetry.runs.dispatch.of_nats().unwrap();
        let broker = Broker::connect(&settings, "one-database".to_owned(), of_nats).await.unwrap();
        let (work, stop) = (Arc::new(Notify::new()), watch::Sender::new(false));
        let supervisor = Supervisor::new(telemetry.runs.restarts.clone());
        let (store, notified) = (self.store.clone(), Arc::clone(&work));
        let dispatch = Box::new(Jetstream::start(
            broker.clone(),
            store,
            self.of(),
            notified,
            &supervisor,
            &stop.subscribe(),
        ));
        let (broker, ahead) = (Some(broker), Mutex::default());
        Some(Instance { dispatch, telemetry, broker, work, ahead, stop })
    }

    /// Deletes the row of a sample, as recording its scores does.
    pub(super) async fn settle(&self, instance: &Instance, sample: Uuid) {
        self.store.fail_pending(sample, "internal", "scored").await.unwrap();
        instance.dispatch.end(sample, Outcome::Settled).await;
    }
}

impl Instance {
    /// Takes samples until there are this many.
    pub(super) async fn take(&self, samples: usize) -> Vec<Taken> {
        let mut ahead = self.ahead.lock().await;
        let until = Instant::now() + PATIENCE;
        while ahead.len() < samples {
            assert!(Instant::now() < until, "only {} of {samples} samples came", ahead.len());
            let room = samples - ahead.len();
            ahead.extend(self.dispatch.take(room).await.unwrap());
            let _ = tokio::time::timeout(Duration::from_millis(50), self.work.notified()).await;
        }
        ahead.drain(..samples).collect()
    }

    /// Returns a service metric without labels.
    pub(super) fn metric(&self, name: &str) -> String {
        let text = self.telemetry.export();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_default().to_owned()
    }

    /// Compares rows with messages until what is missing is announced.
    pub(super) async fn compare(&self) {
        self.dispatch.reconcile().await.unwrap();
        self.dispatch.reconcile().await.unwrap();
    }

    pub(super) async fn ids(&self, samples: usize) -> Vec<Uuid> {
        self.take(samples).await.iter().map(|taken| taken.sample.id).collect()
    }

    /// Takes what comes within a while.
    pub(super) async fn nothing_comes(&self) {
        assert!(self.ahead.lock().await.is_empty());
        let until = Instant::now() + A_WHILE;
        while Instant::now() < until {
            let taken = self.dispatch.take(8).await.unwrap();
            assert!(taken.is_empty(), "{taken:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Makes a case a test of both dispatches.
macro_rules! contract {
    ($($case:ident)*) => {
        mod local {
            $(
                #[tokio::test]
                async fn $case() {
                    let scene = super::Scene::new().await;
                    let instance = scene.local();
                    super::$case(scene, instance).await;
                }
            )*
        }
        mod nats {
            $(
                #[tokio::test]
                async fn $case() {
                    let scene = super::Scene::new().await;
                    let Some(instance) = scene.nats().await else { return };
                    super::$case(scene, instance).await;
                }
            )*
        }
    };
}

contract! {
    samples_come_once_and_oldest_first
    a_postponed_sample_comes_again_after_its_pause
    a_sample_that_was_left_comes_again
    a_settled_sample_never_comes_again
    a_sample_that_was_deleted_does_not_come
    a_sample_that_nobody_announced_comes_after_a_comparison
}

async fn samples_come_once_and_oldest_first(scene: Scene, instance: Instance) {
    let all = scene.announce(&instance, 40).await;
    let mut taken = instance.ids(25).await;
    taken.extend(instance.ids(15).await);
    assert_eq!(taken, all);
    instance.nothing_comes().await;
}

async fn a_postponed_sample_comes_again_after_its_pause(scene: Scene, instance: Instance) {
    let id = scene.announce(&instance, 1).await[0];
    assert_eq!(instance.ids(1).await, [id]);
    let pause = Duration::from_secs(1);
    let started = Instant::now();
    scene.store.postpone(id, OffsetDateTime::now_utc() + pause, true).await.unwrap();
    instance.dispatch.end(id, Outcome::Postponed(pause)).await;
    instance.nothing_comes().await;
    let again = instance.take(1).await;
    assert_eq!((again[0].sample.id, again[0].sample.attempts), (id, 1));
    assert!(again[0].suspect.is_none() && started.elapsed() >= pause.mul_f64(0.9));
}

async fn a_sample_that_was_left_comes_again(scene: Scene, instance: Instance) {
    let all: BTreeSet<_> = scene.announce(&instance, 4).await.into_iter().collect();
    for _ in 0..8 {
        // However often: it is nobody's fault.
        let taken = instance.take(4).await;
        assert!(taken.iter().all(|one| one.suspect.is_none()));
        for one in taken {
            instance.dispatch.end(one.sample.id, Outcome::Left).await;
        }
    }
    assert_eq!(instance.ids(4).await.into_iter().collect::<BTreeSet<_>>(), all);
}

async fn a_settled_sample_never_comes_again(scene: Scene, instance: Instance) {
    for id in scene.announce(&instance, 3).await {
        assert_eq!(instance.ids(1).await, [id]);
        instance.dispatch.begin(id);
        scene.settle(&instance, id).await;
    }
    instance.compare().await;
    instance.nothing_comes().await;
}

async fn a_sample_that_was_deleted_does_not_come(scene: Scene, instance: Instance) {
    let gone = scene.accept().await;
    scene.store.fail_pending(gone, "internal", "deleted").await.unwrap();
    instance.dispatch.announce(scene.announced(gone));
    let there = scene.announce(&instance, 1).await;
    assert_eq!(instance.ids(1).await, there);
    instance.nothing_comes().await;
}

async fn a_sample_that_nobody_announced_comes_after_a_comparison(scene: Scene, instance: Instance) {
    let known = scene.announce(&instance, 2).await;
    assert_eq!(instance.ids(2).await, known);
    let unknown = scene.accept().await;
    instance.compare().await;
    assert_eq!(instance.ids(1).await, [unknown]);
    instance.compare().await;
    instance.nothing_comes().await;
}
