//! An operator's discard: wherever the power goes, each row is parked or stands in a whole file.

use std::{collections::BTreeSet, path::Path};

use packhorse::{
    domain::{Column, Epoch, Freshness, Micros, Position, Rows, SourceId, Stream},
    outbox::{
        Captured, OpenOptions, Outbox, Reason, SetAside,
        verbs::{ParkedPlace, ParkedRows},
    },
    queue::{Answers, Beside, Filter, Run, Surroundings, discard::discard},
};

use crate::{
    block_on,
    disk::{Cut, Survives},
    lossy_fs::{Machine, is_available},
    seed,
};

/// In chunks of one: more of them than one commit takes.
const ROWS: i64 = 40;

fn open(life: &Path) -> Outbox {
    Outbox::open(&life.join("here"), &OpenOptions { destination: "here".into(), source: SourceId(9), epoch: Epoch(77) }).unwrap()
}

async fn filled(life: &Path) -> Outbox {
    let outbox = open(life);
    let numbers = |by: i64| Column::Int((0..ROWS).map(|number| Some(number * by)).collect());
    let values = Column::Float((0..ROWS).map(|number| Some(number as f32)).collect());
    let rows = Rows::new(Stream::Reading, vec![numbers(1_000_000), numbers(1), numbers(0), numbers(0), values]);
    let watermark = Position::Key { time: Micros(ROWS * 1_000_000), rest: vec![0, 0] };
    let captured = Captured { rows, watermark, catalog: Vec::new(), freshness: Freshness::New, at: Micros(0) };
    outbox.append(captured).await.unwrap();
    let cursor = outbox.snapshot().stream(Stream::Reading).cursor;
    let batch = outbox.lease(Stream::Reading, cursor, ROWS as usize).await.unwrap().unwrap();
    let aside = |row: usize| SetAside { reason: Reason::Refused(format!("no {row}")), rows: vec![row] };
    outbox.settle(batch, (0..ROWS as usize).map(aside).collect(), None, Micros(0)).await.unwrap();
    outbox
}

/// The node of each row in a file; whatever is there under a name of its own is whole.
fn exported(life: &Path) -> BTreeSet<i64> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(life.join("here/discarded")).into_iter().flatten() {
        let path = entry.unwrap().path();
        assert!(path.extension().is_some_and(|end| end == "jsonl"), "{} is left", path.display());
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.ends_with('\n'), "{} is not whole: {text:?}", path.display());
        for line in text.lines() {
            let row: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(found.insert(row["nodeId"].as_i64().unwrap()), "twice: {row}");
        }
    }
    found
}

async fn parked(outbox: &Outbox) -> BTreeSet<i64> {
    let (chunks, _) = outbox.parked_rows(ParkedPlace::new(), 1_000).await.unwrap();
    let nodes = |chunk: &ParkedRows| (0..chunk.rows.len()).map(|row| chunk.rows.int(1, row).unwrap()).collect::<Vec<_>>();
    chunks.iter().flat_map(nodes).collect()
}

#[test]
fn wherever_the_power_goes_a_discarded_row_stands_in_a_whole_file() {
    if !is_available() {
        return;
    }
    let (mut before, mut between, mut after) = (0, 0, 0);
    let around = Surroundings { beside: &Beside::Nobody, now: Micros(7), disk_reserve_bytes: 0 };
    for (survives, seed) in [(Survives::Nothing, 0), (Survives::Reordered, seed())] {
        for change in 1.. {
            let mut machine = Machine::new();
            let life = machine.boot();
            let done = block_on(async {
                let outbox = filled(life.path()).await;
                machine.arm(Cut::AtChange(change));
                let (answers, mut from) = Answers::channel();
                let read = async { while from.recv().await.is_some() {} };
                let work = async {
                    let done = discard(&outbox, &Filter::default(), Run::Real, around, &answers).await;
                    drop(answers);
                    done.is_ok()
                };
                let (done, ()) = tokio::join!(work, read);
                machine.cut_power();
                done
            });
            drop(life);
            machine.lose_power(survives, seed.wrapping_add(change));
            let life = machine.boot();
            let (left, exported) = block_on(async {
                let outbox = open(life.path());
                assert_eq!(outbox.check_parked().await.unwrap(), Vec::<String>::new());
                (parked(&outbox).await, exported(life.path()))
            });
            let all: BTreeSet<i64> = (0..ROWS).collect();
            assert_eq!(left.union(&exported).copied().collect::<BTreeSet<_>>(), all, "lost at change {change}, {survives:?}");
            match left.len() as i64 {
                ROWS => before += 1,
                0 => after += 1,
                _ => between += 1,
            }
            if done {
                assert!(left.is_empty(), "told and not done: {left:?}");
                break;
            }
        }
    }
    println!(
        "discard: the power went {before} times before any row was dropped, {between} times between, {after} times after all were"
    );
    assert!(before > 0 && between > 0 && after > 0);
}
