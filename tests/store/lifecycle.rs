//! Opening, migrating and closing a store.

use futures_util::future::join_all;
use stellar_score::analysis::{LeaderboardQuery, leaderboard};
use stellar_score::content::ContentHash;
use stellar_score::store::{
    MigrationError, RecordOutcome, Store, StoreError, StoreOptions, StoredImage,
};

use crate::harness::*;

pub(crate) async fn a_reopened_store_has_all_data(db: Database) {
    let store = db.open().await;
    let new = scored("A", "1", vec![number("m", 0.5)]);
    store.record(&new).await.unwrap();
    let (before, page) = (store.sample(new.id).await.unwrap(), by_run(&store).await);
    store.close().await;

    let store = db.open().await;
    assert_eq!(store.sample(new.id).await.unwrap(), before);
    assert_eq!(by_run(&store).await, page);
    assert_eq!(store.record(&new).await.unwrap().outcome, RecordOutcome::Repeated);
}

pub(crate) async fn concurrent_opens_all_succeed(db: Database) {
    let openers = (0..8).map(|_| {
        let db = db.clone();
        tokio::spawn(async move { db.try_open().await })
    });
    for store in join_all(openers).await {
        store.unwrap().unwrap().ping().await.unwrap();
    }
    let migrations = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/sqlite"))
        .unwrap()
        .count();
    assert_eq!(db.count("_sqlx_migrations").await, migrations);
}

pub(crate) async fn a_newer_schema_is_refused(db: Database) {
    db.open().await.close().await;
    db.execute(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'from the future', TRUE, '', 0)",
    )
    .await;
    let error = db.try_open().await.unwrap_err();
    assert!(
        matches!(error, StoreError::Migration(MigrationError::Newer { found: 9999, known }) if known < 9999),
        "{error:?}"
    );
    assert!(error.to_string().contains("run the newer program"), "{error}");
}

pub(crate) async fn a_changed_migration_is_refused(db: Database) {
    db.open().await.close().await;
    db.execute("UPDATE _sqlx_migrations SET checksum = ''").await;
    let error = db.try_open().await.unwrap_err();
    assert!(matches!(error, StoreError::Migration(MigrationError::Changed(1))), "{error:?}");
}

/// The migration fills the table from existing samples.
pub(crate) async fn a_migration_registers_the_photos_of_existing_samples(db: Database) {
    let store = db.open().await;
    let new = sample("A", "1");
    store.record(&new).await.unwrap();
    store.close().await;
    db.execute("DROP TABLE sample_photos").await;
    db.execute("ALTER TABLE datasets DROP COLUMN revision").await;
    db.execute("DELETE FROM _sqlx_migrations WHERE version = 3").await;
    let store = db.open().await;
    assert!(store.delete_image(new.inputs.references[0]).await.unwrap().is_some());
}

/// Data from the schema of the first three migrations survives the later ones with valid
/// references.
pub(crate) async fn samples_of_an_older_schema_survive_migrations(db: Database) {
    let folder = tempfile::tempdir().unwrap();
    let migrations = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations");
    let kind = if db.kind == Kind::Sqlite { "sqlite" } else { "postgres" };
    for name in ["0001_samples_and_scores.sql", "0002_datasets_and_faces.sql", "0003_deletion.sql"]
    {
        std::fs::copy(format!("{migrations}/{kind}/{name}"), folder.path().join(name)).unwrap();
    }
    db.migrate(folder.path()).await;
    let (method, run, sample) = (uuid::Uuid::now_v7(), uuid::Uuid::now_v7(), uuid::Uuid::now_v7());
    let (image, digest, time) =
        (ContentHash::of(b"image").to_hex(), "a".repeat(64), "2026-03-20T12:00:00.000000Z");
    db.execute(&format!(
        "INSERT INTO methods (id, name, created) VALUES ('{method}', 'A', '{time}');
         INSERT INTO runs (id, method, name, created) VALUES ('{run}', '{method}', 'run', '{time}');
         INSERT INTO packs (digest, name, weights, created) VALUES ('{digest}', 'official', \
         'official', '{time}');
         INSERT INTO samples (id, run, name, content, prompt, image, width, height, \
         reference_hashes,
                              auxiliary_hashes, metadata, created)
             VALUES ('{sample}', '{run}', '1', 'c', NULL, '{image}', 3, 2, '[\"{image}\"]', '[]', \
             '{{}}', '{time}');
         INSERT INTO sample_photos (sample, image) VALUES ('{sample}', '{image}');
         INSERT INTO scores (sample, metric, pack, metric_version, value, reason, flags, \
         service_version, created)
             VALUES ('{sample}', 'm', '{digest}', 1, 0.5, NULL, '[]', '0.1.0', '{time}');"
    ))
    .await;

    let store = db.open().await;
    let kept = store.sample(sample).await.unwrap().unwrap();
    assert_eq!(
        kept.image,
        Some(StoredImage { hash: ContentHash::of(b"image"), width: 3, height: 2 })
    );
    assert_eq!(kept.scores.len(), 1);
    assert_eq!(db.texts("SELECT CAST(scored AS text) FROM runs").await, ["1"]);
    let deleted = store.delete_run(run).await.unwrap().unwrap();
    assert_eq!((deleted.samples, deleted.scores), (1, 1));
    assert_eq!(db.count("samples").await, 0);
}

pub(crate) async fn a_closed_store_is_unavailable(db: Database) {
    let store = db.open().await;
    store.ping().await.unwrap();
    store.close().await;
    let errors = [
        store.ping().await.unwrap_err(),
        store.record(&sample("A", "1")).await.unwrap_err(),
        store.sample(uuid::Uuid::now_v7()).await.map(drop).unwrap_err(),
        leaderboard(&store, &LeaderboardQuery::default()).await.map(drop).unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    }
}

pub(crate) async fn both_databases_have_the_same_tables_and_columns(db: Database) {
    db.open().await.close().await;
    let columns = match db.kind {
        Kind::Sqlite => {
            db.texts(
                "SELECT tables.name || '.' || columns.name FROM sqlite_schema AS tables
                 JOIN pragma_table_info(tables.name) AS columns WHERE tables.type = 'table'",
            )
            .await
        }
        Kind::Postgres => {
            db.texts(
                "SELECT table_name || '.' || column_name FROM information_schema.columns
                 JOIN information_schema.tables USING (table_schema, table_name)
                 WHERE table_schema = current_schema() AND table_type = 'BASE TABLE'",
            )
            .await
        }
    };
    let mut columns: Vec<_> =
        columns.into_iter().filter(|column| !column.starts_with('_')).collect();
    columns.sort();
    let expected = [
        ("api_keys", "created expires hash id limits name revoked scopes"),
        ("attribute_outcomes", "outcomes pack sample"),
        ("audit", "address id key_id key_name method request_id resource route status time"),
        ("benchmark_sets", "clusters label pack run sample_set samples"),
        ("board_changes", "action created digest id key_id method note run submission"),
        ("datasets", "created id name redistributable revision"),
        ("deleted_images", "deleted image"),
        ("evidence", "evidence id pack sample"),
        ("faces", "created faces graphs image"),
        ("installation", "created id one"),
        ("kept_files", "bytes folder image key_id photo run"),
        ("method_cards", "card changed method"),
        ("methods", "created description id name"),
        ("packs", "created digest name weights"),
        (
            "pending_samples",
            "attempts auxiliary_hashes begun content created deaths detail due folder id image metadata name \
                pack prompt \
             reason reference_hashes run state",
        ),
        ("photos", "attributes created dataset identity image name"),
        ("preferences", "annotator created id name question run_a run_b shown_first value"),
        ("prompts", "address created dataset facts identity kind position text"),
        ("released_files", "folder image released"),
        ("run_quantiles", "metric metric_version n pack places run"),
        ("run_settings", "run settings"),
        ("run_slices", "clusters computed fingerprint pack run sample_set samples"),
        (
            "runs",
            "created dataset declared failed finished flags id method metrics name pack revision \
                scored service_version \
             settings split state waiting",
        ),
        ("sample_photos", "image sample"),
        (
            "samples",
            "auxiliary_hashes content created height id image metadata name prompt \
                reference_hashes run width",
        ),
        ("scores", "created flags metric metric_version pack reason sample service_version value"),
        (
            "slice_summaries",
            "clusters faceless high kind label low mean metric metric_version n nulls pack \
                penalised policy run samples std undecided",
        ),
        ("slice_sums", "kind label metric pack policy run sums"),
        ("studies", "created id name plan secret state"),
        ("study_answers", "annotator choice chosen created id item question shown study"),
        ("study_exclusions", "annotator cause created reason study"),
        ("study_items", "name place right_run runs study"),
        ("study_runs", "run study"),
        (
            "study_votes",
            "annotator answer created id name question run_a run_b shown_first study value",
        ),
        (
            "submissions",
            "bundle changed created dataset digest facts id method pack pack_name run run_id \
                samples split state verification weights",
        ),
        ("summaries", "metric metric_version n nulls pack pivot run squares total"),
        ("thumbnails", "created image webp"),
        (
            "uncounted_votes",
            "annotator created id is_repeat name question run_a run_b shown_first value",
        ),
    ];
    let expected: Vec<_> = expected
        .iter()
        .flat_map(|(table, columns)| {
            columns.split(' ').map(move |column| format!("{table}.{column}"))
        })
        .collect();
    assert_eq!(columns, expected);
}

#[tokio::test]
async fn a_database_in_memory_works_and_is_private() {
    let open = || async { Store::open("sqlite::memory:", &StoreOptions::default()).await.unwrap() };
    let (one, other) = (open().await, open().await);
    let new = scored("A", "1", vec![number("m", 0.5)]);
    one.record(&new).await.unwrap();
    assert!(one.sample(new.id).await.unwrap().is_some());
    assert_eq!(other.sample(new.id).await.unwrap(), None);
}

#[tokio::test]
async fn folders_of_a_database_file_are_created() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a b/c/stellar.db");
    let url = format!("sqlite://{}", file.display());
    Store::open(&url, &StoreOptions::default()).await.unwrap().ping().await.unwrap();
    assert!(file.is_file());
}

#[tokio::test]
async fn invalid_urls_say_why() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("notes.txt");
    std::fs::write(
        &text,
        "no database at all, but long enough to be taken for the header of one".repeat(10),
    )
    .unwrap();
    for (url, part) in [
        ("mysql://ada:secret@db/scores".to_owned(), "neither sqlite nor postgres"),
        ("stellar.db".to_owned(), "neither sqlite nor postgres"),
        ("sqlite:".to_owned(), "names no file"),
        (format!("sqlite:{}/stellar.db", text.display()), "cannot be created"),
        (format!("sqlite:{}", text.display()), "not a database"),
        (format!("sqlite:{}", folder.path().display()), "cannot be opened"),
        ("postgres://ada:secret@db:port/scores".to_owned(), "port"),
    ] {
        let error = Store::open(&url, &StoreOptions::default()).await.unwrap_err();
        let message = error.to_string();
        assert!(
            matches!(error, StoreError::Url { .. }) && message.contains(part),
            "{url}: {error:?}"
        );
        assert!(
            !message.contains("secret") && !format!("{error:?}").contains("secret"),
            "{message}"
        );
    }
}

#[tokio::test]
async fn an_unreachable_server_is_unavailable() {
    // Port 1 is reserved and has no listener.
    let error = Store::open("postgres://ada:secret@127.0.0.1:1/scores", &StoreOptions::default())
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    assert!(!error.to_string().contains("secret"));
}
