//! Starts of specs that nobody sent on purpose. [`bend`] changes a good spec where the schema says that something stands;
//! what must come of it is said once more here, from the promises in README and `boltseal explain`, without a line of the code that
//! decides: [`demands`] knows which requests must never be allowed, [`sealed`] what a sealed spec may ever hold, [`running`] what the
//! kernel must show of the process.
pub mod bend;
pub mod demands;
mod fields;
mod grant;
pub mod running;
pub mod sealed;

pub use grant::Grant;

use serde_json::Value;

/// What is there: null is absent, as for every reader.
fn at<'a>(value: &'a Value, way: &str) -> Option<&'a Value> {
    let mut value = value;
    for key in way.split('.') {
        value = value.get(key)?;
    }
    Some(value).filter(|value| !value.is_null())
}

fn list<'a>(value: &'a Value, way: &str) -> &'a [Value] {
    at(value, way).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn text<'a>(value: &'a Value, way: &str) -> &'a str {
    at(value, way).and_then(Value::as_str).unwrap_or_default()
}

fn words<'a>(value: &'a Value, way: &str) -> Vec<&'a str> {
    list(value, way).iter().filter_map(Value::as_str).collect()
}

fn members<'a>(value: &'a Value, way: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    at(value, way).and_then(Value::as_object).into_iter().flatten().filter(|(_, value)| !value.is_null())
}

/// `path` is `base` or below it.
fn within(path: &str, base: &str) -> bool {
    path == base || path.strip_prefix(base).is_some_and(|rest| rest.starts_with('/') || base == "/")
}
