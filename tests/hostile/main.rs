//! Hostile clients, accidents and concurrent processes, one file per kind. Each test fails without
//! the bound, lock or check that it covers.

/// Defines one test per case and database.
#[macro_export]
macro_rules! on_both_databases {
    ($($case:ident),+ $(,)?) => {
        mod sqlite {
            $(#[test] fn $case() {
                $crate::database::run($crate::database::Kind::Sqlite, stringify!($case), super::$case);
            })+
        }
        mod postgres {
            $(#[test] fn $case() {
                $crate::database::run($crate::database::Kind::Postgres, stringify!($case), super::$case);
            })+
        }
    };
}

// The harness of `tests/http`; each of the two programs uses only a part of it.
mod analyses;
mod answers;
mod bodies;
mod browser;
#[allow(dead_code, reason = "parts only for `tests/store`")]
#[path = "../store/harness.rs"]
mod database;
mod deletions;
mod faults;
mod fuzz;
#[allow(dead_code, reason = "parts only for `tests/http`")]
#[path = "../http/harness.rs"]
mod harness;
mod instances;
mod ranking;
mod reasons;
mod sockets;
mod spool;
mod spreadsheets;
#[allow(dead_code, reason = "parts only for the other test programs")]
#[path = "../support/mod.rs"]
mod support;
mod texts;

use harness::App;

#[tokio::test]
async fn an_unknown_route_is_a_problem_document() {
    App::start().await.get("/no-such-route").await.problem(404, "not_found");
}
