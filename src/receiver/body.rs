//! The request's body: read within bounds of size and time, inflated within bounds.
//!
//! The one rule: nothing that a client sends makes us hold more than these bounds (I7).

use std::{
    io::Read as _,
    time::{Duration, Instant},
};

use axum::{
    body::{Body, Bytes, HttpBody as _},
    http::HeaderMap,
};
use futures_util::StreamExt as _;

use super::refusal::Refusal;

/// A larger body is refused.
pub(super) const BODY_BYTES_MAX: usize = 16 << 20;
/// So is one that inflates to more.
pub(super) const INFLATED_BYTES_MAX: usize = 64 << 20;
/// A body that is too large is read up to here and thrown away, so that the client, still writing, gets to read the refusal.
const DRAINED_BYTES_MAX: usize = 64 << 20;
/// A body of which nothing comes for so long is given up.
const STALL_MAX: Duration = Duration::from_secs(30);
/// Beyond this a body must come at [`BYTES_PER_SECOND_MIN`]: one that drips is given up as well.
const PATIENCE: Duration = Duration::from_mins(2);
const BYTES_PER_SECOND_MIN: u64 = 100;

/// The most that [`read`] will keep of a body, in KiB: what it announces, or the limit when it announces nothing.
pub(super) fn kib_max(body: &Body) -> u32 {
    let bytes = body.size_hint().exact().unwrap_or(u64::MAX).min(BODY_BYTES_MAX as u64);
    bytes.div_ceil(1 << 10) as u32
}

/// Reads a body to its end.
pub(super) async fn read(headers: &HeaderMap, body: Body) -> Result<Bytes, Refusal> {
    let too_large = || Refusal::TooLarge(format!("a body of more than {BODY_BYTES_MAX} bytes: send fewer rows at a time"));
    let announced = body.size_hint().lower();
    if announced > BODY_BYTES_MAX as u64 && headers.contains_key("expect") {
        return Err(too_large());
    }
    let began = Instant::now();
    let mut read = 0;
    let mut kept = Vec::with_capacity(announced.min(1 << 20) as usize);
    let mut pieces = body.into_data_stream();
    loop {
        let piece = tokio::time::timeout(STALL_MAX, pieces.next())
            .await
            .map_err(|_| Refusal::TooSlow(format!("nothing of the body came for {} seconds", STALL_MAX.as_secs())))?;
        let Some(piece) = piece else { break };
        let piece = piece.map_err(|cause| Refusal::Malformed(format!("the body broke off: {cause}")))?;
        read += piece.len();
        if began.elapsed() > PATIENCE + Duration::from_secs(read as u64 / BYTES_PER_SECOND_MIN) {
            return Err(Refusal::TooSlow(format!("the body came at less than {BYTES_PER_SECOND_MIN} bytes a second")));
        }
        if read <= BODY_BYTES_MAX {
            kept.extend_from_slice(&piece);
        } else if read > DRAINED_BYTES_MAX {
            break;
        } else {
            kept = Vec::new();
        }
    }
    if read > BODY_BYTES_MAX { Err(too_large()) } else { Ok(kept.into()) }
}

/// Reads a body that nobody wants, up to what a client may be writing.
pub(super) async fn discard(body: Body) {
    let mut pieces = body.into_data_stream();
    let mut read = 0;
    while let Ok(Some(Ok(piece))) = tokio::time::timeout(STALL_MAX, pieces.next()).await {
        read += piece.len();
        if read > BODY_BYTES_MAX {
            break;
        }
    }
}

/// The JSON in a body: plain, or inflated from zlib (RFC 1950).
pub(super) fn inflate(body: Bytes) -> Result<Bytes, Refusal> {
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    match first {
        None => return Err(Refusal::Malformed("the body is empty: send a JSON list".to_owned())),
        Some(b'[' | b'{' | b'"') => return Ok(body),
        Some(_) => {}
    }
    if body.starts_with(&[0x1f, 0x8b]) {
        return Err(Refusal::Malformed("the body is gzip: send zlib (RFC 1950) or plain JSON".to_owned()));
    }
    let mut inflated = Vec::new();
    let mut decoder = flate2::read::ZlibDecoder::new(&body[..]);
    decoder
        .by_ref()
        .take(INFLATED_BYTES_MAX as u64 + 1)
        .read_to_end(&mut inflated)
        .map_err(|cause| Refusal::Malformed(format!("the body is neither JSON nor zlib: {cause}")))?;
    if inflated.len() > INFLATED_BYTES_MAX {
        return Err(Refusal::TooLarge(format!(
            "a body that inflates to more than {INFLATED_BYTES_MAX} bytes: send fewer rows at a time"
        )));
    }
    if decoder.total_in() != body.len() as u64 {
        return Err(Refusal::Malformed("bytes follow the end of the zlib stream".to_owned()));
    }
    Ok(inflated.into())
}
