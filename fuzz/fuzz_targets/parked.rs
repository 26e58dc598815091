//! Hostile keys and values in the store, under sled's own checksums.
#![no_main]

use libfuzzer_sys::fuzz_target;
use packhorse::{
    domain::{Epoch, SourceId, Stream},
    outbox::{OpenOptions, Outbox, StoreError},
};

fuzz_target!(|entries: Vec<(Vec<u8>, Vec<u8>)>| {
    let dir = tempfile::tempdir_in("/dev/shm").expect("memory");
    let options = OpenOptions { destination: "here".into(), source: SourceId(9), epoch: Epoch(7) };
    drop(Outbox::open(dir.path(), &options).expect("a new one"));
    {
        let store = sled::open(dir.path().join("gen-000001")).expect("it was closed");
        for (key, value) in entries.into_iter().take(20).filter(|(_, value)| value.len() < 8_000) {
            // Half of the time a chunk is what it claims to be by its checksum.
            let sealed = [value.as_slice(), &crc32fast::hash(&value).to_le_bytes()].concat();
            let value = if key.len() % 2 == 0 { value } else { sealed };
            store.insert(key, value).expect("memory");
        }
    }
    let outbox = match Outbox::open(dir.path(), &options) {
        Ok(outbox) => outbox,
        Err(error) => {
            assert!(matches!(error, StoreError::Format { .. } | StoreError::Foreign { .. }), "{error}");
            return;
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a thread");
    runtime.block_on(async {
        let _ = outbox.parked(10).await;
        for stream in Stream::ALL {
            let _ = outbox.lease(stream, outbox.snapshot().stream(stream).cursor, 100).await;
            let _ = outbox.oldest(stream).await;
        }
    });
});
