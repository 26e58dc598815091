//! Measures the bulk body's encoder: `cargo nextest run --release --run-ignored all --no-capture encoding_speed`.

use std::{io::Write, time::Instant};

use flate2::{Compression, write::ZlibEncoder};
use packhorse::{
    domain::{Column, Rows, Stream},
    wire::{Manner, bulk_body, write_rows},
};

/// Readings as a gateway makes them: 40 nodes of five sensors, every five minutes and some seconds, slowly drifting values in an order by time.
fn readings(count: usize) -> Rows {
    let mut chance = 42_u64;
    let mut next = move |below: u64| {
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (chance >> 33) % below
    };
    let mut columns: [Vec<Option<i64>>; 4] = Default::default();
    let mut values = Vec::new();
    let mut drift = [18.0_f32; 200];
    for row in 0..count {
        let (round, node, kind) = (row / 200, row % 200 / 5, row % 5);
        let second = 1_357_000_000 + (round * 300 + node * 7) as i64 + (next(3) as i64);
        for (column, value) in
            columns.iter_mut().zip([second * 1_000_000, 800 + node as i64, [0, 2, 6, 8, 10][kind], 1 + node as i64 / 2])
        {
            column.push(Some(value));
        }
        let value = &mut drift[node * 5 + kind];
        *value += (next(2_001) as f32 - 1_000.0) / 7_919.0;
        values.push(Some(*value));
    }
    let [time, node, kind, location] = columns.map(Column::Int);
    Rows::new(Stream::Reading, vec![time, node, kind, location, Column::Float(values)])
}

#[test]
#[ignore = "a measurement"]
fn encoding_speed() {
    let rows = readings(10_000);
    let rounds = 40;
    let per_second = |began: Instant| (rows.len() * rounds) as f64 / began.elapsed().as_secs_f64();
    let began = Instant::now();
    for _ in 0..rounds {
        write_rows(&rows, Manner::Legacy, &mut std::io::sink()).unwrap();
    }
    println!("JSON alone: {:.0} readings/s", per_second(began));
    for level in [1, 2, 3, 4, 5, 6, 9] {
        let began = Instant::now();
        let mut bytes = 0;
        for _ in 0..rounds {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::new(level));
            write_rows(&rows, Manner::Legacy, &mut encoder).unwrap();
            encoder.flush().unwrap();
            bytes = encoder.finish().unwrap().len();
        }
        println!("level {level}: {:.0} readings/s, {:.2} bytes each", per_second(began), bytes as f64 / rows.len() as f64);
    }
    let began = Instant::now();
    let bytes = (0..rounds).map(|_| bulk_body(&rows, Manner::Legacy).unwrap().len()).max().unwrap();
    println!("as shipped: {:.0} readings/s, {:.2} bytes each", per_second(began), bytes as f64 / rows.len() as f64);
}
