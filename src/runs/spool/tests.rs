use super::{
    disk::{TRASH, empty_trash},
    *,
};
use crate::{
    blobs::{WriteError, path_of},
    store::StoreOptions,
};

const WEEK: Duration = Duration::from_hours(7 * 24);

async fn store() -> Store {
    Store::open("sqlite::memory:", &StoreOptions::default()).await.unwrap()
}

fn image(bytes: &'static [u8]) -> (ContentHash, Bytes) {
    (ContentHash::of(bytes), Bytes::from_static(bytes))
}

#[tokio::test]
async fn an_unreferenced_file_is_deleted_when_its_last_guard_is_dropped() {
    let (folder, store) = (tempfile::tempdir().unwrap(), store().await);
    let files = Spool::open(folder.path(), 1 << 20, WEEK, &store).await.unwrap();
    let one = files.keep(&store, vec![image(b"a"), image(b"bc")]).await.unwrap();
    let two = files.keep(&store, vec![image(b"a")]).await.unwrap();
    assert_eq!(files.used(), 3, "equal files are stored once");
    let folders =
        fs::read_dir(folder.path()).unwrap().filter(|each| each.as_ref().unwrap().path().is_dir());
    assert_eq!(folders.count(), 2, "subfolders are created on demand");
    assert_eq!(&files.read(ContentHash::of(b"bc")).await.unwrap()[..], b"bc");
    drop(one);
    let released = files.released().await;
    assert_eq!(released.len(), 2);
    files.delete_unreferenced(&store, &released).await.unwrap();
    assert!(matches!(files.read(ContentHash::of(b"bc")).await, Err(ReadError::Absent(_))));
    assert!(files.read(ContentHash::of(b"a")).await.is_ok(), "the other guard still holds it");
    drop(two);
    files.delete_unreferenced(&store, &files.released().await).await.unwrap();
    assert_eq!(files.used(), 0);
}

#[tokio::test]
async fn files_orphaned_by_a_crash_are_in_the_trash_after_the_next_start() {
    let (folder, store) = (tempfile::tempdir().unwrap(), store().await);
    let files = Spool::open(folder.path(), 1 << 20, WEEK, &store).await.unwrap();
    let id = files.id().to_owned();
    let _held = files.keep(&store, vec![image(b"orphan")]).await.unwrap();
    fs::write(folder.path().join("new-half"), b"half").unwrap();
    let path = path_of(&files.root, ContentHash::of(b"orphan"));
    assert!(path.exists());
    // The folder as a killed process leaves it.
    let copy = tempfile::tempdir().unwrap();
    let status = std::process::Command::new("cp")
        .arg("-r")
        .arg(folder.path().join("."))
        .arg(copy.path())
        .status()
        .unwrap();
    assert!(status.success());
    let files = Spool::open(copy.path(), 1 << 20, WEEK, &store).await.unwrap();
    assert_eq!((files.id(), files.used()), (id.as_str(), 0));
    assert!(
        !path_of(&files.root, ContentHash::of(b"orphan")).exists()
            && !copy.path().join("new-half").exists()
    );
    let thrown = copy.path().join(TRASH).join(ContentHash::of(b"orphan").to_hex());
    assert!(thrown.exists());
    drop(files);
    drop(Spool::open(copy.path(), 1 << 20, WEEK, &store).await.unwrap());
    assert!(thrown.exists(), "its retention is not over");
    let files = Spool::open(copy.path(), 1 << 20, Duration::ZERO, &store).await.unwrap();
    assert!(!thrown.exists() && files.used() == 0);
}

#[tokio::test]
async fn deleted_and_expired_files_are_removed_from_the_trash() {
    let (folder, store) = (tempfile::tempdir().unwrap(), store().await);
    let files = Spool::open(folder.path(), 1 << 20, WEEK, &store).await.unwrap();
    let _held = files.keep(&store, vec![image(b"deleted"), image(b"old")]).await.unwrap();
    let thrown = |bytes| folder.path().join(TRASH).join(ContentHash::of(bytes).to_hex());
    for bytes in [&b"deleted"[..], b"old"] {
        assert!(files.move_to_trash(ContentHash::of(bytes)) && thrown(bytes).exists());
    }
    files
        .delete_trashed(&store, vec![ContentHash::of(b"deleted"), ContentHash::of(b"never there")])
        .await;
    assert!(!thrown(b"deleted").exists() && thrown(b"old").exists());
    assert_eq!(
        (files.empty_trash().await.unwrap(), empty_trash(folder.path(), Duration::ZERO).unwrap()),
        (0, 1)
    );
    assert!(!thrown(b"old").exists());
}

#[tokio::test]
async fn a_folder_of_another_database_is_refused_and_left_unchanged() {
    let (folder, ours) = (tempfile::tempdir().unwrap(), store().await);
    let files = Spool::open(folder.path(), 1 << 20, WEEK, &ours).await.unwrap();
    let held = files.keep(&ours, vec![image(b"accepted")]).await.unwrap();
    let path = path_of(&files.root, ContentHash::of(b"accepted"));
    // As if the process were killed: the released files are never processed.
    drop(held);
    drop(files);
    let other = store().await;
    let error =
        Spool::open(folder.path(), 1 << 20, WEEK, &other).await.err().expect("it is not its own");
    assert!(matches!(error, SpoolOpenError::OtherDatabase { .. }), "{error}");
    for word in ["store.url", "store.spool", "Nothing was changed"] {
        assert!(error.to_string().contains(word), "{error}");
    }
    assert!(path.exists());
}

#[tokio::test]
async fn files_of_a_cancelled_request_are_deleted() {
    let (folder, store) = (tempfile::tempdir().unwrap(), store().await);
    let files = Spool::open(folder.path(), 1 << 20, WEEK, &store).await.unwrap();
    {
        let mut leaving = std::pin::pin!(files.keep(&store, vec![image(b"a"), image(b"b")]));
        // Polled once, so that the write has begun.
        let begun =
            std::future::poll_fn(|context| std::task::Poll::Ready(leaving.as_mut().poll(context)));
        assert!(begun.await.is_pending());
    }
    let mut gone = Vec::new();
    while gone.len() < 2 {
        gone.extend(files.released().await);
    }
    files.delete_unreferenced(&store, &gone).await.unwrap();
    assert_eq!(files.used(), 0);
    assert!(
        !path_of(&files.root, ContentHash::of(b"a")).exists()
            && !path_of(&files.root, ContentHash::of(b"b")).exists()
    );
}

#[tokio::test]
async fn the_spool_stays_within_its_budget() {
    let (folder, store) = (tempfile::tempdir().unwrap(), store().await);
    let files = Spool::open(folder.path(), 4, WEEK, &store).await.unwrap();
    let held = files.keep(&store, vec![image(b"abc")]).await.unwrap();
    assert!(matches!(
        files.keep(&store, vec![image(b"de")]).await,
        Err(SpoolKeepError::Write(WriteError::Full(_)))
    ));
    assert!(
        files.keep(&store, vec![image(b"abc")]).await.is_ok(),
        "an existing file costs nothing"
    );
    assert_eq!(files.used(), 3);
    drop(held);
}

#[tokio::test]
async fn a_file_that_grew_does_not_make_the_spool_full() {
    let (folder, store) = (tempfile::tempdir().unwrap(), store().await);
    let spool = Spool::open(folder.path(), 1 << 20, WEEK, &store).await.unwrap();
    let _guard = spool.keep(&store, vec![image(b"image")]).await.unwrap();
    let hash = ContentHash::of(b"image");
    fs::write(path_of(&spool.root, hash), [0; 100]).unwrap();
    spool.blobs().delete(&[hash]).await.unwrap();
    assert_eq!(spool.used(), 0);
}

#[tokio::test]
async fn a_damaged_file_is_never_read_as_the_image() {
    let (folder, store) = (tempfile::tempdir().unwrap(), store().await);
    let files = Spool::open(folder.path(), 1 << 20, WEEK, &store).await.unwrap();
    let _held = files.keep(&store, vec![image(b"image")]).await.unwrap();
    fs::write(path_of(&files.root, ContentHash::of(b"image")), b"other").unwrap();
    assert!(matches!(files.read(ContentHash::of(b"image")).await, Err(ReadError::Damaged(_))));
}

#[tokio::test]
async fn a_folder_in_use_is_refused_with_advice() {
    let (folder, store) = (tempfile::tempdir().unwrap(), store().await);
    let _first = Spool::open(folder.path(), 1 << 20, WEEK, &store).await.unwrap();
    let error = Spool::open(folder.path(), 1 << 20, WEEK, &store).await.err().expect("it is taken");
    assert!(
        matches!(&error, SpoolOpenError::Taken(_)) && error.to_string().contains("store.spool"),
        "{error}"
    );
}

#[tokio::test]
async fn a_backup_postpones_the_deletion_of_files() {
    let (folder, store) = (tempfile::tempdir().unwrap(), store().await);
    let files = Spool::open(folder.path(), 1 << 20, WEEK, &store).await.unwrap();
    drop(files.keep(&store, vec![image(b"a")]).await.unwrap());
    let hold = SpoolHold::acquire(folder.path()).await.unwrap();
    // Two backups at once are fine.
    drop(SpoolHold::acquire(folder.path()).await.unwrap());
    files.delete_unreferenced(&store, &files.released().await).await.unwrap();
    files.delete_released(&store).await.unwrap();
    assert!(files.read(ContentHash::of(b"a")).await.is_ok(), "the backup may still read it");
    drop(hold);
    // The periodic call without files.
    files.delete_unreferenced(&store, &[]).await.unwrap();
    assert_eq!(files.used(), 0);
}

#[tokio::test]
async fn a_backup_does_not_hold_up_a_start_and_the_sweep_follows_it() {
    let (folder, store) = (tempfile::tempdir().unwrap(), store().await);
    let files = Spool::open(folder.path(), 1 << 20, WEEK, &store).await.unwrap();
    drop(files.keep(&store, vec![image(b"orphan")]).await.unwrap());
    drop(files);
    let hold = SpoolHold::acquire(folder.path()).await.unwrap();
    let started = Spool::open(folder.path(), 1 << 20, WEEK, &store);
    let files = tokio::time::timeout(Duration::from_secs(10), started).await.unwrap().unwrap();
    assert_eq!(files.used(), 6);
    assert_eq!(files.sweep(&store).await.unwrap(), 0);
    assert!(
        path_of(&files.root, ContentHash::of(b"orphan")).exists(),
        "the backup may still read it"
    );
    // A sample with an equal image is accepted meanwhile.
    let again = files.keep(&store, vec![image(b"orphan")]).await.unwrap();
    drop(hold);
    assert_eq!(files.sweep(&store).await.unwrap(), 0, "it is held");
    drop(again);
    files.delete_unreferenced(&store, &files.released().await).await.unwrap();
    assert_eq!(files.used(), 0);
}

#[tokio::test]
async fn a_backup_begins_while_many_files_are_deleted() {
    let folder = tempfile::tempdir().unwrap();
    hold::create(folder.path()).unwrap();
    let mut turns = Turns::new(folder.path());
    assert!(turns.next().await);
    let root = folder.path().to_owned();
    let backup = tokio::spawn(async move { SpoolHold::acquire(&root).await });
    let deleting = async {
        while turns.next().await {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), deleting).await.expect("the backup begins");
    drop(backup.await.unwrap().unwrap());
    assert!(turns.next().await);
}

#[tokio::test]
async fn a_folder_is_filled_only_if_it_is_empty_and_emptied_if_that_fails() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("files");
    let spool = SpoolFolder::new(&root);
    assert_eq!((spool.id().unwrap(), spool.is_in_use().unwrap()), (None, false));
    let mut filled = spool.fill().unwrap().unwrap();
    assert!(spool.is_in_use().unwrap() && spool.fill().unwrap().is_none());
    filled.write(ContentHash::of(b"a"), b"a").unwrap();
    drop(filled);
    assert_eq!(spool.contents().unwrap(), (0, 0), "an unfinished restore leaves no files");

    let mut filled = spool.fill().unwrap().unwrap();
    filled.write(ContentHash::of(b"a"), b"a").unwrap();
    filled.write(ContentHash::of(b"b"), b"damaged").unwrap();
    filled.belong("id", "database").unwrap();
    filled.keep();
    assert_eq!(spool.contents().unwrap(), (2, 8));
    assert_eq!(spool.id().unwrap().as_deref(), Some("id"));
    assert_eq!(spool.database().unwrap().as_deref(), Some("database"));
    assert_eq!(spool.read(ContentHash::of(b"a")).unwrap().as_deref(), Some(b"a".as_slice()));
    assert_eq!(spool.read(ContentHash::of(b"b")).unwrap(), None, "damaged");
    assert_eq!(spool.read(ContentHash::of(b"c")).unwrap(), None, "missing");
    assert!(spool.fill().unwrap().is_none());
}
