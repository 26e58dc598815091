//! One column of a chunk's body.
//!
//! The one rule: the decoder trusts no byte; it ends with an error rather than read beyond what is there or allocate what is not.

use std::ops::Range;

use super::CodecError;
use crate::domain::{Column, ColumnKind};

const INT: u8 = 0;
const FLOAT: u8 = 1;
const DOUBLE: u8 = 2;

const NO_NULL: u8 = 0;
const ALL_NULL: u8 = 1;
const SOME_NULL: u8 = 2;

pub(super) fn encode(column: &Column, range: Range<usize>, into: &mut Vec<u8>) {
    match column {
        Column::Int(values) => {
            into.push(INT);
            let values = &values[range];
            nulls(values, into);
            let mut last = 0_i64;
            for value in values.iter().flatten() {
                varint(zigzag(value.wrapping_sub(last)), into);
                last = *value;
            }
        }
        Column::Float(values) => {
            into.push(FLOAT);
            let values = &values[range];
            nulls(values, into);
            planes(&values.iter().flatten().map(|value| value.to_bits().to_le_bytes()).collect::<Vec<_>>(), into);
        }
        Column::Double(values) => {
            into.push(DOUBLE);
            let values = &values[range];
            nulls(values, into);
            planes(&values.iter().flatten().map(|value| value.to_bits().to_le_bytes()).collect::<Vec<_>>(), into);
        }
    }
}

pub(super) fn decode(kind: ColumnKind, count: usize, from: &mut &[u8]) -> Result<Column, CodecError> {
    let tag = take(from, 1)?[0];
    let present = present(count, from)?;
    let values = present.iter().filter(|&&is| is).count();
    match (kind, tag) {
        (ColumnKind::Time | ColumnKind::Int, INT) => {
            let mut last = 0_i64;
            let mut next = || -> Result<i64, CodecError> {
                last = last.wrapping_add(unzigzag(unvarint(from)?));
                Ok(last)
            };
            present.iter().map(|&is| is.then(&mut next).transpose()).collect::<Result<_, _>>().map(Column::Int)
        }
        (ColumnKind::Number, FLOAT) => {
            let mut values = unplanes::<4>(values, from)?.into_iter().map(|bytes| f32::from_bits(u32::from_le_bytes(bytes)));
            Ok(Column::Float(present.iter().map(|&is| if is { values.next() } else { None }).collect()))
        }
        (ColumnKind::Number, DOUBLE) => {
            let mut values = unplanes::<8>(values, from)?.into_iter().map(|bytes| f64::from_bits(u64::from_le_bytes(bytes)));
            Ok(Column::Double(present.iter().map(|&is| if is { values.next() } else { None }).collect()))
        }
        (ColumnKind::Time | ColumnKind::Int | ColumnKind::Number, _) => {
            Err(CodecError::Malformed("a column is not of the kind that its stream has there"))
        }
    }
}

fn nulls<T>(values: &[Option<T>], into: &mut Vec<u8>) {
    let absent = values.iter().filter(|value| value.is_none()).count();
    if absent == 0 {
        into.push(NO_NULL);
    } else if absent == values.len() {
        into.push(ALL_NULL);
    } else {
        into.push(SOME_NULL);
        for eight in values.chunks(8) {
            let bits = eight.iter().enumerate().filter(|(_, value)| value.is_some());
            into.push(bits.fold(0, |byte, (place, _)| byte | (1 << place)));
        }
    }
}

fn present(count: usize, from: &mut &[u8]) -> Result<Vec<bool>, CodecError> {
    match take(from, 1)?[0] {
        NO_NULL => Ok(vec![true; count]),
        ALL_NULL => Ok(vec![false; count]),
        SOME_NULL => {
            let bitmap = take(from, count.div_ceil(8))?;
            Ok((0..count).map(|row| bitmap[row / 8] >> (row % 8) & 1 == 1).collect())
        }
        _ => Err(CodecError::Malformed("unknown null mode")),
    }
}

/// Byte planes: numbers of one size share their high bytes, which compress well side by side.
fn planes<const N: usize>(values: &[[u8; N]], into: &mut Vec<u8>) {
    for plane in 0..N {
        into.extend(values.iter().map(|value| value[plane]));
    }
}

fn unplanes<const N: usize>(count: usize, from: &mut &[u8]) -> Result<Vec<[u8; N]>, CodecError> {
    let bytes = take(from, count * N)?;
    Ok((0..count).map(|row| std::array::from_fn(|plane| bytes[plane * count + row])).collect())
}

fn take<'a>(from: &mut &'a [u8], count: usize) -> Result<&'a [u8], CodecError> {
    let (taken, rest) = from.split_at_checked(count).ok_or(CodecError::Malformed("a column ends early"))?;
    *from = rest;
    Ok(taken)
}

const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

const fn unzigzag(value: u64) -> i64 {
    ((value >> 1) as i64) ^ -((value & 1) as i64)
}

fn varint(mut value: u64, into: &mut Vec<u8>) {
    while value >= 0x80 {
        into.push(value as u8 | 0x80);
        value >>= 7;
    }
    into.push(value as u8);
}

fn unvarint(from: &mut &[u8]) -> Result<u64, CodecError> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = take(from, 1)?[0];
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            break;
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(CodecError::Malformed("an integer runs over"))
}
