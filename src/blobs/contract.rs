//! What every implementation guarantees, tested on both: a folder, and a bucket of a server with
//! the S3 protocol.

use std::{
    fs,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use object_store::aws::AmazonS3Builder;
use stellar_s3_server::{ACCESS_KEY, BUCKET, Fault, SECRET_KEY, Server};
use tempfile::TempDir;
use time::OffsetDateTime;

use super::{
    s3::{Patience, RETRIES},
    *,
};
use crate::{config, content::ContentHash};

const MIB: usize = 1 << 20;

/// An implementation, and where its files lie.
struct Place {
    blobs: Arc<dyn Blobs>,
    root: PathBuf,
    server: Option<Server>,
    _folder: TempDir,
}

/// Shorter than by default, so that tests of silence do not take a minute.
const SHORT: Patience = Patience {
    request: Duration::from_millis(1_500),
    retrying: Duration::from_secs(4),
    operation: Duration::from_secs(6),
    probe: Duration::from_secs(1),
};

impl Place {
    fn folder(limit: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_owned();
        let blobs = Arc::new(Folder::new(root.clone(), limit));
        Self { blobs, root, server: None, _folder: folder }
    }

    fn s3(limit: u64) -> Self {
        Self::patient(limit, Patience { operation: Duration::from_mins(1), ..SHORT })
    }

    fn patient(limit: u64, patience: Patience) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start(folder.path());
        let blobs = client(&server, SECRET_KEY, limit, patience);
        let root = server.objects().join("some/prefix");
        fs::create_dir_all(&root).unwrap();
        // A bucket without this object is taken for unavailable.
        fs::write(root.join("spool.json"), r#"{"id":"i","database":"d"}"#).unwrap();
        Self { blobs: Arc::new(blobs), root, server: Some(server), _folder: folder }
    }

    async fn put(&self, bytes: &[u8]) -> ContentHash {
        let (file, bytes) = of(bytes);
        self.blobs.put(vec![(file, bytes)]).await.unwrap();
        file
    }

    async fn listed(&self) -> Vec<(ContentHash, u64)> {
        let mut all: Vec<Entry> = self.blobs.list().try_collect().await.unwrap();
        all.sort_by_key(|entry| entry.file);
        all.into_iter().map(|entry| (entry.file, entry.bytes)).collect()
    }
}

/// A client of the server's bucket.
fn client(server: &Server, secret: &str, limit: u64, patience: Patience) -> S3 {
    let settings = config::S3 {
        bucket: BUCKET.to_owned(),
        prefix: "some/prefix".to_owned(),
        region: "us-east-1".to_owned(),
        endpoint: server.endpoint(),
        allow_http: true,
    };
    let keys = AmazonS3Builder::new().with_access_key_id(ACCESS_KEY).with_secret_access_key(secret);
    S3::build(keys, &settings, limit, patience).unwrap()
}

/// A bucket for tests of the spool.
pub(crate) fn bucket(server: &Server) -> S3 {
    client(server, SECRET_KEY, 1 << 30, SHORT)
}

fn of(bytes: &[u8]) -> (ContentHash, Bytes) {
    (ContentHash::of(bytes), Bytes::copy_from_slice(bytes))
}

/// Bytes that do not repeat with a short period.
fn noise(length: usize, seed: u32) -> Vec<u8> {
    let mut state = 2 * seed + 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}

async fn files_of_any_size_come_back_as_they_were(place: Place) {
    let mut expected = Vec::new();
    for (seed, length) in [0, 1, 1_000, 32 * MIB].into_iter().enumerate() {
        let bytes = noise(length, seed as u32);
        let file = place.put(&bytes).await;
        assert!(place.blobs.get(file).await.unwrap() == bytes, "{length} bytes");
        expected.push((file, length as u64));
    }
    expected.sort_unstable();
    assert_eq!(place.listed().await, expected);
}

async fn several_files_are_put_at_once(place: Place) {
    let all: Vec<_> = (0..20).map(|seed| of(&noise(2_000, seed))).collect();
    place.blobs.put(all.clone()).await.unwrap();
    for (file, bytes) in all {
        assert_eq!(place.blobs.get(file).await.unwrap(), bytes);
    }
    assert_eq!(place.listed().await.len(), 20);
    assert!(place.blobs.put(Vec::new()).await.is_ok());
}

async fn a_repeated_put_changes_nothing(place: Place) {
    let file = place.put(b"image").await;
    place.put(b"image").await;
    assert_eq!(place.listed().await, [(file, 5)]);
    assert_eq!(&place.blobs.get(file).await.unwrap()[..], b"image");
}

async fn concurrent_puts_of_one_file_all_succeed_and_readers_see_it_whole(place: Place) {
    let (file, bytes) = of(&noise(2 * MIB, 7));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let (blobs, bytes) = (Arc::clone(&place.blobs), bytes.clone());
        tasks.spawn(async move { blobs.put(vec![(file, bytes)]).await.unwrap() });
        let blobs = Arc::clone(&place.blobs);
        tasks.spawn(async move {
            for _ in 0..10 {
                match blobs.get(file).await {
                    Ok(_) | Err(ReadError::Absent(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        });
    }
    tasks.join_all().await;
    assert_eq!(place.blobs.get(file).await.unwrap(), bytes);
    assert_eq!(place.listed().await, [(file, bytes.len() as u64)]);
}

async fn an_absent_file_is_an_error_of_its_own_and_can_be_deleted(place: Place) {
    let absent = ContentHash::of(b"never put");
    let error = place.blobs.get(absent).await.unwrap_err();
    assert!(matches!(error, ReadError::Absent(file) if file == absent), "{error}");
    place.blobs.delete(&[absent]).await.unwrap();
    place.blobs.delete(&[]).await.unwrap();
}

async fn deleted_files_are_gone_and_others_stay(place: Place) {
    let mut files = Vec::new();
    for seed in 0..30 {
        files.push(place.put(&noise(50, seed)).await);
    }
    let (gone, kept) = files.split_at(20);
    place.blobs.delete(gone).await.unwrap();
    place.blobs.delete(gone).await.unwrap();
    for file in gone {
        assert!(matches!(place.blobs.get(*file).await, Err(ReadError::Absent(_))));
    }
    let mut kept: Vec<_> = kept.iter().map(|file| (*file, 50)).collect();
    kept.sort_unstable();
    assert_eq!(place.listed().await, kept);
    place.put(&noise(50, 0)).await;
    assert_eq!(place.listed().await.len(), 11, "a deleted file can be put again");
}

async fn a_damaged_file_is_an_error_with_its_reason_until_it_is_put_again(place: Place) {
    for damage in [&b"imagE"[..], b"imag", b"", b"image and more"] {
        let file = place.put(b"image").await;
        fs::write(path_of(&place.root, file), damage).unwrap();
        let error = place.blobs.get(file).await.unwrap_err();
        assert!(matches!(error, ReadError::Damaged(of) if of == file), "{error}");
        assert!(error.to_string().contains(&file.to_hex()), "{error}");
        place.put(b"image").await;
        assert_eq!(&place.blobs.get(file).await.unwrap()[..], b"image");
    }
}

async fn names_that_are_no_hashes_are_neither_listed_nor_deleted(place: Place) {
    let file = place.put(b"image").await;
    let hex = file.to_hex();
    let aliens = [
        format!("{}/short", &hex[..2]),
        format!("zz/{}", &hex[2..]),
        hex.clone(),
        format!("{}/{}/inner", &hex[..2], &hex[2..60]),
        "id".to_owned(),
    ];
    for alien in &aliens {
        let path = place.root.join(alien);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, b"alien").unwrap();
    }
    assert_eq!(place.listed().await, [(file, 5)]);
    place.blobs.delete(&[file]).await.unwrap();
    assert_eq!(place.listed().await, []);
    assert!(aliens.iter().all(|alien| place.root.join(alien).is_file()));
}

async fn a_file_that_does_not_fit_is_refused_and_not_stored(place: Place) {
    let file = place.put(&noise(60, 1)).await;
    let (larger, bytes) = of(&noise(50, 2));
    let error = place.blobs.put(vec![(larger, bytes)]).await.unwrap_err();
    assert!(matches!(error, WriteError::Full(_)), "{error}");
    assert_eq!(place.listed().await, [(file, 60)]);
    assert_eq!((place.blobs.room().used(), place.blobs.room().limit()), (60, 100));
}

async fn a_listed_file_has_the_time_of_its_put(place: Place) {
    let before = OffsetDateTime::now_utc() - Duration::from_secs(2);
    place.put(b"image").await;
    let all: Vec<Entry> = place.blobs.list().try_collect().await.unwrap();
    let after = OffsetDateTime::now_utc() + Duration::from_secs(2);
    assert!((before..after).contains(&all[0].modified), "{all:?}");
}

/// Defines the tests of both implementations, with this limit of the size.
macro_rules! on_both {
    ($limit:expr, $($case:ident),+ $(,)?) => {
        mod folder {
            $(#[tokio::test] async fn $case() { super::$case(super::Place::folder($limit)).await; })+
        }
        mod s3 {
            $(#[tokio::test] async fn $case() { super::$case(super::Place::s3($limit)).await; })+
        }
    };
}

on_both!(
    1 << 30,
    files_of_any_size_come_back_as_they_were,
    several_files_are_put_at_once,
    a_repeated_put_changes_nothing,
    concurrent_puts_of_one_file_all_succeed_and_readers_see_it_whole,
    an_absent_file_is_an_error_of_its_own_and_can_be_deleted,
    deleted_files_are_gone_and_others_stay,
    a_damaged_file_is_an_error_with_its_reason_until_it_is_put_again,
    names_that_are_no_hashes_are_neither_listed_nor_deleted,
    a_listed_file_has_the_time_of_its_put,
);

mod full {
    use super::*;

    on_both!(100, a_file_that_does_not_fit_is_refused_and_not_stored);
}

#[tokio::test]
async fn requests_that_fail_for_a_while_are_repeated() {
    let place = Place::patient(1 << 30, SHORT);
    let server = place.server.as_ref().unwrap();
    let bytes = noise(100_000, 3);
    let file = ContentHash::of(&bytes);
    for fault in [Fault::Busy, Fault::Cut, Fault::Torn, Fault::Stall] {
        let times = if fault == Fault::Stall { 1 } else { 3 };
        server.fail(fault, times);
        assert_eq!(place.put(&bytes).await, file, "{fault:?}");
        server.fail(fault, times);
        assert_eq!(place.blobs.get(file).await.unwrap(), bytes, "{fault:?}");
    }
}

#[tokio::test]
async fn an_object_store_that_fails_for_long_is_unavailable_within_a_bounded_time() {
    let place = Place::patient(1 << 30, SHORT);
    let server = place.server.as_ref().unwrap();
    let (file, bytes) = of(b"image");
    for fault in [Fault::Busy, Fault::Cut, Fault::Stall] {
        server.fail(fault, u64::MAX);
        let (requests, started) = (server.requests(), Instant::now());
        let put = place.blobs.put(vec![(file, bytes.clone())]).await;
        assert!(matches!(put, Err(WriteError::Unavailable(_))), "{fault:?}: {put:?}");
        let tried = server.requests() - requests;
        assert!((2..=1 + RETRIES as u64).contains(&tried), "{fault:?}: {tried} requests");
        let get = place.blobs.get(file).await;
        let error = get.unwrap_err();
        assert!(matches!(error, ReadError::Unavailable(_)), "{fault:?}: {error}");
        assert!(place.blobs.delete(&[file]).await.is_err(), "{fault:?}");
        assert!(place.blobs.list().try_collect::<Vec<_>>().await.is_err(), "{fault:?}");
        assert!(started.elapsed() < 5 * SHORT.operation, "{fault:?}: {:?}", started.elapsed());
        assert!(!error.to_string().contains(SECRET_KEY), "{error}");
        assert!(error.to_string().contains("s3://images/some/prefix"), "{error}");
    }
    server.fail(Fault::Busy, 0);
    place.blobs.put(vec![(file, bytes)]).await.unwrap();
    assert_eq!(place.blobs.room().used(), 5, "failed puts take no room");
}

#[tokio::test]
async fn a_bucket_that_is_gone_is_unavailable_and_loses_no_file() {
    let place = Place::patient(1 << 30, SHORT);
    let file = place.put(b"image").await;
    let bucket = place.server.as_ref().unwrap().objects();
    let away = bucket.with_extension("away");
    fs::rename(&bucket, &away).unwrap();
    let error = place.blobs.get(file).await.unwrap_err();
    assert!(matches!(error, ReadError::Unavailable(_)), "{error}");
    fs::rename(&away, &bucket).unwrap();
    assert_eq!(&place.blobs.get(file).await.unwrap()[..], b"image");
}

#[tokio::test]
async fn wrong_credentials_are_unavailable_and_not_shown() {
    let place = Place::s3(1 << 30);
    let server = place.server.as_ref().unwrap();
    let other = client(server, "another-secret", 1 << 30, SHORT);
    let error = other.get(ContentHash::of(b"image")).await.unwrap_err();
    assert!(matches!(error, ReadError::Unavailable(_)), "{error}");
    assert!(!format!("{error} {error:?}").contains("another-secret"), "{error}");
    assert!(!format!("{:?}", other.note().await).contains("another-secret"));
}
