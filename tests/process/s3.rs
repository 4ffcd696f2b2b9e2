//! Images in a bucket: kills, two instances, an object store that fails, and files that are lost.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::Mutex,
    time::Duration,
};

use serde_json::Value;
use stellar_s3_server::{ACCESS_KEY, BUCKET, Fault, SECRET_KEY, Server as ObjectStore};
use stellar_score::{
    content::ContentHash,
    store::{Store, StoreOptions},
};
use time::OffsetDateTime;

use crate::{
    database::{self, Database, Kind},
    harness::{QUICK, Server, folder, program, read, run, serve, until},
    runs::{
        SAMPLES, calm_scores, counts, named_run, new_run, put, scores, submit,
        submitted_under_kills,
    },
    support::{client, form::Form, images::png},
};

/// Settings of a quick service with its images in the bucket. A worker that dies is noticed soon.
pub(crate) fn settings(objects: &ObjectStore) -> Vec<(&'static str, String)> {
    let mut settings = vec![
        ("STELLAR_STORE__S3__BUCKET", BUCKET.to_owned()),
        ("STELLAR_STORE__S3__ENDPOINT", objects.endpoint()),
        ("STELLAR_STORE__S3__ALLOW_HTTP", "true".to_owned()),
        ("STELLAR_SERVER__DEADLINE_SECONDS", "5".to_owned()),
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
    ];
    settings.extend(QUICK.map(|(name, value)| (name, value.to_owned())));
    settings
}

pub(crate) fn borrowed<'a>(settings: &'a [(&'static str, String)]) -> Vec<(&'a str, &'a str)> {
    settings.iter().map(|(name, value)| (*name, value.as_str())).collect()
}

/// The hashes of the images in the bucket.
fn images(objects: &ObjectStore) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let root = objects.objects().join("stellar");
    for folder in fs::read_dir(root).into_iter().flatten().filter_map(Result::ok) {
        let name = folder.file_name().into_string().expect("ASCII");
        for file in fs::read_dir(folder.path()).into_iter().flatten().filter_map(Result::ok) {
            found.insert(format!("{name}{}", file.file_name().to_string_lossy()));
        }
    }
    found
}

/// Waits until every image in the bucket is released: it is deleted five minutes later.
pub(crate) fn until_all_are_released(objects: &ObjectStore, url: &str) {
    let note = objects.objects().join("stellar/spool.json");
    let note: Value = serde_json::from_str(&read(&note)).expect("JSON");
    let bucket = note["id"].as_str().expect("an id").to_owned();
    let all = images(objects);
    let released = async {
        let store = Store::open(url, &StoreOptions::default()).await.expect("it is there");
        let soon = OffsetDateTime::now_utc() + Duration::from_hours(1);
        let released = store.quarantined_files(&bucket, soon).await.expect("a list");
        store.close().await;
        released.iter().map(ToString::to_string).collect::<BTreeSet<_>>()
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut released = std::pin::pin!(released);
    let found = runtime.block_on(&mut released);
    assert_eq!(found, all, "released, and in the bucket");
}

fn sqlite(folder: &Path) -> String {
    format!("sqlite:{}", folder.join("stellar.db").display())
}

#[test]
fn kills_lose_no_sample_of_a_bucket_and_change_no_score() {
    let (wild, store) = (folder(), folder());
    let objects = ObjectStore::start(store.path());
    let mut settings = settings(&objects);
    // What a kill left without a row is released at the next start.
    settings.push(("STELLAR_STORE__TRASH_RETENTION_DAYS", "0".to_owned()));
    let (server, run) = submitted_under_kills(wild.path(), &borrowed(&settings));
    assert_eq!(scores(&server, &run), calm_scores(&QUICK));
    assert_eq!(server.counted("mine", "aesthetic"), u64::from(SAMPLES));
    // Nothing is in the folder but notes.
    let in_folder = fs::read_dir(wild.path().join("files")).expect("a folder");
    assert!(in_folder.filter_map(Result::ok).all(|entry| entry.path().is_file()));
    until("the release of all images", || {
        (server.find_gauge("stellar_spool_bytes") == Some(0.0)).then_some(())
    });
    std::thread::sleep(Duration::from_secs(3));
    drop(server);
    assert!(!images(&objects).is_empty(), "they stay for their quarantine");
    until_all_are_released(&objects, &sqlite(wild.path()));
}

#[test]
fn samples_wait_while_the_object_store_fails_and_none_fails() {
    let (folder, store) = (folder(), folder());
    let objects = ObjectStore::start(store.path());
    let settings = settings(&objects);
    let server = Server::start(folder.path(), &borrowed(&settings));
    let run = new_run(&server);
    submit(&Mutex::new(server.address), &run);
    objects.fail(Fault::Cut, u64::MAX);
    let refused = until("readiness to notice", || {
        let ready = server.get("/readyz");
        (ready.status == 503).then(|| ready.json())
    });
    let named = refused["detail"].as_str().expect("a text").contains("s3://images/stellar");
    assert!(named, "{refused}");
    let form = Form::new().file("image", png(77)).file("reference", png(78));
    let answer = put(server.address, &run, "late", form).expect("a response");
    assert_eq!(answer.status, 503, "{}", answer.json());
    objects.fail(Fault::Cut, 0);
    until("readiness to return", || (server.get("/readyz").status == 200).then_some(()));
    assert_eq!(scores(&server, &run), calm_scores(&QUICK));
}

#[test]
fn an_image_that_is_lost_or_damaged_fails_its_sample_with_the_reason() {
    let (folder, store) = (folder(), folder());
    let objects = ObjectStore::start(store.path());
    let settings = settings(&objects);
    let server = Server::start(folder.path(), &borrowed(&settings));
    let run = new_run(&server);
    let image = |seed| object_path(&objects, &png(seed));
    let engine = |what: &str| {
        let to = format!("POST /v1/engine/{what}");
        let answer = client::send(server.address, &to, &[], &[]).expect("a response");
        assert!(answer.status < 300, "{}", answer.json());
    };
    // Samples wait meanwhile.
    engine("offload");
    for (name, seed) in [("lost", 1), ("damaged", 2), ("sound", 3)] {
        let form = Form::new().file("image", png(seed)).file("reference", png(100));
        let form = form.field("prompt", "a person");
        let put = put(server.address, &run, name, form).expect("a response");
        assert_eq!(put.status, 202, "{}", put.json());
    }
    fs::remove_file(image(1)).expect("it is there");
    fs::write(image(2), b"other bytes").expect("it is there");
    engine("reload");
    until("the outcome", || {
        let (scored, failed) = counts(&server, &run);
        (scored + failed == 3).then_some(())
    });
    assert_eq!(counts(&server, &run), (1, 2));
    let page = server.get(&format!("/v1/runs/{run}/samples?state=failed")).json();
    let failed = page["items"].as_array().expect("a list");
    for (name, word) in [("lost", "missing"), ("damaged", "damaged")] {
        let sample = failed.iter().find(|sample| sample["name"] == name).expect("it failed");
        assert_eq!(sample["error"]["code"], "file_lost", "{sample}");
        let detail = sample["error"]["detail"].as_str().expect("a text");
        assert!(detail.contains(word) && detail.contains("send the sample again"), "{sample}");
    }
    let form = Form::new().file("image", png(2)).file("reference", png(100));
    let again = put(server.address, &run, "damaged", form.field("prompt", "a person"));
    assert_eq!(again.expect("a response").status, 202);
    until("the score", || (counts(&server, &run) == (2, 1)).then_some(()));
}

fn object_path(objects: &ObjectStore, bytes: &[u8]) -> PathBuf {
    let hex = ContentHash::of(bytes).to_hex();
    objects.objects().join("stellar").join(&hex[..2]).join(&hex[2..])
}

fn two_instances(database: &Database) {
    let (one, two, store) = (folder(), folder(), folder());
    let objects = ObjectStore::start(store.path());
    let mut settings = settings(&objects);
    settings.push(("STELLAR_STORE__URL", database.url.clone()));
    let settings = borrowed(&settings);
    let first = Server::start(one.path(), &settings);
    let run = new_run(&first);
    submit(&Mutex::new(first.address), &run);
    // It never comes back, and neither does its folder.
    first.kill();
    fs::remove_dir_all(one.path().join("files")).expect("a folder");
    let second = Server::start(two.path(), &settings);
    assert_eq!(scores(&second, &run), calm_scores(&QUICK));

    // Photos that one instance stored are known to the other.
    let third = Server::start(one.path(), &settings);
    let run = named_run(&third, "later");
    let photo = png(500);
    let hash = ContentHash::of(&photo).to_hex();
    let form = Form::new().file("image", png(1)).file("reference", photo);
    assert_eq!(put(third.address, &run, "a", form).expect("a response").status, 202);
    let form = Form::new().file("image", png(2)).field("reference_hash", hash);
    let answer = put(second.address, &run, "b", form).expect("a response");
    assert_eq!(answer.status, 202, "{}", answer.json());
    until("both scores", || (counts(&second, &run) == (2, 0)).then_some(()));
}

#[test]
fn another_instance_scores_what_a_killed_one_accepted() {
    let case = "another_instance_scores_what_a_killed_one_accepted";
    database::run(Kind::Postgres, case, |database| async move {
        let done = tokio::task::spawn_blocking(move || two_instances(&database));
        if let Err(failed) = done.await {
            std::panic::resume_unwind(failed.into_panic());
        }
    });
}

#[test]
fn commands_say_what_a_bucket_means_for_them() {
    let (folder, store) = (folder(), folder());
    let objects = ObjectStore::start(store.path());
    let settings = settings(&objects);
    let with_settings = |arguments: &[&str]| {
        let mut command = program(arguments);
        command.env("STELLAR_STORE__URL", sqlite(folder.path()));
        command.env("STELLAR_STORE__SPOOL", folder.path().join("files"));
        command.env("STELLAR_SERVER__LISTEN", "127.0.0.1:0");
        command.envs(borrowed(&settings));
        command
    };
    let server = Server::start(folder.path(), &borrowed(&settings));
    let id = new_run(&server);
    let form = Form::new().file("image", png(1)).file("reference", png(2));
    assert_eq!(put(server.address, &id, "a", form).expect("a response").status, 202);
    let report = run(&mut with_settings(&["doctor"])).printed();
    assert!(report.contains("ok       bucket"), "{report}");
    assert!(!report.contains(SECRET_KEY), "{report}");
    let archive = folder.path().join("backup.zip").display().to_string();
    // The photo is needed until the run is finished.
    let wrote = run(&mut with_settings(&["backup", &archive])).printed();
    assert!(wrote.contains("in the bucket of store.s3"), "{wrote}");
    drop(server);

    // A bucket that does not answer, and credentials that it refuses.
    let mut wrong = serve(folder.path());
    wrong.envs(borrowed(&settings)).env("AWS_SECRET_ACCESS_KEY", "not-the-secret");
    let message = run(&mut wrong).failed(&["s3://images/stellar", "AWS_SECRET_ACCESS_KEY"]);
    assert!(!message.contains("not-the-secret"), "{message}");
    let mut closed = serve(folder.path());
    closed.envs(borrowed(&settings)).env("STELLAR_STORE__S3__ENDPOINT", "http://127.0.0.1:1");
    run(&mut closed).failed(&["s3://images/stellar"]);
}
