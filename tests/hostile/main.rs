//! What strangers, accidents and other processes do to a service, one file a kind. Each test fails where a bound, a lock or a
//! check is taken away.

/// Makes a test of each case for each database.
#[macro_export]
macro_rules! on_both_databases {
    ($($case:ident),+ $(,)?) => {
        mod sqlite {
            $(#[test] fn $case() { $crate::database::run($crate::database::Kind::Sqlite, stringify!($case), super::$case); })+
        }
        mod postgres {
            $(#[test] fn $case() { $crate::database::run($crate::database::Kind::Postgres, stringify!($case), super::$case); })+
        }
    };
}

// The harness is that of `tests/http`; each of the two programs uses a part of it.
mod analyses;
mod answers;
mod bodies;
mod browser;
#[allow(dead_code, reason = "what only `tests/store` uses")]
#[path = "../store/harness.rs"]
mod database;
mod deletions;
mod faults;
mod fuzz;
#[allow(dead_code, reason = "what only `tests/http` uses")]
#[path = "../http/harness.rs"]
mod harness;
mod instances;
mod ranking;
mod reasons;
mod sockets;
mod spool;
#[allow(dead_code, reason = "what only the other test programs use")]
#[path = "../support/mod.rs"]
mod support;
mod texts;

use harness::App;

#[tokio::test]
async fn an_unknown_route_is_a_problem_document() {
    App::start().await.get("/no-such-route").await.problem(404, "not_found");
}
