//! What the replicator logs, as JSON.

use serde_json::Value;

/// The fields of the lines that say this, in order.
pub fn lines_that_say(log: &str, message: &str) -> Vec<Value> {
    let lines = log.lines().filter(|line| line.contains(message));
    let fields =
        lines.filter_map(|line| Some(serde_json::from_str::<Value>(line).ok()?["fields"].take()));
    fields.filter(|fields| fields["message"] == message).collect()
}

/// A number in a line; 0 where it is not.
pub fn number_in(fields: &Value, name: &str) -> u64 {
    fields[name].as_u64().unwrap_or_default()
}
