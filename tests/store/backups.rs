//! Backups: every row comes back, in either database.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::Path;

use serde_json::json;
use stellar_score::analysis::refresh_run;
use stellar_score::backup::{Archive, BackupError, Manifest, Restored, create};
use stellar_score::store::{
    Judgement, NewPreference, PromptFacts, Question, RestoreError, RunsQuery, Snapshot, Store,
    StoreOptions,
};
use zip::write::SimpleFileOptions;
use zip::{ZipArchive, ZipWriter};

use crate::builders::{import, new_run, pending};
use crate::datasets::{faces, photo};
use crate::harness::*;

/// Fills every table that a service fills.
async fn fill(store: &Store) {
    let run = new_run(store).await;
    for name in ["a", "b \u{1f600} \"quoted\"\nline", "c"] {
        let scores = vec![
            number("m", 0.1 + 0.2),
            number("tiny", -1.234_567_890_123_456_7e-12),
            null("ips", "no_face"),
        ];
        store.record(&scored("A", name, scores)).await.unwrap();
    }
    store.record(&scored("B", "a", vec![number("m", -0.0)])).await.unwrap();
    let unnamed = stellar_score::store::NewSample { run: None, name: None, ..sample("A", "x") };
    store.record(&unnamed).await.unwrap();
    for name in ["p", "q"] {
        store.accept(&pending(&run, name)).await.unwrap();
    }
    store.accept(&pending(&run, "broken")).await.unwrap();
    let broken = store.accepted_samples(run.id, None, "", 10).await.unwrap().unwrap();
    let stellar_score::store::SampleStatus::Pending(id) =
        broken.iter().find(|sample| sample.name == "broken").unwrap().at
    else {
        panic!("{broken:?}")
    };
    store.fail_pending(id, "bad_image", "it is no image").await.unwrap();
    store.import(&import(run.id, &["i", "j"], &[0.5, f64::NAN])).await.unwrap();
    refresh_run(store, run.id).await.unwrap();
    let preference = NewPreference {
        question: Question::Own("style".into()),
        annotator: "ada".into(),
        name: "a".into(),
        judgement: Judgement::Rating { run: run.id, rating: 4.5 },
        shown_first: None,
        is_repeat: false,
    };
    store.add_preferences(&[preference], at(3)).await.unwrap().unwrap();
    let photo = photo("D", "000", "0");
    store.save_faces(&faces(photo.image)).await.unwrap();
    store.enrol(&photo).await.unwrap();
    let prompt = stellar_score::store::PromptRecord {
        identity: "000".into(),
        text: "a person".into(),
        kind: Some("T".into()),
        facts: PromptFacts::default(),
    };
    store.register_prompts("D", &[prompt], at(4)).await.unwrap();
    store.delete_image(stellar_score::content::ContentHash::of(b"gone")).await.unwrap();
    store.installation().await.unwrap();
}

/// All rows of all tables, sorted.
async fn rows(url: &str) -> Vec<String> {
    let mut snapshot = Snapshot::open(url).await.unwrap();
    let mut all = Vec::new();
    for table in snapshot.tables() {
        snapshot
            .rows(&table.name, |row| {
                all.push(format!("{} {}", table.name, serde_json::to_string(row).unwrap()));
                Ok(())
            })
            .await
            .unwrap();
    }
    all.sort();
    all
}

fn sqlite(folder: &Path, name: &str) -> String {
    format!("sqlite:{}", folder.join(name).display())
}

/// A spool folder of the pending samples, as a service leaves it.
async fn spool(store: &Store, root: &Path) {
    fs::create_dir_all(root).unwrap();
    fs::write(root.join("id"), crate::builders::FOLDER).unwrap();
    fs::write(root.join("database"), store.installation().await.unwrap()).unwrap();
    for bytes in [b"p".as_slice(), b"q", b"broken", b"photo", b"no row names this"] {
        let hash = stellar_score::content::ContentHash::of(bytes).to_hex();
        fs::create_dir_all(root.join(&hash[..2])).unwrap();
        fs::write(root.join(&hash[..2]).join(&hash[2..]), bytes).unwrap();
    }
}

/// Every table that has rows in [`fill`], so that a comparison of rows compares something.
fn tables(rows: &[String]) -> Vec<&str> {
    let mut tables: Vec<_> = rows.iter().map(|row| row.split(' ').next().unwrap()).collect();
    tables.dedup();
    tables
}

pub(crate) async fn a_backup_restores_to_equal_rows_in_either_database(db: Database) {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let origin = sqlite(folder.path(), "origin.db");
    let store = Store::open(&origin, &StoreOptions::default()).await.unwrap();
    fill(&store).await;
    spool(&store, &at("files")).await;
    let expected = rows(&origin).await;
    assert!(tables(&expected).len() >= 18, "{:?}", tables(&expected));

    // While the store is open, as beside a service.
    let (file, manifest) = create(&origin, &[at("files")], folder.path()).await.unwrap();
    assert_eq!(manifest.spool.files, 3, "{manifest:?}");
    assert!(manifest.spool.missing.is_empty() && manifest.spool.elsewhere.is_empty());
    assert!(file.file_name().unwrap().to_str().unwrap().starts_with("stellar-2"));
    let restored = Archive::open(&file).unwrap().restore(&db.url, &at("other")).await.unwrap();
    assert_eq!((restored.rows, restored.files), (expected.len() as u64, 3));
    assert_eq!(rows(&db.url).await, expected);
    let kept = fs::read_to_string(at("other").join("id")).unwrap();
    assert_eq!(kept, crate::builders::FOLDER);

    // And back again.
    let (file, manifest) = create(&db.url, &[at("other")], &at("second.zip")).await.unwrap();
    assert_eq!((file, manifest.spool.files), (at("second.zip"), 3));
    let back = sqlite(folder.path(), "back.db");
    Archive::open(&at("second.zip")).unwrap().restore(&back, &at("back")).await.unwrap();
    assert_eq!(rows(&back).await, expected);
    let restored = Store::open(&back, &StoreOptions::default()).await.unwrap();
    assert_eq!(by_run(&restored).await, by_run(&store).await);
    store.record(&scored("A", "later", vec![number("m", 0.5)])).await.unwrap();
    restored.record(&scored("A", "later", vec![number("m", 0.5)])).await.unwrap();
    assert_eq!(by_run(&restored).await, by_run(&store).await, "it goes on from here");
}

/// A backup of a database with one sample.
async fn small(folder: &Path) -> std::path::PathBuf {
    let url = sqlite(folder, "small.db");
    let store = Store::open(&url, &StoreOptions::default()).await.unwrap();
    store.record(&scored("A", "1", vec![number("m", 0.5)])).await.unwrap();
    spool(&store, &folder.join("small")).await;
    store.close().await;
    create(&url, &[folder.join("small")], &folder.join("small.zip")).await.unwrap().0
}

/// Restores into this database and a folder beside the archive.
async fn restore(file: &Path, db: &Database, spool: &str) -> Result<Restored, BackupError> {
    Archive::open(file).unwrap().restore(&db.url, &file.with_file_name(spool)).await
}

pub(crate) async fn a_restore_changes_nothing_that_has_rows_or_files(db: Database) {
    let folder = tempfile::tempdir().unwrap();
    let file = small(folder.path()).await;
    let store = db.open().await;
    store.record(&scored("B", "mine", vec![number("m", 0.25)])).await.unwrap();
    let before = rows(&db.url).await;
    let error = restore(&file, &db, "empty").await.unwrap_err();
    assert!(matches!(&error, BackupError::Restore(RestoreError::NotEmpty { .. })), "{error:?}");
    assert!(error.to_string().contains("not empty"), "{error}");
    assert_eq!(rows(&db.url).await, before);
    assert!(!folder.path().join("empty").exists());

    let runs = store.runs(&RunsQuery { limit: 10, ..RunsQuery::default() }).await.unwrap();
    store.delete_run(runs[0].id).await.unwrap();
    for table in ["packs", "methods", "deleted_images", "released_files"] {
        db.execute(&format!("DELETE FROM {table}")).await;
    }
    let error = restore(&file, &db, "small").await.unwrap_err();
    assert!(matches!(error, BackupError::SpoolNotEmpty(_)), "{error:?}");
    assert_eq!(db.count("samples").await, 0);
    restore(&file, &db, "empty").await.unwrap();
    assert_eq!(db.count("samples").await, 1);
}

/// Copies an archive; `change` may replace the text of a part.
fn changed(from: &Path, to: &Path, change: impl Fn(&str, String) -> String) {
    let mut zip = ZipArchive::new(File::open(from).unwrap()).unwrap();
    let mut copy = ZipWriter::new(File::create(to).unwrap());
    for index in 0..zip.len() {
        let mut part = zip.by_index(index).unwrap();
        let name = part.name().unwrap().into_owned();
        let mut bytes = Vec::new();
        part.read_to_end(&mut bytes).unwrap();
        if let Ok(text) = String::from_utf8(bytes.clone()) {
            bytes = change(&name, text).into_bytes();
        }
        copy.start_file(name, SimpleFileOptions::default()).unwrap();
        copy.write_all(&bytes).unwrap();
    }
    copy.finish().unwrap();
}

fn with_manifest(from: &Path, to: &Path, change: impl Fn(&mut serde_json::Value)) {
    changed(from, to, |name, text| {
        if name != "manifest.json" {
            return text;
        }
        let mut manifest = serde_json::from_str(&text).unwrap();
        change(&mut manifest);
        manifest.to_string()
    });
}

pub(crate) async fn damaged_and_newer_backups_are_refused_and_say_why(db: Database) {
    let folder = tempfile::tempdir().unwrap();
    let (whole, broken) = (small(folder.path()).await, folder.path().join("broken.zip"));
    let open = |path: &Path| Archive::open(path).map(drop).unwrap_err().to_string();

    let bytes = fs::read(&whole).unwrap();
    fs::write(&broken, &bytes[..bytes.len() / 2]).unwrap();
    assert!(open(&broken).contains("damaged"), "{}", open(&broken));
    // Any single byte of the rows.
    let name = b"tables/samples.jsonl";
    let place = bytes.windows(name.len()).position(|at| at == name).unwrap();
    // Behind the name and the sizes of the part's head.
    let place = place + name.len() + 40;
    let mut flipped = bytes.clone();
    flipped[place] ^= 1;
    fs::write(&broken, &flipped).unwrap();
    assert!(open(&broken).contains("damaged"), "{}", open(&broken));
    // A changed row with a valid checksum of the ZIP file.
    changed(&whole, &broken, |name, text| {
        if name == "tables/scores.jsonl" { text.replace("0.5", "0.6") } else { text }
    });
    assert!(open(&broken).contains("tables/scores.jsonl is not what"), "{}", open(&broken));
    fs::write(&broken, "no archive").unwrap();
    assert!(open(&broken).contains("no backup"), "{}", open(&broken));

    with_manifest(&whole, &broken, |manifest| {
        manifest["format"] = json!(2);
        manifest["version"] = json!("9.0");
    });
    let error = open(&broken);
    assert!(error.contains("format 2") && error.contains("9.0"), "{error}");

    with_manifest(&whole, &broken, |manifest| manifest["schema"] = json!(9999));
    let spool = folder.path().join("empty");
    let error = Archive::open(&broken).unwrap().restore(&db.url, &spool).await.unwrap_err();
    assert!(
        matches!(error, BackupError::Restore(RestoreError::Newer { found: 9999, .. })),
        "{error:?}"
    );

    // A row that its table cannot have: nothing is left behind.
    let rename = |manifest: &mut serde_json::Value| {
        let tables = manifest["tables"].as_array_mut().unwrap();
        let scores = tables.iter_mut().find(|table| table["name"] == "scores").unwrap();
        scores["columns"][0] = json!("samples");
    };
    with_manifest(&whole, &broken, rename);
    let error = Archive::open(&broken).unwrap().restore(&db.url, &spool).await.unwrap_err();
    assert!(error.to_string().contains("no column \"samples\""), "{error}");
    assert_eq!(db.count("samples").await + db.count("methods").await, 0);
    Archive::open(&whole).unwrap().restore(&db.url, &spool).await.unwrap();
    assert_eq!(db.count("scores").await, 1);
}

pub(crate) async fn spools_of_several_instances_are_restored_as_one(db: Database) {
    let folder = tempfile::tempdir().unwrap();
    let url = sqlite(folder.path(), "two.db");
    let store = Store::open(&url, &StoreOptions::default()).await.unwrap();
    let run = new_run(&store).await;
    store.accept(&pending(&run, "p")).await.unwrap();
    let mut other = pending(&run, "q");
    other.spool = "other".into();
    store.accept(&other).await.unwrap();
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    spool(&store, &one).await;
    let alone = create(&url, std::slice::from_ref(&one), &folder.path().join("1.zip")).await;
    assert_eq!(alone.unwrap().1.spool.elsewhere, [("other".to_owned(), 2)]);
    spool(&store, &two).await;
    fs::write(two.join("id"), "other").unwrap();
    let archive = folder.path().join("2.zip");
    let manifest: Manifest = create(&url, &[one, two.clone()], &archive).await.unwrap().1;
    assert_eq!((manifest.spool.files, manifest.spool.folders.len()), (3, 2));
    assert!(manifest.spool.elsewhere.is_empty());

    Archive::open(&archive).unwrap().restore(&db.url, &folder.path().join("new")).await.unwrap();
    let folders = "SELECT DISTINCT folder FROM kept_files";
    assert_eq!(db.texts(folders).await, [crate::builders::FOLDER]);
    assert_eq!(db.count("kept_files").await, 3);
    assert_eq!(db.texts("SELECT DISTINCT folder FROM pending_samples").await.len(), 1);

    fs::write(two.join("database"), "another").unwrap();
    let error = create(&url, &[two], &folder.path().join("3.zip")).await.unwrap_err();
    assert!(matches!(error, BackupError::OtherDatabase { .. }), "{error:?}");
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().path()).collect();
    assert!(!left.iter().any(|path| path.to_string_lossy().contains("partial")), "{left:?}");
}
