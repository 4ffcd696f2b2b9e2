//! API keys, the bytes that they store, and the audit log.

use stellar_score::key::{Key, KeyLimits, Scope};
use stellar_score::store::{AuditEntry, AuditQuery, KeyRecord, NewPending};
use time::Duration;
use uuid::Uuid;

use crate::builders::{new_run, pending, scored_sample};
use crate::harness::*;

fn record(name: &str) -> KeyRecord {
    let key = Key::generate().unwrap();
    KeyRecord {
        id: key.id(),
        name: name.to_owned(),
        hash: key.hash(),
        scopes: vec![Scope::Read, Scope::Annotate],
        limits: KeyLimits { stored_bytes: Some(u64::MAX >> 1), ..KeyLimits::default() },
        created: at(0),
        expires: Some(at(1_000)),
        revoked: None,
    }
}

pub(crate) async fn a_key_reads_back_as_it_was(db: Database) {
    let store = db.open().await;
    assert!(!store.has_keys().await.unwrap());
    let (key, other) = (record("ci"), KeyRecord { expires: None, ..record("é") });
    assert!(store.create_key(&key).await.unwrap());
    assert!(store.create_key(&other).await.unwrap());
    assert_eq!(store.key(key.id).await.unwrap(), Some(key.clone()));
    assert_eq!(store.keys().await.unwrap(), [key, other]);
    assert_eq!(store.key(Uuid::now_v7()).await.unwrap(), None);
    assert!(store.has_keys().await.unwrap());
    assert_eq!(store.remove_keys().await.unwrap(), 2);
    assert!(!store.has_keys().await.unwrap());
}

pub(crate) async fn a_key_is_valid_until_it_expires_or_is_revoked(db: Database) {
    let (store, other) = (db.open().await, db.open().await);
    let key = record("ci");
    assert!(key.is_valid(at(999)) && !key.is_valid(at(1_000)));
    store.create_key(&key).await.unwrap();
    let revoked = store.revoke_key("ci", at(5)).await.unwrap().unwrap();
    assert_eq!((revoked.id, revoked.revoked), (key.id, Some(at(5))));
    let seen = other.key(key.id).await.unwrap().unwrap();
    assert!(seen == revoked && !seen.is_valid(at(6)), "another instance sees it at once");
    assert!(store.revoke_key("ci", at(6)).await.unwrap().is_none());
    assert!(store.has_keys().await.unwrap(), "a revoked key keeps the service closed");
}

pub(crate) async fn the_name_of_a_revoked_key_is_free(db: Database) {
    let store = db.open().await;
    let (first, second) = (record("ci"), record("ci"));
    assert!(store.create_key(&first).await.unwrap());
    assert!(!store.create_key(&second).await.unwrap());
    assert_eq!(store.keys().await.unwrap().len(), 1);
    assert!(store.revoke_key(&first.id.to_string(), at(1)).await.unwrap().is_some());
    assert!(store.create_key(&second).await.unwrap());
    assert_eq!(store.revoke_key("ci", at(2)).await.unwrap().unwrap().id, second.id);
    assert!(store.create_key(&record("")).await.is_err());
}

pub(crate) async fn bytes_count_for_the_key_that_sent_them_until_they_are_released(db: Database) {
    let store = db.open().await;
    let (run, key, other) = (new_run(&store).await, Uuid::now_v7(), Uuid::now_v7());
    let one = NewPending { key: Some(key), ..pending(&run, "1") };
    let two = NewPending { key: Some(other), ..pending(&run, "2") };
    store.accept(&one).await.unwrap();
    store.accept(&two).await.unwrap();
    store.accept(&pending(&run, "3")).await.unwrap();
    // The photo of 20 bytes is shared and counts for the first key.
    assert_eq!(store.stored_bytes(key).await.unwrap(), 30);
    assert_eq!(store.stored_bytes(other).await.unwrap(), 10);
    assert_eq!(store.stored_bytes(Uuid::now_v7()).await.unwrap(), 0);
    let sample = scored_sample(&one, vec![number("m", 0.5)]);
    store.record_pending(&sample, run.id).await.unwrap();
    assert_eq!(store.stored_bytes(key).await.unwrap(), 20, "the generated image is released");
    store.delete_run(run.id).await.unwrap();
    assert_eq!(store.stored_bytes(key).await.unwrap(), 0);
}

fn entry(time: i64, key: Option<(Uuid, &str)>, resource: &str) -> AuditEntry {
    AuditEntry {
        id: Uuid::now_v7(),
        time: at(time),
        key: key.map(|(id, name)| (id, name.to_owned())),
        method: "DELETE".into(),
        route: "/v1/runs/{id}".into(),
        resource: resource.into(),
        address: Some("fd00::7".parse().unwrap()),
        request_id: "request".into(),
        status: 200,
    }
}

pub(crate) async fn the_audit_log_is_read_from_the_newest_entry(db: Database) {
    let store = db.open().await;
    let key = Some((Uuid::now_v7(), "ci"));
    let entries = [entry(0, key, "a"), entry(1, None, "b"), entry(2, key, "b")];
    store.record_audit(&entries).await.unwrap();
    // A writer that does not know whether it succeeded repeats the entries.
    store.record_audit(&entries[1..]).await.unwrap();
    let [first, second, third] = entries;
    let all = AuditQuery { limit: 10, ..AuditQuery::default() };
    let read = async |query: AuditQuery| store.audit(&query).await.unwrap();
    assert_eq!(read(all.clone()).await, [third.clone(), second.clone(), first.clone()]);
    let page = AuditQuery { before: Some(third.id), limit: 1, ..all.clone() };
    assert_eq!(read(page).await, std::slice::from_ref(&second));
    let of_key = AuditQuery { key: Some("ci".into()), ..all.clone() };
    assert_eq!(read(of_key).await, [third.clone(), first]);
    let of_resource = AuditQuery { resource: Some("b".into()), ..all.clone() };
    assert_eq!(read(of_resource).await, [third.clone(), second]);
    let since = AuditQuery { since: Some(at(2)), ..all };
    assert_eq!(read(since).await, [third]);
}

pub(crate) async fn old_entries_of_the_audit_log_are_forgotten(db: Database) {
    let store = db.open().await;
    // More than one statement holds.
    let entries: Vec<_> = (0..1_200).map(|time| entry(time, None, "a")).collect();
    store.record_audit(&entries).await.unwrap();
    assert_eq!(db.count("audit").await, 1_200);
    assert_eq!(store.forget_audit(at(1_000)).await.unwrap(), 1_000);
    let left = AuditQuery { limit: 1_000, ..AuditQuery::default() };
    assert_eq!(store.audit(&left).await.unwrap().len(), 200);
    assert_eq!(store.forget_audit(at(0) - Duration::days(1)).await.unwrap(), 0);
}
