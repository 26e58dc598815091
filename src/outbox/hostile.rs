//! Hostile bytes in every place from which the outbox reads: an error or a value, never a panic, never more memory than they are worth.

use proptest::{collection::vec, prelude::*};

use super::{
    format::{self, Intent, Meta, Notes, Parked, Reason, StreamState},
    parked,
    sidecar::Sidecar,
    store::{Change, Store},
    *,
};
use crate::domain::{EntityKind, SourceId};

fn options() -> OpenOptions {
    OpenOptions { destination: "here".into(), source: SourceId(9), epoch: Epoch(77) }
}

/// Bytes that are often almost a parked value.
fn values() -> impl Strategy<Value = Vec<u8>> {
    let almost = (vec(any::<u8>(), 0..40), 0_usize..200, any::<u8>()).prop_map(|(tail, at, byte)| {
        let reason = Reason::Held(LocalRef { kind: EntityKind::House, id: LocalId(4) });
        let mut value = format::to_bytes(&Parked { stream: Stream::Reading, count: 3, at: Micros(5), reason });
        value.extend(tail);
        if let Some(there) = value.get_mut(at) {
            *there = byte;
        }
        value
    });
    prop_oneof![vec(any::<u8>(), 0..300), almost]
}

proptest! {
    #[test]
    fn values_of_the_store_decode_or_not(bytes in values()) {
        let _ = format::from_bytes::<Meta>(&bytes);
        let _ = format::from_bytes::<StreamState>(&bytes);
        let _ = format::from_bytes::<Notes>(&bytes);
        let _ = format::from_bytes::<Intent>(&bytes);
        let _ = format::from_bytes::<Entity<LocalId>>(&bytes);
        if let Some((parked, used)) = format::from_bytes::<Parked>(&bytes) {
            prop_assert!(used <= bytes.len());
            let _ = codec::decode(&bytes[used..]);
            drop(parked);
        }
        let _ = format::parse_entity_key(&bytes);
        let _ = format::first_of_chunk_key(&bytes);
        let _ = format::number_of_parked_key(&bytes);
    }

    #[test]
    fn a_sidecar_under_a_right_checksum_decodes_or_not(content in vec(any::<u8>(), 0..400)) {
        let _ = Sidecar::decode(&Sidecar::sealed(&content));
        let _ = Sidecar::decode(&content);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// In the store itself, under sled's own checksums: a defect of ours, so to say.
    #[test]
    fn a_store_with_a_hostile_value_opens_with_it_or_is_rebuilt(key in 0_usize..8, value in values()) {
        let dir = tempfile::tempdir().unwrap();
        drop(Outbox::open(dir.path(), &options()).unwrap());
        let held = [format::held_prefix(LocalRef { kind: EntityKind::House, id: LocalId(4) }), 3_u64.to_be_bytes().to_vec()].concat();
        let intent = format::intent_key(Stream::Reading);
        let keys: [&[u8]; 8] = [
            format::META, format::NOTES, &intent, format::CREATE_INTENT, b"r\0\0\0\0\0\0\0\x07", &held, b"s\0",
            b"c\0\0\0\0\0\0\0\0\0",
        ];
        {
            let store = Store::open(&dir.path().join("gen-000001")).unwrap();
            let mut change = Change::default();
            change.put(keys[key], value);
            store.commit(change).unwrap();
        }
        match Outbox::open(dir.path(), &OpenOptions { epoch: Epoch(78), ..options() }) {
            Ok(outbox) => {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                // What is held or refused may turn out not to decode only when it is looked at.
                let _ = runtime.block_on(outbox.parked(10));
            }
            Err(error) => prop_assert!(matches!(error, StoreError::Format { .. } | StoreError::Foreign { .. }), "{error}"),
        }
    }
}

#[test]
fn a_parked_value_that_is_none_is_an_error_with_the_place() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let error = parked::split(&store, &[255; 30]).unwrap_err();
    assert!(error.to_string().contains("a parked value does not decode"), "{error}");
}
