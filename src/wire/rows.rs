//! Rows as the bulk call's JSON list, straight into zlib, for any stream by its description.
//!
//! The one rule: a value that JSON cannot say is an error that names the row, never a null and never a neighbouring value (I8).

use std::io::{self, Write};

use flate2::{Compression, write::ZlibEncoder};

use super::{LOCAL_ID_KEY, TABLE_KEY, TimeWriter, WireError};
use crate::domain::{Column, ColumnKind, Micros, Rows};

/// JSON is handed to the output in pieces of about this many bytes.
const PIECE_BYTES: usize = 32 * 1024;

/// zlib's effort. Of 10,000 drifting readings level 1 makes 16.4 bytes each at 3.2 million/s, level 6 makes 8.8 at 1.1 million/s; level 9
/// is no smaller. Links are dearer than processors here. `tests/wire_speed.rs` measures it.
const LEVEL: u32 = 6;

/// Whom rows are written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Any server of the contract.
    Legacy,
    /// A server that has shown itself to be a packhorse receiver: rows with an id carry it as `localId`.
    Packhorse,
}

/// The places of rows that no JSON can say: NaN, infinity, or a time outside of the years 1 to 9999. In ascending order.
pub fn unsendable(rows: &Rows) -> Vec<usize> {
    (0..rows.len()).filter(|row| rows.beyond_json(*row).is_some()).collect()
}

/// Writes rows as one JSON list.
///
/// # Errors
/// [`WireError::Unsendable`] for the first row that JSON cannot say; what was written before it is of no use.
pub fn write_rows(rows: &Rows, manner: Manner, out: &mut impl Write) -> Result<(), WireError> {
    let spec = rows.stream().spec();
    let open = format!("{{\"{TABLE_KEY}\":\"{}\"", spec.table);
    let keys: Vec<String> = spec.columns.iter().map(|column| format!(",\"{}\":", column.name)).collect();
    let local_id_key = format!(",\"{LOCAL_ID_KEY}\":");
    let mut times = TimeWriter::default();
    let mut piece = Vec::with_capacity(PIECE_BYTES + 1024);
    piece.push(b'[');
    for row in 0..rows.len() {
        if row > 0 {
            piece.push(b',');
        }
        piece.extend_from_slice(open.as_bytes());
        for (place, column) in rows.columns().iter().enumerate() {
            piece.extend_from_slice(keys[place].as_bytes());
            if spec.row_id == Some(place) {
                // The id numbers rows of the gateway's table; the server gives its own.
                piece.extend_from_slice(b"null");
                if manner == Manner::Packhorse
                    && let Some(id) = rows.int(place, row)
                {
                    piece.extend_from_slice(local_id_key.as_bytes());
                    write!(piece, "{id}")?;
                }
                continue;
            }
            let written = match column {
                Column::Int(values) => match (values[row], spec.columns[place].kind) {
                    (None, _) => write_null(&mut piece),
                    (Some(time), ColumnKind::Time) => {
                        piece.push(b'"');
                        let written = times.write(Micros(time), &mut piece);
                        piece.push(b'"');
                        written
                    }
                    (Some(number), ColumnKind::Int | ColumnKind::Number) => {
                        write!(piece, "{number}")?;
                        true
                    }
                },
                Column::Float(values) => match values[row] {
                    None => write_null(&mut piece),
                    Some(value) => value.is_finite() && serde_json::to_writer(&mut piece, &value).is_ok(),
                },
                Column::Double(values) => match values[row] {
                    None => write_null(&mut piece),
                    Some(value) => value.is_finite() && serde_json::to_writer(&mut piece, &value).is_ok(),
                },
            };
            if !written {
                return Err(WireError::Unsendable { row, column: spec.columns[place].name, value: shown(column, row) });
            }
        }
        piece.push(b'}');
        if piece.len() >= PIECE_BYTES {
            out.write_all(&piece)?;
            piece.clear();
        }
    }
    piece.push(b']');
    out.write_all(&piece)?;
    Ok(())
}

fn write_null(piece: &mut Vec<u8>) -> bool {
    piece.extend_from_slice(b"null");
    true
}

fn shown(column: &Column, row: usize) -> String {
    match column {
        Column::Int(values) => format!("{} us", values[row].unwrap_or_default()),
        Column::Float(values) => values[row].unwrap_or_default().to_string(),
        Column::Double(values) => values[row].unwrap_or_default().to_string(),
    }
}

/// The body of a bulk request: the zlib stream of [`write_rows`].
///
/// # Errors
/// As [`write_rows`].
pub fn bulk_body(rows: &Rows, manner: Manner) -> Result<Vec<u8>, WireError> {
    let mut encoder = ZlibEncoder::new(Vec::with_capacity(64 + rows.len() * 8), Compression::new(LEVEL));
    write_rows(rows, manner, &mut encoder)?;
    Ok(encoder.finish()?)
}

/// The zlib stream of bytes that are JSON already.
///
/// # Errors
/// None with an output in memory, but the encoder's signature has one.
pub fn deflate(json: &[u8]) -> Result<Vec<u8>, io::Error> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::new(LEVEL));
    encoder.write_all(json)?;
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use serde_json::{Value, json};

    use super::*;
    use crate::domain::Stream;

    fn reading(values: Column) -> Rows {
        let ints = |value| Column::Int(vec![value; values.len()]);
        let columns = vec![ints(Some(1_356_998_700_000_000)), ints(Some(837)), ints(Some(0)), ints(Some(1)), values];
        Rows::new(Stream::Reading, columns)
    }

    fn text(rows: &Rows, manner: Manner) -> String {
        let mut out = Vec::new();
        write_rows(rows, manner, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_reading_is_written_as_the_contract_shows_it() {
        assert_eq!(
            text(&reading(Column::Float(vec![Some(18.04)])), Manner::Legacy),
            r#"[{"__table__":"Reading","time":"2013-01-01T00:05:00","nodeId":837,"type":0,"locationId":1,"value":18.04}]"#
        );
    }

    fn node_state() -> Rows {
        let one = |value| Column::Int(vec![value]);
        let columns =
            vec![one(Some(77)), one(None), one(Some(11)), one(None), one(Some(123_456_789_012)), one(Some(0)), one(Some(-70))];
        Rows::new(Stream::NodeState, columns)
    }

    #[test]
    fn a_node_state_leaves_its_id_to_the_server_and_tells_only_a_packhorse_what_it_was() {
        let legacy = json!([{"__table__": "NodeState", "id": null, "time": null, "nodeId": 11, "parent": null,
            "localtime": 123_456_789_012_i64, "seq_num": 0, "rssi": -70}]);
        let mut ours = legacy.clone();
        ours[0][LOCAL_ID_KEY] = json!(77);
        assert_eq!(serde_json::from_str::<Value>(&text(&node_state(), Manner::Legacy)).unwrap(), legacy);
        assert_eq!(serde_json::from_str::<Value>(&text(&node_state(), Manner::Packhorse)).unwrap(), ours);
        let without = node_state().with_ints(0, vec![None]);
        assert_eq!(serde_json::from_str::<Value>(&text(&without, Manner::Packhorse)).unwrap(), legacy);
    }

    #[test]
    fn numbers_keep_their_bits_at_their_own_width() {
        let floats = [16_777_216.0, 0.1, 1e-7, 3.402_823_5e38, -0.0, 1e-45, 123_457.0];
        let json: Vec<Value> =
            serde_json::from_str(&text(&reading(Column::Float(floats.map(Some).to_vec())), Manner::Legacy)).unwrap();
        for (row, value) in json.iter().zip(floats) {
            assert_eq!(row["value"].to_string().parse::<f32>().unwrap().to_bits(), value.to_bits());
        }
        assert!(text(&reading(Column::Float(vec![Some(0.1)])), Manner::Legacy).contains("\"value\":0.1}"));
        let doubles = [0.1, f64::MIN_POSITIVE, f64::MAX, -0.0, 0.1 + 0.2];
        let json: Vec<Value> =
            serde_json::from_str(&text(&reading(Column::Double(doubles.map(Some).to_vec())), Manner::Legacy)).unwrap();
        for (row, value) in json.iter().zip(doubles) {
            assert_eq!(row["value"].as_f64().unwrap().to_bits(), value.to_bits());
        }
    }

    #[test]
    fn a_value_without_a_json_form_is_an_error_that_names_its_row() {
        let rows = reading(Column::Float(vec![Some(1.0), None, Some(f32::NAN), Some(f32::NEG_INFINITY)]));
        assert_eq!(unsendable(&rows), [2, 3]);
        let failed = write_rows(&rows, Manner::Legacy, &mut Vec::new()).unwrap_err();
        assert!(matches!(failed, WireError::Unsendable { row: 2, column: "value", .. }), "{failed}");
        let late = reading(Column::Double(vec![Some(f64::INFINITY), Some(1.0)])).with_ints(0, vec![Some(0), Some(i64::MAX)]);
        assert_eq!(unsendable(&late), [0, 1]);
        assert!(matches!(
            bulk_body(&late.slice(1, 2), Manner::Legacy),
            Err(WireError::Unsendable { row: 0, column: "time", .. })
        ));
    }

    #[test]
    fn a_body_of_many_pieces_is_one_zlib_stream_of_one_list() {
        let rows = reading(Column::Float((0..5_000_u16).map(|value| Some(f32::from(value) / 8.0)).collect()));
        let mut json = String::new();
        flate2::read::ZlibDecoder::new(&*bulk_body(&rows, Manner::Legacy).unwrap()).read_to_string(&mut json).unwrap();
        assert_eq!(json, text(&rows, Manner::Legacy));
        assert_eq!(serde_json::from_str::<Vec<Value>>(&json).unwrap().len(), 5_000);
        assert_eq!(text(&Rows::empty(Stream::Reading), Manner::Legacy), "[]");
    }
}
