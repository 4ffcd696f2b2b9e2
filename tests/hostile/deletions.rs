//! Complete deletion: in the database files, after the client disconnects, and when repeated.

use std::time::{Duration, Instant};

use axum::{body::Body, http::Request};
use sqlx::{Connection as _, Executor as _, PgConnection, SqliteConnection};
use stellar_score::{content::ContentHash, store::FacesRecord};
use time::OffsetDateTime;

use crate::{
    database::{Database, Kind},
    harness::{Answer, App, ONE_GRAPH},
    instances::{eventually, new_run, put},
    support::{form::Form, images::png},
};

async fn on(database: &Database) -> App {
    let url = database.url.clone();
    App::with(move |setup| setup.config.store.url = url).await
}

fn score(seed: u32) -> Form {
    Form::new().file("image", png(seed)).field("metrics", ONE_GRAPH)
}

async fn delete(app: &App, image: ContentHash) -> Answer {
    let request = Request::delete(format!("/v1/images/{image}")).body(Body::empty());
    app.send(request.expect("a valid request")).await
}

/// Another connection that blocks all writes.
pub(crate) enum Lock {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl Lock {
    pub(crate) async fn on(database: &Database) -> Self {
        match database.kind {
            Kind::Sqlite => {
                let mut other = SqliteConnection::connect(&database.url).await.expect("a database");
                other.execute("BEGIN IMMEDIATE").await.expect("the lock");
                Self::Sqlite(other)
            }
            Kind::Postgres => {
                let mut other = PgConnection::connect(&database.url).await.expect("a database");
                other.execute("BEGIN").await.expect("a transaction");
                other
                    .execute("LOCK TABLE faces, samples, pending_samples IN EXCLUSIVE MODE")
                    .await
                    .expect("the lock");
                Self::Postgres(other)
            }
        }
    }

    pub(crate) async fn release(self) {
        match self {
            Self::Sqlite(mut other) => {
                other.execute("ROLLBACK").await.expect("the end of the lock");
            }
            Self::Postgres(mut other) => {
                other.execute("ROLLBACK").await.expect("the end of the lock");
            }
        }
    }
}

fn faces(image: ContentHash, faces: Vec<u8>) -> FacesRecord {
    FacesRecord {
        image,
        graphs: ContentHash::of(b"graphs"),
        faces,
        created: OffsetDateTime::now_utc(),
    }
}

async fn a_deletion_completes_after_its_client_disconnects(database: Database) {
    let app = on(&database).await;
    let image = ContentHash::of(&png(1));
    app.score(score(1)).await.ok();
    app.store.save_faces(&faces(image, vec![1])).await.expect("saved");
    assert_eq!(app.score(score(1)).await.ok()["cached"], true, "it is cached");
    let lock = Lock::on(&database).await;
    let leaves = tokio::time::timeout(Duration::from_secs(1), delete(&app, image)).await;
    assert!(leaves.is_err(), "it was deleted behind the lock");
    lock.release().await;
    eventually!("the end of the faces", database.count("faces").await == 0);
    eventually!("the end of the memory", app.score(score(1)).await.ok()["cached"] == false);
}

async fn a_repeated_deletion_evicts_what_the_first_left_in_the_cache(database: Database) {
    let app = on(&database).await;
    let image = ContentHash::of(&png(1));
    app.score(score(1)).await.ok();
    app.store.save_faces(&faces(image, vec![1])).await.expect("saved");
    // Simulates a process or connection that fails right after the commit.
    app.store.delete_image(image).await.expect("the query succeeds").expect("it was known");
    let again = delete(&app, image).await.ok();
    assert_eq!((&again["faces"], &again["cached"]), (&0.into(), &1.into()), "{again}");
    // A sample still uses the image, so it is known.
    assert_eq!(delete(&app, image).await.ok()["cached"], 0);
    assert_eq!(app.score(score(1)).await.ok()["cached"], false);
}

/// The sample of a client that disconnects during the transaction is either accepted with its files
/// or not stored at all.
async fn a_sample_whose_client_disconnects_in_the_transaction_has_its_files(database: Database) {
    let app = on(&database).await;
    let run = new_run(&app).await;
    let form = || Form::new().file("image", png(1)).file("reference", png(100));
    let lock = Lock::on(&database).await;
    let leaves = tokio::time::timeout(Duration::from_secs(1), put(&app, &run, "s", form())).await;
    assert!(leaves.is_err(), "it was accepted behind the lock");
    lock.release().await;
    let counts = async || app.get(&format!("/v1/runs/{run}")).await.ok()["counts"].clone();
    eventually!("the outcome", counts().await["scored"] == 1 || app.runs.spool().used() == 0);
    // A repeated request is the same sample, and it is scored.
    assert!((200..300).contains(&put(&app, &run, "s", form()).await));
    eventually!("the score", counts().await["scored"] == 1);
    assert_eq!(counts().await["failed"], 0, "its file was deleted");
}

crate::on_both_databases!(
    a_sample_whose_client_disconnects_in_the_transaction_has_its_files,
    a_deletion_completes_after_its_client_disconnects,
    a_repeated_deletion_evicts_what_the_first_left_in_the_cache,
);

/// Returns whether a database file contains these bytes.
fn is_on_disk(url: &str, bytes: &[u8]) -> bool {
    let path = url.strip_prefix("sqlite:").expect("a file");
    ["", "-wal"].into_iter().any(|part| {
        let file = std::fs::read(format!("{path}{part}")).unwrap_or_default();
        file.windows(bytes.len()).any(|window| window == bytes)
    })
}

const MARK: &[u8] = b"what an embedding of a face would be";

/// SQLite only: the operator of PostgreSQL decides what remains of deleted rows.
async fn deleted_data_is_in_no_database_file(database: Database) {
    let app = on(&database).await;
    // Small records share a page, and a large one has its own pages.
    let images: Vec<_> = (0..6_u8).map(|at| ContentHash::of(&[at])).collect();
    for (at, image) in images.iter().enumerate() {
        let record = faces(*image, MARK.repeat(if at == 3 { 400 } else { 3 }));
        app.store.save_faces(&record).await.expect("saved");
    }
    assert!(is_on_disk(&database.url, MARK), "the test looks in the wrong place");
    for image in images {
        delete(&app, image).await.ok();
    }
    assert!(!is_on_disk(&database.url, MARK), "deleted faces can be read from the disk");
}

/// An analysis reads a snapshot: data deleted meanwhile stays in the write-ahead log until the
/// analysis ends, but the deletion blocks no request.
async fn a_deletion_during_a_long_read_blocks_no_request_and_completes_after_it(
    database: Database,
) {
    let app = on(&database).await;
    let image = ContentHash::of(b"face");
    app.store.save_faces(&faces(image, MARK.to_vec())).await.expect("saved");
    let mut reader = SqliteConnection::connect(&database.url).await.expect("a database");
    reader.execute("BEGIN").await.expect("a transaction");
    reader.execute("SELECT COUNT(*) FROM faces").await.expect("a read");
    let started = Instant::now();
    delete(&app, image).await.ok();
    app.score(score(1)).await.ok();
    assert!(started.elapsed() < Duration::from_secs(20), "the requests waited for the reader");
    reader.execute("ROLLBACK").await.expect("the end of the read");
    eventually!("the erasure of the face from the log", !is_on_disk(&database.url, MARK));
}

#[test]
fn sqlite_erases_deleted_data() {
    let case = "sqlite_erases_deleted_data";
    crate::database::run(Kind::Sqlite, case, deleted_data_is_in_no_database_file);
}

#[test]
fn sqlite_deletes_during_a_long_read() {
    let test = a_deletion_during_a_long_read_blocks_no_request_and_completes_after_it;
    crate::database::run(Kind::Sqlite, "sqlite_deletes_during_a_long_read", test);
}
