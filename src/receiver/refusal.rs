//! Why a request is refused, and how each manner says so.
//!
//! The one rule: a refused request has stored nothing; where nobody knows, it says so by a 500.

use axum::http::StatusCode;

use crate::wire::RunAnswer;

/// Why a request was refused. Nothing of it is stored, but for [`Refusal::Unclear`].
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// It does not follow the contract.
    #[error("{0}")]
    Malformed(String),
    /// It points to rows that are not here.
    #[error("{0}")]
    Missing(String),
    /// A global id stands for something else here.
    #[error("{0}")]
    Conflict(String),
    /// Its body, or what it asks for, is too large.
    #[error("{0}")]
    TooLarge(String),
    /// A packhorse client says less than it could: it does not know yet whom it talks to.
    #[error("{0}")]
    InFull(String),
    /// There is nothing at this address.
    #[error("{0}")]
    Lost(String),
    /// The address does not take this method.
    #[error("{0}")]
    Method(String),
    /// Nobody that is known here.
    #[error("a token is needed: Authorization: Bearer, and one of those in the receiver's tokens file")]
    Unauthorized,
    /// Known, and not allowed.
    #[error("{0}")]
    Forbidden(String),
    /// As many requests as can be are being answered.
    #[error("too many requests at once: come again in a few seconds")]
    Busy,
    /// The body came too slowly.
    #[error("{0}")]
    TooSlow(String),
    /// The legacy database refuses what this database would take.
    #[error("{0}")]
    Legacy(String),
    /// The same, said as a JSON list: a key that is there twice, or not there at all, within a bulk.
    #[error("{0}")]
    LegacyKey(String),
    /// Every row of a run is refused.
    #[error("{text}")]
    Run {
        /// For people.
        text: String,
        /// For programs.
        answer: Box<RunAnswer>,
        /// The highest seq of the epoch and stream that was seen.
        seen: Option<i64>,
    },
    /// The client knows of rows that were stored here and are no longer.
    #[error("rows up to seq {taken} were stored here, and are not here any more: this database was put back to an older state")]
    RowsLost {
        /// Up to where it knows of them.
        taken: u64,
        /// The highest seq of the epoch and stream that was seen.
        seen: Option<i64>,
    },
    /// The database went away while it committed: it may have stored the request or not.
    #[error("the database went away while it committed; the request may be stored or not: {0}")]
    Unclear(#[source] sqlx::Error),
    /// The database cannot store or read now; no fault of the request.
    #[error("the database cannot serve now: {0}")]
    Unavailable(#[from] sqlx::Error),
}

impl Refusal {
    /// The status that says it.
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Malformed(_) | Self::Legacy(_) | Self::LegacyKey(_) => StatusCode::BAD_REQUEST,
            Self::RowsLost { .. } => StatusCode::PRECONDITION_FAILED,
            Self::Missing(_) | Self::Run { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::InFull(_) => StatusCode::MISDIRECTED_REQUEST,
            Self::Lost(_) => StatusCode::NOT_FOUND,
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooSlow(_) => StatusCode::REQUEST_TIMEOUT,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::Unclear(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Busy | Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}
