//! What a gateway says of itself now and then.
//!
//! The one rule: legacy servers are told host name, version and clock, and nothing else.

use serde_json::{Map, Value, json};

use super::WireError;
use crate::ports::{PushStatus, Summary};

/// Key in a status report, packhorse receivers only: the gateway's figures.
pub const SUMMARY_KEY: &str = "packhorse";

/// A status report as the object to post.
pub fn push_status_to_json(status: &PushStatus) -> Value {
    json!({
        "hostname": status.hostname,
        "version": status.version,
        "localtime": status.localtime.to_string(),
    })
}

/// A status report with figures, for a packhorse receiver.
pub fn push_summary_to_json(status: &PushStatus, summary: &Summary) -> Value {
    let mut object = push_status_to_json(status);
    object[SUMMARY_KEY] = json!({
        "depth": summary.depth,
        "parked": summary.parked,
        "lag_seconds": summary.lag_seconds,
        "oldest_age_seconds": summary.oldest_age_seconds,
    });
    object
}

/// The figures in a status report; `None` when there are none.
///
/// # Errors
/// When there are some that are no figures.
pub fn summary_from_json(object: &Map<String, Value>) -> Result<Option<Summary>, WireError> {
    let Some(figures) = object.get(SUMMARY_KEY).filter(|figures| !figures.is_null()) else { return Ok(None) };
    let figure = |key: &str| match figures.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value.as_u64().map(Some).ok_or_else(|| WireError::Shape(format!("{SUMMARY_KEY}.{key} is no figure"))),
    };
    let needed = |key: &str| figure(key)?.ok_or_else(|| WireError::Shape(format!("{SUMMARY_KEY}.{key} is missing")));
    Ok(Some(Summary {
        depth: needed("depth")?,
        parked: needed("parked")?,
        lag_seconds: figure("lag_seconds")?,
        oldest_age_seconds: figure("oldest_age_seconds")?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Micros;

    #[test]
    fn figures_read_back_and_a_report_without_them_has_none() {
        let status = PushStatus { hostname: "house-17".into(), version: "1".into(), localtime: Micros(0) };
        let read = |json: &Value| summary_from_json(json.as_object().unwrap());
        assert!(matches!(read(&push_status_to_json(&status)), Ok(None)));
        for lag_seconds in [None, Some(5)] {
            let summary = Summary { depth: 7, parked: 0, lag_seconds, oldest_age_seconds: Some(u64::MAX) };
            assert_eq!(read(&push_summary_to_json(&status, &summary)).unwrap(), Some(summary));
        }
        for bad in [json!({"packhorse": 5}), json!({"packhorse": {"depth": -1, "parked": 0}}), json!({"packhorse": {"depth": 1}})]
        {
            assert!(read(&bad).is_err(), "{bad}");
        }
    }
}
