//! Comparison of two benchmark results, of two versions of the program or two machines.

use std::collections::BTreeMap;

use serde_json::Value;

/// Keys that identify an entry of a list in a result. Its index is not stable, since graphs are
/// added and removed.
const NAMES: [&str; 3] = ["graph", "batch", "round"];

/// A number that both results have.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Path of the number, such as `graphs.clip.image.batches.4.milliseconds`.
    pub of: String,
    /// Value in the earlier result.
    pub before: f64,
    /// Value in the current result.
    pub now: f64,
}

impl Change {
    /// Returns `now / before`; `None` if `before` is 0.
    #[must_use]
    pub fn ratio(&self) -> Option<f64> {
        (self.before != 0.0).then(|| self.now / self.before)
    }
}

/// Returns the numbers that both results have, in order of their paths.
#[must_use]
pub fn compare(before: &Value, now: &Value) -> Vec<Change> {
    let (before, now) = (numbers(before), numbers(now));
    let both = before.into_iter().filter_map(|(of, before)| {
        let now = *now.get(&of)?;
        Some(Change { of, before, now })
    });
    both.collect()
}

fn numbers(result: &Value) -> BTreeMap<String, f64> {
    let mut found = BTreeMap::new();
    collect(result, String::new(), &mut found);
    found
}

fn collect(value: &Value, of: String, found: &mut BTreeMap<String, f64>) {
    let below = |name: &str| if of.is_empty() { name.to_owned() } else { format!("{of}.{name}") };
    match value {
        Value::Number(number) => {
            found.extend(number.as_f64().map(|number| (of, number)));
        }
        Value::Array(entries) => {
            for (at, entry) in entries.iter().enumerate() {
                collect(entry, below(&name_of(entry).unwrap_or_else(|| at.to_string())), found);
            }
        }
        Value::Object(fields) => {
            for (name, field) in fields {
                collect(field, below(name), found);
            }
        }
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

fn name_of(entry: &Value) -> Option<String> {
    NAMES.iter().find_map(|name| match entry.get(name)? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_are_compared_by_name_and_not_by_index() {
        let before = json!({"samples_a_second": 2.0, "gone": 1, "graphs": [
            {"graph": "a", "batches": [{"batch": 1, "milliseconds": 4.0}]}, {"graph": "b", "load_seconds": 0}]});
        let now = json!({"samples_a_second": 3.0, "new": 1, "graphs": [
            {"graph": "b", "load_seconds": 1}, {"graph": "a", "batches": [{"batch": 1, "milliseconds": 2.0}]}]});
        let found = compare(&before, &now);
        let shown: Vec<_> = found.iter().map(|of| (of.of.as_str(), of.ratio())).collect();
        assert_eq!(
            shown,
            [
                ("graphs.a.batches.1.batch", Some(1.0)),
                ("graphs.a.batches.1.milliseconds", Some(0.5)),
                ("graphs.b.load_seconds", None),
                ("samples_a_second", Some(1.5)),
            ]
        );
    }
}
