//! The chunk decoder: an error, or rows that encode to a chunk with the same rows.
#![no_main]

use libfuzzer_sys::fuzz_target;
use packhorse::codec::{self, CHUNK_BYTES_MAX, Run};

fuzz_target!(|content: &[u8]| {
    let _ = codec::decode(content);
    // Under a right checksum the rest is reached.
    let sealed = [content, &crc32fast::hash(content).to_le_bytes()].concat();
    let Ok((header, rows)) = codec::decode(&sealed) else { return };
    assert_eq!(codec::peek(&sealed).ok(), Some(header));
    assert_eq!(rows.len(), header.count as usize);
    let run = Run {
        epoch: header.epoch,
        generation: header.generation,
        first: header.first,
        captured_at: header.captured_at,
        freshness: header.freshness,
    };
    let mut at = 0;
    for chunk in codec::encode(&run, &rows, CHUNK_BYTES_MAX) {
        let (again, part) = codec::decode(&chunk.bytes).expect("what was encoded decodes");
        let end = at + again.count as usize;
        // Bit for bit: NaN is not equal to itself.
        assert_eq!(format!("{part:?}"), format!("{:?}", rows.slice(at, end)));
        at = end;
    }
    assert_eq!(at, rows.len());
});
