//! Data of every schema version survives the later migrations, and an instance of that version
//! that still runs can write afterwards.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use stellar_score::backup::{Archive, create};
use stellar_score::content::ContentHash;
use stellar_score::store::{RunsQuery, Store};
use uuid::Uuid;

use crate::harness::*;

/// A table, the schema version from which an instance writes these columns, and the statement.
///
/// In braces: `{time}`, `{hash}`, `{digest}`, `{bytes}`, ids, and `{n}`, which differs each time.
type Row = (&'static str, i64, &'static str);

const ROWS: &[Row] = &[
    ("methods", 1, "(id, name, created) VALUES ('{method}', 'M{n}', '{time}')"),
    (
        "packs",
        1,
        "(digest, name, weights, created) VALUES ('{digest}', 'official', 'official', '{time}')",
    ),
    ("runs", 1, "(id, method, name, created) VALUES ('{run}', '{method}', 'run', '{time}')"),
    (
        "samples",
        1,
        "(id, run, name, content, prompt, image, width, height, reference_hashes, \
         auxiliary_hashes, metadata, created) VALUES ('{sample}', '{run}', '1', 'c', NULL, \
         '{hash}', 3, 2, '[\"{hash}\"]', '[]', '{}', '{time}')",
    ),
    (
        "scores",
        1,
        "(sample, metric, pack, metric_version, value, reason, flags, service_version, created) \
         VALUES ('{sample}', 'm', '{digest}', 1, 0.5, NULL, '[]', '0.1.0', '{time}')",
    ),
    (
        "summaries",
        1,
        "(run, pack, metric, metric_version, n, nulls, pivot, total, squares) VALUES ('{run}', \
         '{digest}', 'm', 1, 1, 0, 0.5, 0, 0) ON CONFLICT (run, pack, metric, metric_version) DO \
         UPDATE SET n = summaries.n + excluded.n",
    ),
    ("datasets", 2, "(id, name, created) VALUES ('{dataset}', 'D{n}', '{time}')"),
    (
        "photos",
        2,
        "(dataset, identity, name, image, attributes, created) VALUES ('{dataset}', '000', '0', \
         '{hash}', '{}', '{time}')",
    ),
    (
        "faces",
        2,
        "(image, graphs, faces, created) VALUES ('{hash}', '{hash}', {bytes}, '{time}') ON \
         CONFLICT (image, graphs) DO UPDATE SET created = excluded.created",
    ),
    (
        "api_keys",
        15,
        "(id, name, hash, scopes, limits, created) VALUES ('{run}', 'K{n}', '{hash}', '[]', '{}', \
         '{time}')",
    ),
    (
        "audit",
        15,
        "(id, time, method, route, resource, request_id, status) VALUES ('{run}', '{time}', \
         'POST', '/v1/score', '', 'r', 200)",
    ),
    ("sample_photos", 3, "(sample, image) VALUES ('{sample}', '{hash}')"),
    (
        "pending_samples",
        4,
        "(id, run, name, content, prompt, image, reference_hashes, auxiliary_hashes, metadata, \
         pack, folder, state, attempts, due, created) VALUES ('{pending}', '{run}', '2', \
         '{hash}', NULL, '{hash}', '[]', '[]', '{}', '{digest}', 'f', 'waiting', 0, '{time}', \
         '{time}') ON CONFLICT (run, name) DO NOTHING",
    ),
    (
        "kept_files",
        4,
        "(folder, run, image, photo, bytes) VALUES ('f', '{run}', '{hash}', 0, 1) ON CONFLICT \
         (folder, run, image) DO UPDATE SET photo = excluded.photo",
    ),
    ("attribute_outcomes", 4, "(sample, pack, outcomes) VALUES ('{sample}', '{digest}', '{}')"),
    (
        "prompts",
        5,
        "(dataset, identity, position, address, text, kind, facts, created) VALUES \
         ('{dataset}', '000', 0, '{hash}', 'a person', 'T', '{}', '{time}')",
    ),
    (
        "run_slices",
        6,
        "(run, pack, fingerprint, samples, clusters, computed) VALUES ('{run}', '{digest}', 'f', \
         1, {bytes}, '{time}')",
    ),
    (
        "slice_summaries",
        6,
        "(run, pack, kind, label, metric, policy, metric_version, samples, n, nulls, penalised, \
         undecided, faceless, mean) VALUES ('{run}', '{digest}', '', '', 'm', 'none', 1, 1, 1, 0, \
         0, 0, 0, 0.5)",
    ),
    (
        "slice_sums",
        6,
        "(run, pack, kind, label, metric, policy, sums) VALUES ('{run}', '{digest}', '', '', 'm', \
         'none', {bytes})",
    ),
    (
        "run_quantiles",
        6,
        "(pack, metric, metric_version, run, n, places) VALUES ('{digest}', 'm', 1, '{run}', 1, \
         {bytes})",
    ),
    (
        "preferences",
        7,
        "(id, question, annotator, name, run_a, run_b, value, created) VALUES ('{preference}', \
         'overall', 'ada', '1', '{run}', '{run}', 4.5, '{time}') ON CONFLICT (question, \
         annotator, name, run_a, run_b) DO UPDATE SET value = excluded.value",
    ),
    (
        "uncounted_votes",
        18,
        "(id, question, annotator, name, run_a, run_b, is_repeat, created) VALUES \
         ('{preference}', 'overall', 'ada', '1', '{run}', '{run}', 0, '{time}')",
    ),
    (
        "studies",
        19,
        "(id, name, plan, state, secret, created) VALUES ('{run}', 'study {n}', '{}', 'open', 's', \
         '{time}')",
    ),
    ("study_items", 19, "(study, place, name, runs) VALUES ('{run}', 0, '1', '[]')"),
    (
        "study_answers",
        19,
        "(id, study, item, question, annotator, choice, shown, created) VALUES ('{preference}', \
         '{run}', 0, 'overall', 'ada', 'tie', '[]', '{time}')",
    ),
    (
        "study_votes",
        19,
        "(id, answer, study, question, annotator, name, run_a, run_b, value, created) VALUES \
         ('{preference}', '{preference}', '{run}', 'overall', 'ada', '1', '{run}', '{run}', 1, \
         '{time}')",
    ),
    (
        "study_exclusions",
        19,
        "(study, annotator, cause, reason, created) VALUES ('{run}', 'ada', 'operator', 'r', \
         '{time}')",
    ),
    ("study_runs", 23, "(run, study) VALUES ('{run}', '{run}')"),
    (
        "installation",
        10,
        "(one, id, created) VALUES (1, 'i', '{time}') ON CONFLICT (one) DO NOTHING",
    ),
    ("released_files", 10, "(folder, image) VALUES ('f', '{digest}') ON CONFLICT DO NOTHING"),
    (
        "deleted_images",
        10,
        "(image, deleted) VALUES ('{digest}', '{time}') ON CONFLICT (image) DO UPDATE SET deleted \
         = excluded.deleted",
    ),
    (
        "evidence",
        17,
        "(id, sample, pack, evidence) VALUES ('{run}', '{sample}', '{digest}', {bytes}) ON \
         CONFLICT (id) DO NOTHING",
    ),
    (
        "benchmark_sets",
        21,
        "(run, pack, label, sample_set, samples, clusters) VALUES ('{run}', '{digest}', 'T', 's', \
         1, {bytes})",
    ),
    ("method_cards", 21, "(method, card, changed) VALUES ('{method}', '{}', '{time}')"),
    (
        "run_settings",
        21,
        "(run, settings) VALUES ('{run}', '{}') ON CONFLICT (run) DO UPDATE SET settings = \
         excluded.settings",
    ),
    (
        "submissions",
        22,
        "(id, digest, method, run, pack, pack_name, weights, samples, state, run_id, created, \
         changed, facts, bundle) VALUES ('{run}', '{digest}', 'M', 'run', '{digest}', 'official', \
         'official', 1, 'verified', '{run}', '{time}', '{time}', '{}', {bytes})",
    ),
    (
        "board_changes",
        22,
        "(id, created, action, submission, method, run, digest, note) VALUES ('{run}', '{time}', \
         'received', '{run}', 'M', 'run', '{digest}', '')",
    ),
    (
        "thumbnails",
        17,
        "(image, webp, created) VALUES ('{hash}', {bytes}, '{time}') ON CONFLICT (image) DO \
         UPDATE SET created = excluded.created",
    ),
];

/// Tables that are computed from others: a migration may empty them.
const COMPUTED: [&str; 5] =
    ["run_slices", "slice_summaries", "slice_sums", "run_quantiles", "benchmark_sets"];

/// The files of the migrations of a database, by version. Numbers may be missing.
fn files(kind: Kind) -> BTreeMap<i64, PathBuf> {
    let kind = if kind == Kind::Sqlite { "sqlite" } else { "postgres" };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(kind);
    std::fs::read_dir(folder)
        .unwrap()
        .map(|file| {
            let path = file.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            (name.split_once('_').unwrap().0.parse().unwrap(), path)
        })
        .collect()
}

fn newest() -> i64 {
    *files(Kind::Sqlite).last_key_value().unwrap().0
}

/// Writes what an instance of this schema version writes; returns the id of its sample.
async fn write(db: &Database, schema: i64, n: u32) -> Uuid {
    let names = ["method", "run", "sample", "dataset", "pending", "preference"];
    let ids = names.map(|name| (name, Uuid::now_v7().to_string()));
    let bytes = if db.kind == Kind::Sqlite { "X'00FF'" } else { "'\\x00ff'" };
    let hash = ContentHash::of(&n.to_le_bytes()).to_hex();
    let digest = hash.chars().rev().collect::<String>();
    for (table, _, statement) in ROWS.iter().filter(|(_, since, _)| *since <= schema) {
        let mut sql = format!("INSERT INTO {table} {statement}");
        for (name, id) in &ids {
            sql = sql.replace(&format!("{{{name}}}"), id);
        }
        sql = sql.replace("{time}", "2026-03-20T12:00:00.000000Z").replace("{bytes}", bytes);
        sql = sql.replace("{hash}", &hash).replace("{digest}", &digest);
        db.execute(&sql.replace("{n}", &n.to_string())).await;
    }
    ids[2].1.parse().unwrap()
}

/// Applies the migrations up to this version to a fresh database.
async fn at_schema(db: &Database, schema: i64) {
    let folder = tempfile::tempdir().unwrap();
    for file in files(db.kind).range(..=schema).map(|(_, file)| file) {
        std::fs::copy(file, folder.path().join(file.file_name().unwrap())).unwrap();
    }
    db.migrate(folder.path()).await;
}

async fn reads_back(store: &Store, sample: Uuid) {
    let read = store.sample(sample).await.unwrap().unwrap();
    let image = read.image.unwrap();
    assert_eq!((image.width, image.height), (3, 2));
    let scores: Vec<_> = read.scores.iter().map(|score| score.value.number()).collect();
    assert_eq!(scores, [Some(0.5)]);
}

pub(crate) async fn every_schema_migrates_with_its_data_while_an_old_instance_writes(db: Database) {
    for schema in files(db.kind).into_keys() {
        db.recreate().await;
        at_schema(&db, schema).await;
        let before = write(&db, schema, 1).await;
        let store = db.open().await;
        reads_back(&store, before).await;
        // The old instance still runs, and does not know of the migration.
        let after = write(&db, schema, 2).await;
        reads_back(&store, after).await;
        let runs = store.runs(&RunsQuery { limit: 10, ..RunsQuery::default() }).await.unwrap();
        assert_eq!(runs.len(), 2, "schema {schema}");
        for (table, since, statement) in ROWS {
            let same = statement.contains("(1, 'i'");
            if *since <= schema && !same && !COMPUTED.contains(table) {
                assert_eq!(db.count(table).await, 2, "{table} of schema {schema}");
            }
        }
        let summaries = by_run(&store).await;
        assert_eq!(summaries.rows.len(), 2, "schema {schema}");
        // What deletion has to find is found, whoever wrote it.
        for run in runs {
            store.delete_run(run.id).await.unwrap();
        }
        assert_eq!(db.count("scores").await + db.count("samples").await, 0, "schema {schema}");
        store.close().await;
    }
}

/// A new table needs a row in [`ROWS`].
pub(crate) async fn every_table_has_a_row_in_the_migration_test(db: Database) {
    db.open().await.close().await;
    let tables = match db.kind {
        Kind::Sqlite => "SELECT name FROM sqlite_schema WHERE type = 'table'",
        Kind::Postgres => {
            "SELECT CAST(tablename AS text) FROM pg_tables WHERE schemaname = current_schema()"
        }
    };
    let mut tables = db.texts(tables).await;
    tables.retain(|table| !table.starts_with("_sqlx") && !table.starts_with("sqlite_"));
    tables.sort();
    let mut listed: Vec<_> = ROWS.iter().map(|(table, ..)| (*table).to_owned()).collect();
    listed.sort();
    assert_eq!(tables, listed);
}

pub(crate) async fn a_backup_of_an_older_schema_is_migrated_when_it_is_restored(db: Database) {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("old.db").display());
    let old = Database { kind: Kind::Sqlite, url };
    for schema in [3, 9, newest()] {
        old.recreate().await;
        at_schema(&old, schema).await;
        let sample = write(&old, schema, 1).await;
        let archive = folder.path().join(format!("{schema}.zip"));
        let (_, manifest) = create(&old.url, &[], &archive).await.unwrap();
        assert_eq!(manifest.schema, schema, "a backup migrates nothing");
        db.recreate().await;
        let spool = folder.path().join("files");
        Archive::open(&archive).unwrap().restore(&db.url, &spool).await.unwrap();
        reads_back(&db.open().await, sample).await;
    }
}
