//! Responses as snapshots (`tests/http/snapshots/`). `INSTA_UPDATE=always` rewrites them.

use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

/// Returns a response without what differs between two runs or machines: ids, times, hashes,
/// durations, the version, and digits beyond the ninth.
pub(crate) fn stable(mut response: Value) -> String {
    redact(&mut response);
    serde_json::to_string_pretty(&response).expect("JSON")
}

fn redact(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(redact),
        Value::Object(fields) => {
            for (key, field) in fields {
                if key.ends_with("_ms") { *field = "[ms]".into() } else { redact(field) }
            }
        }
        Value::String(text) => {
            let is_hash = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            if Uuid::parse_str(text).is_ok() {
                "[id]".clone_into(text);
            } else if OffsetDateTime::parse(text, &Rfc3339).is_ok() {
                "[time]".clone_into(text);
            } else if text == env!("CARGO_PKG_VERSION") {
                "[version]".clone_into(text);
            } else if is_hash {
                "[hash]".clone_into(text);
            }
        }
        Value::Number(number) if number.is_f64() => {
            let rounded = format!("{:.9}", number.as_f64().expect("a float"));
            *value = rounded.parse::<f64>().expect("digits").into();
        }
        _ => {}
    }
}
