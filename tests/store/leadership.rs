//! One instance at a time has a role.

use std::{collections::BTreeSet, time::Duration};

use stellar_score::store::Leadership;

use crate::harness::{Kind, run};

#[test]
fn another_instance_leads_after_the_session_of_the_first_one_has_ended() {
    run(Kind::Postgres, "leadership", |database| async move {
        let (one, two) = (database.open().await, database.open().await);
        let role = |name: &str| format!("{name} {}", database.url);
        let (finishing, scoring) = (role("finishing"), role("scoring"));
        let both = [finishing.clone(), scoring.clone()];
        let (mut first, mut second) = (Leadership::default(), Leadership::default());
        assert_eq!(first.take(&one, &both).await.unwrap(), &BTreeSet::from(both.clone()));
        assert!(second.take(&two, &both).await.unwrap().is_empty());
        assert_eq!(first.take(&one, &both).await.unwrap().len(), 2, "they are confirmed");
        // It is not fit for one of them any more.
        assert_eq!(first.take(&one, &both[..1]).await.unwrap().len(), 1);
        assert_eq!(second.take(&two, &both).await.unwrap(), &BTreeSet::from([scoring]));
        // As if its process had died.
        drop(first);
        for _ in 0..200 {
            if second.take(&two, &both).await.unwrap().contains(&finishing) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("nobody leads");
    });
}
