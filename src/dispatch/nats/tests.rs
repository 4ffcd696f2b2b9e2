//! What only a broker does: several workers, their deaths, and lost messages.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;
use uuid::Uuid;

use super::{NoPlace, Places, broker::short};
use crate::{
    dispatch::{
        Outcome,
        contract::{ACK_SECONDS, Instance, Scene},
    },
    supervisor::Supervisor,
};

/// Starts workers, or returns from the test if there is no server.
macro_rules! workers {
    ($scene:ident, $($worker:ident),+) => {
        let $scene = Scene::new().await;
        $(let Some($worker) = $scene.nats().await else { return };)+
    };
}

/// Ends a worker as SIGKILL does: nothing is answered any more.
async fn kill(worker: Instance) {
    let broker = worker.broker.clone().unwrap();
    broker.client().drain().await.unwrap();
    drop(worker);
}

/// The number of messages in the stream.
async fn queued(worker: &Instance) -> u64 {
    let stream = worker.broker.as_ref().unwrap().stream().await.unwrap();
    stream.get_info().await.unwrap().state.messages
}

async fn until_queued(worker: &Instance, messages: u64) {
    let until = Instant::now() + Duration::from_secs(10);
    while queued(worker).await != messages {
        assert!(Instant::now() < until, "{} messages are queued", queued(worker).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn workers_share_the_samples_of_their_pack() {
    workers!(scene, one, two);
    let all: BTreeSet<_> = scene.announce(&one, 60).await.into_iter().collect();
    let (a, b) = tokio::join!(one.ids(30), two.ids(30));
    let both: BTreeSet<_> = a.iter().chain(&b).copied().collect();
    assert_eq!(both, all);
    for id in a {
        scene.settle(&one, id).await;
    }
    for id in b {
        scene.settle(&two, id).await;
    }
    until_queued(&one, 0).await;
}

#[tokio::test]
async fn a_sample_is_queued_once_however_often_it_is_announced() {
    workers!(scene, worker);
    let id = scene.announce(&worker, 1).await[0];
    until_queued(&worker, 1).await;
    for _ in 0..5 {
        worker.dispatch.announce(scene.announced(id));
    }
    assert_eq!(worker.ids(1).await, [id]);
    // Also while it is in flight.
    worker.dispatch.announce(scene.announced(id));
    worker.nothing_comes().await;
    assert_eq!(queued(&worker).await, 1);
}

#[tokio::test]
async fn a_worker_that_lives_keeps_its_samples_and_those_of_a_dead_one_go_to_others() {
    workers!(scene, dead, alive);
    let id = scene.announce(&dead, 1).await[0];
    assert_eq!(dead.ids(1).await, [id]);
    // Longer than the broker waits for a silent worker.
    let end = Instant::now() + Duration::from_secs(2 * ACK_SECONDS);
    while Instant::now() < end {
        alive.nothing_comes().await;
    }
    kill(dead).await;
    let taken = alive.take(1).await;
    assert_eq!((taken[0].sample.id, taken[0].sample.deaths), (id, 1));
    assert_eq!(alive.metric("stellar_dispatch_redelivered_total"), "1");
}

#[tokio::test]
async fn all_samples_come_again_after_the_storage_of_the_broker_is_lost() {
    workers!(scene, worker);
    let all = scene.announce(&worker, 10).await;
    until_queued(&worker, 10).await;
    let mut held = worker.ids(3).await;
    scene.settle(&worker, held.remove(0)).await;
    until_queued(&worker, 9).await;
    let broker = worker.broker.as_ref().unwrap();
    let stream = broker.stream().await.unwrap().cached_info().config.name.clone();
    broker.context().delete_stream(stream).await.unwrap();
    worker.compare().await;
    until_queued(&worker, 9).await;
    let rest: BTreeSet<_> = worker.ids(7).await.into_iter().collect();
    assert_eq!(rest, all[3..].iter().copied().collect());
    // Their first messages had numbers that others have now.
    for id in held {
        scene.settle(&worker, id).await;
    }
    until_queued(&worker, 7).await;
    worker.nothing_comes().await;
    assert_eq!(queued(&worker).await, 7);
}

#[tokio::test]
async fn a_sample_with_which_workers_die_goes_alone_and_then_fails() {
    workers!(scene, worker);
    let killer = scene.accept().await;
    for deaths in 0..3 {
        // As if a worker had died.
        let begun = scene.store.begin_attempts(&[killer], u32::MAX).await.unwrap();
        assert_eq!(begun[0].deaths, deaths);
    }
    let others = scene.announce(&worker, 3).await;
    assert_eq!(worker.ids(3).await, others);
    // It waits until nothing else is in flight.
    worker.dispatch.announce(scene.announced(killer));
    worker.nothing_comes().await;
    for id in &others {
        scene.settle(&worker, *id).await;
    }
    let alone = worker.take(1).await;
    let suspect = alone[0].suspect.unwrap();
    assert_eq!((alone[0].sample.id, suspect.deaths, suspect.gives_up), (killer, 0, false));
    let more = scene.announce(&worker, 2).await;
    worker.nothing_comes().await;
    // It was not the culprit this time, and is tried again.
    worker.dispatch.end(killer, Outcome::Left).await;
    for id in worker.ids(2).await {
        assert!(more.contains(&id));
        scene.settle(&worker, id).await;
    }
    for _ in 0..4 {
        scene.store.begin_attempts(&[killer], u32::MAX).await.unwrap();
    }
    let last = worker.take(1).await;
    assert!(last[0].sample.id == killer && last[0].suspect.unwrap().gives_up);
}

#[tokio::test]
async fn a_worker_that_stops_leaves_what_it_has_fetched() {
    workers!(scene, stopping, other);
    let mut all: BTreeSet<_> = scene.announce(&stopping, 6).await.into_iter().collect();
    // One is taken, and further ones are fetched for the next call.
    let first = stopping.take(1).await;
    stopping.stop.send_replace(true);
    for taken in first {
        stopping.dispatch.end(taken.sample.id, Outcome::Left).await;
    }
    stopping.dispatch.leave().await;
    // Requests are still being answered.
    all.extend(scene.announce(&stopping, 2).await);
    stopping.dispatch.close().await;
    let started = Instant::now();
    let rest: BTreeSet<Uuid> = other.ids(8).await.into_iter().collect();
    assert_eq!(rest, all);
    assert!(started.elapsed() < Duration::from_secs(ACK_SECONDS), "nothing had to run out");
}

#[tokio::test]
async fn comparisons_while_samples_are_accepted_publish_nothing_again() {
    workers!(scene, worker);
    let accepting = scene.announce(&worker, 200);
    let comparing = async {
        loop {
            worker.dispatch.reconcile().await.unwrap();
            // Housekeeping pauses for seconds. Two comparisons in a row may see the same samples
            // before they are published.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        _ = accepting => {}
        () = comparing => {}
    }
    until_queued(&worker, 200).await;
    let text = worker.telemetry.export();
    assert!(text.contains("stellar_dispatch_published_total{outcome=\"queued\"} 0"), "{text}");
}

#[tokio::test]
async fn messages_of_a_deleted_run_are_removed() {
    workers!(scene, worker);
    let id = scene.announce(&worker, 3).await[0];
    until_queued(&worker, 3).await;
    worker.dispatch.forget_run(Uuid::now_v7()).await;
    assert_eq!(queued(&worker).await, 3);
    worker.dispatch.forget_run(scene.announced(id).run).await;
    assert_eq!(queued(&worker).await, 0);
}

#[tokio::test]
async fn a_stream_of_another_database_is_refused() {
    workers!(scene, worker);
    let ours = worker.broker.as_ref().unwrap();
    ours.stream().await.unwrap();
    let theirs = ours.of_installation("another-database");
    let error = theirs.stream().await.err().unwrap().to_string();
    assert!(error.contains("one-database") && error.contains("dispatch.nats.prefix"), "{error}");
}

#[tokio::test]
async fn a_request_finds_a_worker_with_room() {
    workers!(scene, worker);
    let places = Places::new(worker.broker.clone().unwrap(), scene.pack.digest.clone());
    let until = Instant::now() + Duration::from_secs(10);
    // Not connected yet.
    while places.find(&BTreeSet::new()).await == Err(NoPlace::NoBroker) {
        assert!(Instant::now() < until);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(places.find(&BTreeSet::new()).await, Err(NoPlace::NoWorker));
    let supervisor = Supervisor::new(worker.telemetry.runs.restarts.clone());
    let has_room = Arc::new(AtomicBool::new(true));
    let (url, room) = ("http://10.0.0.7:8080".to_owned(), Arc::clone(&has_room));
    let stopping = worker.stop.subscribe();
    let offered = move || room.load(Ordering::Relaxed);
    places.clone().offer(url.clone(), offered, &supervisor, &stopping);
    while places.find(&BTreeSet::new()).await != Ok(url.clone()) {
        assert!(Instant::now() < until);
    }
    let but = BTreeSet::from([url.clone()]);
    assert_eq!(places.find(&but).await, Err(NoPlace::Busy));
    has_room.store(false, Ordering::Relaxed);
    assert_eq!(places.find(&BTreeSet::new()).await, Err(NoPlace::Busy));
    places.clone().count_workers(&supervisor, &stopping);
    while worker.metric("stellar_workers") != "1" {
        assert!(Instant::now() < until);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[test]
fn a_pack_has_the_first_digits_of_its_digest_in_subjects() {
    assert_eq!(short(&"0123456789abcdef".repeat(4)), "0123456789abcdef");
}
