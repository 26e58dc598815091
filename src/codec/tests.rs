use proptest::prelude::*;

use super::*;
use crate::domain::Column;

const RUN: Run =
    Run { epoch: Epoch(7), generation: Generation(1), first: Seq(1_000), captured_at: Micros(5), freshness: Freshness::Repeat };

fn ints() -> impl Strategy<Value = Option<i64>> {
    prop_oneof![Just(None), any::<i64>().prop_map(Some), (-300_i64..300).prop_map(Some)]
}

type Row = (Option<i64>, Option<i64>, Option<i64>, Option<i64>, Option<u32>);

/// Any bits: NaNs of every pattern, both zeros, subnormals.
fn readings() -> impl Strategy<Value = Rows> {
    let row = (ints(), ints(), ints(), ints(), proptest::option::of(any::<u32>()));
    proptest::collection::vec(row, 1..300).prop_map(|rows| {
        let int = |pick: fn(&Row) -> Option<i64>| Column::Int(rows.iter().map(pick).collect());
        let value = Column::Float(rows.iter().map(|row| row.4.map(f32::from_bits)).collect());
        Rows::new(Stream::Reading, vec![int(|row| row.0), int(|row| row.1), int(|row| row.2), int(|row| row.3), value])
    })
}

fn joined(chunks: &[Chunk]) -> Rows {
    let mut all = Rows::empty(chunks[0].header.stream);
    for chunk in chunks {
        let (header, rows) = decode(&chunk.bytes).unwrap();
        assert_eq!((header, rows.len()), (chunk.header, chunk.header.count as usize));
        all.extend(rows);
    }
    all
}

fn even_readings(count: usize) -> Rows {
    let int = |value: fn(i64) -> i64| Column::Int((0..count as i64).map(|row| Some(value(row))).collect());
    let values = Column::Double((0..count).map(|row| Some((row as f64).sin() * 20.0)).collect());
    Rows::new(
        Stream::Reading,
        vec![int(|row| row * 1_000_000), int(|row| row % 7), int(|row| row % 5), Column::Int(vec![None; count]), values],
    )
}

proptest! {
    #[test]
    fn what_is_decoded_is_what_was_encoded(rows in readings(), bytes_max in 512_usize..8_000) {
        let chunks = encode(&RUN, &rows, bytes_max);
        prop_assert!(chunks.iter().all(|chunk| chunk.bytes.len() <= bytes_max));
        prop_assert_eq!(joined(&chunks), rows);
    }

    #[test]
    fn seqs_of_consecutive_chunks_are_dense(rows in readings()) {
        let chunks = encode(&RUN, &rows, 600);
        let mut next = RUN.first;
        for chunk in &chunks {
            prop_assert_eq!(chunk.header.first, next);
            next = chunk.header.end();
        }
        prop_assert_eq!(next, RUN.first.plus(rows.len() as u64));
    }

    #[test]
    fn a_flipped_bit_is_noticed(rows in readings(), at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let mut bytes = encode(&RUN, &rows, CHUNK_BYTES_MAX).remove(0).bytes;
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(decode(&bytes).is_err());
    }

    #[test]
    fn a_cut_is_noticed(rows in readings(), at in any::<prop::sample::Index>()) {
        let bytes = encode(&RUN, &rows, CHUNK_BYTES_MAX).remove(0).bytes;
        prop_assert!(decode(&bytes[..at.index(bytes.len())]).is_err());
    }

    #[test]
    fn hostile_content_under_a_right_checksum_is_an_error_or_rows(content in proptest::collection::vec(any::<u8>(), 0..400), version in 0_u8..3) {
        let mut bytes = [MAGIC.as_slice(), &[version], &content].concat();
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        let _ = decode(&bytes);
        let _ = decode(&content);
    }

    #[test]
    fn a_hostile_body_is_an_error_or_rows(body in proptest::collection::vec(any::<u8>(), 0..200), count in 0_u32..5_000, body_bytes in 0_u32..2_000_000) {
        let header = Header { stream: 1, epoch: 1, generation: 0, first: u64::MAX - 4_000, count, captured_at: 0, freshness: Freshness::New, lowest: 0, body_bytes };
        let mut bytes = [MAGIC.as_slice(), &[VERSION]].concat();
        bytes.extend(bincode::serde::encode_to_vec(&header, bincode::config::standard()).unwrap());
        deflate(&mut Compress::new(LEVEL, false), &body, &mut bytes);
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        let _ = decode(&bytes);
    }
}

#[test]
fn doubles_and_extremes_come_back() {
    let rows = Rows::new(
        Stream::Reading,
        vec![
            Column::Int(vec![Some(i64::MIN), Some(i64::MAX), Some(0)]),
            Column::Int(vec![None, Some(i64::MIN), None]),
            Column::Int(vec![Some(-1), None, Some(i64::MAX)]),
            Column::Int(vec![None; 3]),
            Column::Double(vec![Some(f64::from_bits(0x7ff8_dead_beef_0001)), None, Some(-0.0)]),
        ],
    );
    assert_eq!(joined(&encode(&RUN, &rows, CHUNK_BYTES_MAX)), rows);
}

#[test]
fn chunks_are_well_filled() {
    let rows = even_readings(20_000);
    let chunks = encode(&RUN, &rows, CHUNK_BYTES_MAX);
    let full = chunks.iter().filter(|chunk| chunk.bytes.len() > CHUNK_BYTES_MAX * 3 / 4).count();
    assert!(full + 2 >= chunks.len(), "{:?}", chunks.iter().map(|chunk| chunk.bytes.len()).collect::<Vec<_>>());
    assert_eq!(joined(&chunks), rows);
}

#[test]
fn another_version_is_told_by_its_number() {
    let mut bytes = encode(&RUN, &even_readings(3), CHUNK_BYTES_MAX).remove(0).bytes;
    bytes[2] = 9;
    let end = bytes.len() - CHECKSUM_BYTES;
    let checksum = crc32fast::hash(&bytes[..end]).to_le_bytes();
    bytes[end..].copy_from_slice(&checksum);
    assert_eq!(decode(&bytes), Err(CodecError::Version(9)));
}
