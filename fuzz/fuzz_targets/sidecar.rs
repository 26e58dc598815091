//! An outbox beside a hostile sidecar under a right checksum: it opens, or says whose it is.
#![no_main]

use libfuzzer_sys::fuzz_target;
use packhorse::{
    domain::{Epoch, SourceId},
    outbox::{OpenOptions, Outbox, StoreError},
};

fuzz_target!(|content: &[u8]| {
    let dir = tempfile::tempdir_in("/dev/shm").expect("memory");
    let mut sidecar = [b"PS\x02", content].concat();
    sidecar.extend(crc32fast::hash(&sidecar).to_le_bytes());
    std::fs::write(dir.path().join("sidecar"), sidecar).expect("memory");
    let options = OpenOptions { destination: "here".into(), source: SourceId(9), epoch: Epoch(7) };
    for _ in 0..2 {
        match Outbox::open(dir.path(), &options) {
            Ok(outbox) => assert_eq!(outbox.snapshot().meta.epoch, Epoch(7)),
            Err(error) => assert!(matches!(error, StoreError::Foreign { .. }), "{error}"),
        }
    }
});
