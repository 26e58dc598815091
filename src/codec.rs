//! Rows to bytes and back: the chunk, shared by the outbox and the compact wire format.
//!
//! ```text
//! chunk   = "PH" version:u8  header (bincode)  body (deflate)  crc32:u32 le, of everything before it
//! header  = stream, epoch, generation, first seq, row count, time of capture, freshness, lowest place in the source, length of the
//!           inflated body
//! body    = for each column: type, null mode, [null bitmap], values
//! values  = integers and times: zigzag varints of differences; numbers: their bits, first all lowest bytes, then all second ones ...
//! ```
//!
//! The one rule: what is decoded equals what was encoded bit for bit, and any other bytes are an error, never other rows.

mod column;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use serde::{Deserialize, Serialize};

use crate::domain::{Epoch, Freshness, Generation, Micros, Rows, Seq, Stream};

/// A chunk is at most this long, encoded. Larger values leave sled's pages for files that are never fsynced (docs/decisions/0002).
pub const CHUNK_BYTES_MAX: usize = 8_000;
/// A chunk holds at most this many rows, however well they compress: it bounds what decoding one costs.
pub const CHUNK_ROWS_MAX: usize = 4_096;

const MAGIC: [u8; 2] = *b"PH";
const VERSION: u8 = 1;
const CHECKSUM_BYTES: usize = 4;
/// More than [`CHUNK_ROWS_MAX`] rows of the widest stream can take.
const BODY_BYTES_MAX: u32 = 1 << 20;
const LEVEL: Compression = Compression::new(3);

/// What a chunk says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkHeader {
    /// The stream of its rows.
    pub stream: Stream,
    /// The outbox life it was written in.
    pub epoch: Epoch,
    /// The database its rows come from.
    pub generation: Generation,
    /// The seq of its first row.
    pub first: Seq,
    /// How many rows.
    pub count: u32,
    /// When the rows were captured (gateway's clock).
    pub captured_at: Micros,
    /// Whether the rows may have arrived before.
    pub freshness: Freshness,
    /// The smallest id among the rows, or the smallest time (microseconds) where rows have no id: capture that begins just before it
    /// finds them all again.
    pub lowest: i64,
}

impl ChunkHeader {
    /// The seq after its last row.
    pub fn end(&self) -> Seq {
        self.first.plus(u64::from(self.count))
    }
}

/// An encoded chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// What it says of itself.
    pub header: ChunkHeader,
    /// The whole chunk, header and all.
    pub bytes: Vec<u8>,
}

/// Bytes that are not a chunk. Nothing of them is used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The bytes do not begin as a chunk does.
    #[error("not a chunk")]
    Foreign,
    /// Written by another version of this program.
    #[error(
        "chunk format version {0} is not known to this program, which knows version {VERSION}: use the version that wrote it"
    )]
    Version(u8),
    /// Cut short or altered.
    #[error("checksum does not match: the bytes were altered or cut short")]
    Checksum,
    /// The checksum is right and yet the content is not: a defect, or a forgery.
    #[error("malformed chunk: {0}")]
    Malformed(&'static str),
}

#[derive(Serialize, Deserialize)]
struct Header {
    stream: u8,
    epoch: u64,
    generation: u32,
    first: u64,
    count: u32,
    captured_at: i64,
    freshness: Freshness,
    lowest: i64,
    body_bytes: u32,
}

/// What the chunks of one run have in common; the seqs follow from the first.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// The outbox life.
    pub epoch: Epoch,
    /// The database the rows come from.
    pub generation: Generation,
    /// The seq of the first row.
    pub first: Seq,
    /// When the rows were captured.
    pub captured_at: Micros,
    /// Whether they may have arrived before.
    pub freshness: Freshness,
}

/// Encodes rows as consecutive chunks, each at most `bytes_max` long.
///
/// # Panics
/// When not even one row fits into `bytes_max`: 512 bytes always hold one.
pub fn encode(run: &Run, rows: &Rows, bytes_max: usize) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    let mut encoder = Encoder { deflate: Compress::new(LEVEL, false), body: Vec::new() };
    let mut from = 0;
    let mut guess = 1_000;
    while from < rows.len() {
        let count = guess.min(rows.len() - from).clamp(1, CHUNK_ROWS_MAX);
        let header = ChunkHeader {
            stream: rows.stream(),
            epoch: run.epoch,
            generation: run.generation,
            first: run.first.plus(from as u64),
            count: count as u32,
            captured_at: run.captured_at,
            freshness: run.freshness,
            lowest: rows.lowest(from..from + count),
        };
        let bytes = encoder.chunk(&header, rows, from..from + count);
        // Aim a little below the limit, so that a slightly worse stretch still fits at the first try.
        let fitting = (count * (bytes_max * 15 / 16) / bytes.len()).max(1);
        if bytes.len() > bytes_max {
            assert!(count > 1, "one row fits into a chunk");
            guess = fitting.min(count - 1);
            continue;
        }
        guess = fitting;
        from += count;
        chunks.push(Chunk { header, bytes });
    }
    chunks
}

struct Encoder {
    deflate: Compress,
    body: Vec<u8>,
}

impl Encoder {
    fn chunk(&mut self, header: &ChunkHeader, rows: &Rows, range: std::ops::Range<usize>) -> Vec<u8> {
        self.body.clear();
        for column in rows.columns() {
            column::encode(column, range.clone(), &mut self.body);
        }
        let written = Header {
            stream: header.stream.number(),
            epoch: header.epoch.0,
            generation: header.generation.0,
            first: header.first.0,
            count: header.count,
            captured_at: header.captured_at.0,
            freshness: header.freshness,
            lowest: header.lowest,
            body_bytes: self.body.len() as u32,
        };
        let mut bytes = Vec::with_capacity(self.body.len() / 2 + 1_024);
        bytes.extend(MAGIC);
        bytes.push(VERSION);
        let header = bincode::serde::encode_to_vec(&written, bincode::config::standard());
        bytes.extend(header.unwrap_or_else(|error| unreachable!("a plain struct encodes: {error}")));
        deflate(&mut self.deflate, &self.body, &mut bytes);
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        bytes
    }
}

fn deflate(deflate: &mut Compress, body: &[u8], into: &mut Vec<u8>) {
    deflate.reset();
    loop {
        let consumed = deflate.total_in() as usize;
        match deflate.compress_vec(&body[consumed..], into, FlushCompress::Finish) {
            Ok(Status::StreamEnd) => return,
            Ok(Status::Ok | Status::BufError) => into.reserve(into.capacity().max(4_096)),
            Err(error) => unreachable!("deflating from memory to memory does not fail: {error}"),
        }
    }
}

/// Reads a chunk's header alone; its checksum is verified.
pub fn peek(bytes: &[u8]) -> Result<ChunkHeader, CodecError> {
    open(bytes).map(|(header, _, _)| header)
}

/// Reads a chunk.
pub fn decode(bytes: &[u8]) -> Result<(ChunkHeader, Rows), CodecError> {
    let (header, body_bytes, packed) = open(bytes)?;
    let mut body = Vec::with_capacity(body_bytes as usize);
    let status = Decompress::new(false).decompress_vec(packed, &mut body, FlushDecompress::Finish);
    if !matches!(status, Ok(Status::StreamEnd)) || body.len() != body_bytes as usize {
        return Err(CodecError::Malformed("the body does not inflate to the length it claims"));
    }
    let mut rest = body.as_slice();
    let count = header.count as usize;
    let columns = header
        .stream
        .spec()
        .columns
        .iter()
        .map(|spec| column::decode(spec.kind, count, &mut rest))
        .collect::<Result<Vec<_>, _>>()?;
    if !rest.is_empty() {
        return Err(CodecError::Malformed("bytes are left after the last column"));
    }
    Ok((header, Rows::new(header.stream, columns)))
}

/// How long the chunk is that begins with these bytes; `None` where none does. For reading what is left of damaged files.
pub fn length(bytes: &[u8]) -> Option<usize> {
    if bytes.get(..3)? != [MAGIC[0], MAGIC[1], VERSION] {
        return None;
    }
    let config = bincode::config::standard().with_limit::<64>();
    let (header, used) = bincode::serde::decode_from_slice::<Header, _>(&bytes[3..], config).ok()?;
    if header.count == 0 || header.count as usize > CHUNK_ROWS_MAX || header.body_bytes > BODY_BYTES_MAX {
        return None;
    }
    let packed = &bytes[3 + used..bytes.len().min(CHUNK_BYTES_MAX)];
    let mut inflate = Decompress::new(false);
    let mut body = Vec::with_capacity(header.body_bytes as usize);
    if !matches!(inflate.decompress_vec(packed, &mut body, FlushDecompress::Finish), Ok(Status::StreamEnd)) {
        return None;
    }
    let length = 3 + used + inflate.total_in() as usize + CHECKSUM_BYTES;
    peek(bytes.get(..length)?).is_ok().then_some(length)
}

/// Checks everything but the body: header, length of the body once inflated, the packed body.
fn open(bytes: &[u8]) -> Result<(ChunkHeader, u32, &[u8]), CodecError> {
    if bytes.get(..2) != Some(&MAGIC) {
        return Err(CodecError::Foreign);
    }
    let split = bytes.len().checked_sub(CHECKSUM_BYTES).ok_or(CodecError::Checksum)?;
    let (content, checksum) = bytes.split_at(split);
    if checksum != crc32fast::hash(content).to_le_bytes() {
        return Err(CodecError::Checksum);
    }
    match content.get(2) {
        Some(&VERSION) => {}
        Some(&other) => return Err(CodecError::Version(other)),
        None => return Err(CodecError::Malformed("no version")),
    }
    let config = bincode::config::standard().with_limit::<64>();
    let (header, used) = bincode::serde::decode_from_slice::<Header, _>(&content[3..], config)
        .map_err(|_| CodecError::Malformed("the header does not decode"))?;
    if header.count == 0 || header.count as usize > CHUNK_ROWS_MAX || header.body_bytes > BODY_BYTES_MAX {
        return Err(CodecError::Malformed("the header claims more than a chunk holds"));
    }
    if header.first.checked_add(u64::from(header.count)).is_none() {
        return Err(CodecError::Malformed("the seqs run over"));
    }
    let known = ChunkHeader {
        stream: Stream::from_number(header.stream).ok_or(CodecError::Malformed("no such stream"))?,
        epoch: Epoch(header.epoch),
        generation: Generation(header.generation),
        first: Seq(header.first),
        count: header.count,
        captured_at: Micros(header.captured_at),
        freshness: header.freshness,
        lowest: header.lowest,
    };
    Ok((known, header.body_bytes, &content[3 + used..]))
}

#[cfg(test)]
mod tests;
