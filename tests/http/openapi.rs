//! The OpenAPI document is complete, and the committed one is up to date.

use std::collections::{BTreeMap, BTreeSet};

use axum::{
    body::Body,
    http::{Request, header},
};
use serde_json::Value;
use stellar_score::api::{self, Code};

use crate::harness::App;

fn document() -> Value {
    serde_json::to_value(api::openapi()).expect("a document is JSON")
}

/// Every operation as `GET /path`.
fn operations(document: &Value) -> BTreeMap<String, &Value> {
    document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, operations)| {
            operations.as_object().unwrap().iter().map(move |(method, operation)| {
                (format!("{} {path}", method.to_uppercase()), operation)
            })
        })
        .collect()
}

#[test]
fn the_committed_document_is_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi/openapi.json");
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    let generated = api::openapi().to_pretty_json().unwrap() + "\n";
    assert!(
        committed == generated,
        "openapi/openapi.json is out of date: run `make openapi` and commit it"
    );
}

/// A route for older clients, which is no part of the API.
const UNDOCUMENTED: [&str; 1] = ["/v1/pictures/{hash}"];

/// The router's paths. axum shows them only in its debug output.
fn paths(router: &axum::Router) -> BTreeSet<String> {
    let text = format!("{router:?}");
    text.split('"').filter(|part| part.starts_with('/')).map(str::to_owned).collect()
}

#[tokio::test]
async fn every_route_is_documented_with_its_methods() {
    let app = App::start().await;
    let document = document();
    let mut documented: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let methods = item.as_object().unwrap().keys().map(|method| method.to_uppercase());
        documented.insert(path, methods.collect());
    }
    let mut found = paths(&app.router);
    // Pages are not documented, and axum shows the fallback.
    found.retain(|path| path.starts_with("/v1/") || documented.contains_key(path.as_str()));
    let known: BTreeSet<String> =
        documented.keys().chain(&UNDOCUMENTED).map(|&path| path.to_owned()).collect();
    assert_eq!(found, known);
    for (path, methods) in documented {
        let uri = path.replace(['{', '}'], "");
        let request = Request::patch(&uri).body(Body::empty()).unwrap();
        let response = app.send(request).await;
        assert_eq!(response.status, 405, "{path}");
        let allowed = response.headers[header::ALLOW].to_str().unwrap();
        let allowed: BTreeSet<String> =
            allowed.split(',').filter(|method| *method != "HEAD").map(str::to_owned).collect();
        assert_eq!(allowed, methods, "{path}");
    }
}

/// Every value of a key, at any depth.
fn values<'a>(key: &str, of: &'a Value) -> Vec<&'a Value> {
    match of {
        Value::Array(items) => items.iter().flat_map(|item| values(key, item)).collect(),
        Value::Object(fields) => {
            let inner = fields.values().flat_map(|field| values(key, field));
            fields.get(key).into_iter().chain(inner).collect()
        }
        _ => Vec::new(),
    }
}

#[test]
fn every_reference_leads_to_a_schema() {
    let document = document();
    let references = values("$ref", &document);
    assert!(references.len() > 100, "{references:?}");
    for reference in references {
        let path = reference.as_str().and_then(|text| text.strip_prefix('#')).unwrap();
        assert!(document.pointer(path).is_some(), "{reference} leads nowhere");
    }
}

#[test]
fn every_operation_has_a_summary_a_tag_and_a_typed_response() {
    let document = document();
    for (name, operation) in operations(&document) {
        assert!(
            operation["summary"].as_str().is_some_and(|text| !text.is_empty()),
            "{name}: no summary"
        );
        assert!(operation["tags"][0].is_string(), "{name}: no tag");
        if operation["responses"]["204"].is_object() {
            continue; // 204: the response has no body
        }
        let response = operation["responses"]["200"]["content"].as_object();
        assert!(
            response.is_some_and(|content| content.values().all(|kind| kind["schema"].is_object())),
            "{name}"
        );
    }
}

#[test]
fn every_operation_has_a_unique_id() {
    let document = document();
    let mut ids: BTreeMap<&str, String> = BTreeMap::new();
    for (name, operation) in operations(&document) {
        let id = operation["operationId"].as_str().unwrap_or_default();
        let is_word =
            |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase());
        assert!(id.split('_').all(is_word), "{name}: {id:?}");
        if let Some(other) = ids.insert(id, name.clone()) {
            panic!("{name} and {other} share the id {id}");
        }
    }
    assert!(ids.len() > 30, "{ids:?}");
}

#[test]
fn every_error_response_is_a_problem_document() {
    let document = document();
    let mut errors = 0;
    for (name, operation) in operations(&document) {
        for (status, response) in operation["responses"].as_object().unwrap() {
            if status.starts_with('4') || status.starts_with('5') {
                errors += 1;
                if name.contains("/rl/") {
                    // In the form of the protocol, and no status that clients repeat for ever.
                    let content = response["content"].as_object().unwrap();
                    assert!(!content.contains_key("application/problem+json"), "{name}: {status}");
                    assert!(content.len() == 1 && !["429", "500"].contains(&&**status), "{name}");
                    continue;
                }
                let schema = &response["content"]["application/problem+json"]["schema"]["$ref"];
                assert_eq!(schema, "#/components/schemas/Problem", "{name}: {status}");
                assert!(!response["description"].as_str().unwrap().is_empty(), "{name}: {status}");
            }
        }
    }
    assert!(errors > 10, "only {errors} error responses are documented");
}

#[test]
fn every_code_is_documented_with_its_status() {
    let document = document();
    let statuses: BTreeSet<_> = operations(&document)
        .into_values()
        .flat_map(|operation| operation["responses"].as_object().unwrap().keys().cloned())
        .collect();
    let codes = &document["components"]["schemas"]["Code"];
    let variants: Vec<&Value> = codes["enum"].as_array().into_iter().flatten().collect();
    let described =
        codes["oneOf"].as_array().into_iter().flatten().map(|variant| &variant["enum"][0]);
    let codes: Vec<Code> = variants
        .into_iter()
        .chain(described)
        .map(|code| {
            serde_json::from_value(code.clone()).unwrap_or_else(|error| panic!("{code}: {error}"))
        })
        .collect();
    assert!(codes.len() > 15, "{codes:?}");
    for code in codes {
        // It belongs to the route, not to an operation.
        if code != Code::MethodNotAllowed {
            assert!(
                statuses.contains(code.status().as_str()),
                "{code:?} has a status that no operation names"
            );
        }
    }
}

#[test]
fn the_form_documents_every_field_that_is_read() {
    let document = document();
    let form = &document["components"]["schemas"]["ScoreForm"]["properties"];
    let fields: BTreeSet<_> = form.as_object().unwrap().keys().map(String::as_str).collect();
    let read = [
        "auxiliary",
        "evidence",
        "image",
        "metadata",
        "method",
        "metrics",
        "name",
        "prompt",
        "reference",
        "run",
    ];
    assert_eq!(fields, BTreeSet::from(read));
    for (name, field) in form.as_object().unwrap() {
        assert!(field.to_string().contains("description"), "{name} is not described");
    }
}
