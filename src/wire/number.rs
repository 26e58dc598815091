//! Numbers in their shortest decimal form that reads back to the same bits.
//!
//! The one rule: a FLOAT is never widened before it is written; `0.1` must not become `0.10000000149011612`.

use serde_json::Value;

/// A FLOAT as a JSON value that prints in f32's shortest form; null where JSON has no form for it.
pub fn json_f32(value: Option<f32>) -> Value {
    value.and_then(|value| serde_json::to_string(&value).ok()).map_or(Value::Null, |text| parse(&text))
}

/// A DOUBLE as a JSON value; null where JSON has no form for it.
pub fn json_f64(value: Option<f64>) -> Value {
    value.map_or(Value::Null, Value::from)
}

/// The shortest f32 form has at most nine digits, and the f64 nearest to it prints with the same digits.
fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or(Value::Null)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_float_is_written_in_its_shortest_form() {
        for (value, text) in
            [(0.1, "0.1"), (16_777_216.0, "16777216.0"), (18.04, "18.04"), (-0.0, "-0.0"), (55.1235, "55.1235"), (1e-7, "1e-7")]
        {
            assert_eq!(json_f32(Some(value)).to_string(), text);
        }
        assert_eq!(json_f32(Some(f32::NAN)), Value::Null);
        assert_eq!(json_f32(None), Value::Null);
    }

    proptest! {
        #[test]
        fn every_float_reads_back_to_its_bits_as_f32_and_through_f64(bits: u32) {
            let value = f32::from_bits(bits);
            prop_assume!(value.is_finite());
            let text = json_f32(Some(value)).to_string();
            prop_assert_eq!(text.parse::<f32>().unwrap().to_bits(), bits);
            prop_assert_eq!((text.parse::<f64>().unwrap() as f32).to_bits(), bits);
        }
    }
}
