//! Edits to the files of a filled outbox: it opens as it was or is rebuilt, and opens again.
#![no_main]

use std::{path::Path, sync::OnceLock};

use libfuzzer_sys::fuzz_target;
use packhorse::{
    domain::{Column, Epoch, Freshness, Micros, Position, Rows, SourceId, Stream},
    outbox::{Captured, OpenOptions, Outbox, Reason, SetAside, StoreError},
};

fn options(epoch: u64) -> OpenOptions {
    OpenOptions { destination: "here".into(), source: SourceId(9), epoch: Epoch(epoch) }
}

/// The files of an outbox with rows that wait, held and refused ones.
fn template() -> &'static Vec<(String, Vec<u8>)> {
    static FILES: OnceLock<Vec<(String, Vec<u8>)>> = OnceLock::new();
    FILES.get_or_init(|| {
        let dir = tempfile::tempdir_in("/dev/shm").expect("memory");
        let outbox = Outbox::open(dir.path(), &options(1)).expect("a new one");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a thread");
        runtime.block_on(async {
            let int = |from: i64| Column::Int((from..from + 500).map(Some).collect());
            let values = Column::Float((0..500).map(|value| Some(value as f32)).collect());
            let rows = Rows::new(Stream::Reading, vec![int(0), int(7), int(9), int(5), values]);
            let watermark = Position::Key { time: Micros(500), rest: vec![0, 0] };
            let captured = Captured { rows, watermark, catalog: Vec::new(), freshness: Freshness::New, at: Micros(0) };
            outbox.append(captured).await.expect("memory");
            let cursor = outbox.snapshot().stream(Stream::Reading).cursor;
            let batch = outbox.lease(Stream::Reading, cursor, 300).await.expect("memory").expect("rows");
            let aside = vec![SetAside { reason: Reason::Refused("no".into()), rows: vec![4, 5, 6] }];
            outbox.settle(batch, aside, None, Micros(1)).await.expect("memory");
        });
        drop(outbox);
        let mut files = Vec::new();
        for folder in ["", "gen-000001"] {
            for entry in std::fs::read_dir(dir.path().join(folder)).expect("memory").flatten().filter(|entry| entry.path().is_file()) {
                let name = Path::new(folder).join(entry.file_name()).to_string_lossy().into_owned();
                files.push((name, std::fs::read(entry.path()).expect("memory")));
            }
        }
        files.sort();
        files
    })
}

fuzz_target!(|edits: Vec<(u8, u32, Vec<u8>)>| {
    let mut files = template().clone();
    for (file, at, bytes) in edits.into_iter().take(8) {
        let count = files.len();
        let content = &mut files[usize::from(file) % count].1;
        if bytes.is_empty() {
            content.truncate(at as usize % (content.len() + 1));
        } else if !content.is_empty() {
            let at = at as usize % content.len();
            let end = content.len().min(at + bytes.len());
            content[at..end].copy_from_slice(&bytes[..end - at]);
        }
    }
    let dir = tempfile::tempdir_in("/dev/shm").expect("memory");
    std::fs::create_dir(dir.path().join("gen-000001")).expect("memory");
    for (name, content) in files {
        std::fs::write(dir.path().join(name), content).expect("memory");
    }
    let first = match Outbox::open(dir.path(), &options(2)) {
        Ok(outbox) => outbox.snapshot(),
        Err(error) => {
            assert!(matches!(error, StoreError::Format { .. } | StoreError::Foreign { .. }), "{error}");
            return;
        }
    };
    let again = Outbox::open(dir.path(), &options(3)).expect("it opened before").snapshot();
    assert_eq!((first.meta, first.streams), (again.meta, again.streams));
});
