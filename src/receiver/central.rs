//! What every request needs: the database, who may come in, how much at once, and what is counted.
//!
//! The one rule: everything that requests share is bounded (I7).

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, Instant},
};

use tokio::sync::Semaphore;

use super::{
    Manner, ReceiverError,
    gateways::Bound,
    metrics::Metrics,
    store::Store,
    tls::Tls,
    tokens::{Tokens, TokensError},
};

/// How many requests are answered at once; more are told to come again.
const REQUESTS_MAX: usize = 400;
/// How many KiB of bodies are held at once. Slow links hold theirs for long, so they count by size, not by number.
const BODIES_KIB_MAX: usize = 256 << 10;
/// How many bodies are inflated and read at once: each may grow to 64 MiB.
const INFLATED_MAX: usize = 4;
/// How many rows are held at once while they are stored.
pub(super) const ROWS_MAX: usize = 1_000_000;
/// How often people are told that the database fails.
const ALARM_INTERVAL: Duration = Duration::from_mins(1);

/// What requests share.
#[derive(Debug)]
pub(super) struct Central {
    pub store: Store,
    pub manner: Manner,
    /// Stands in for a missing Host header.
    pub address: String,
    pub requests: Semaphore,
    pub bodies: Arc<Semaphore>,
    pub inflated: Semaphore,
    pub rows: Semaphore,
    pub bound: Bound,
    pub metrics: Metrics,
    pub tls: Option<Tls>,
    tokens: Option<(PathBuf, RwLock<Arc<Tokens>>)>,
    alarmed: Mutex<Option<Instant>>,
}

impl Central {
    pub(super) fn new(
        store: Store,
        manner: Manner,
        address: String,
        tokens_file: Option<PathBuf>,
        tls: Option<Tls>,
    ) -> Result<Self, TokensError> {
        let tokens = match tokens_file {
            Some(path) => {
                let tokens = RwLock::new(Arc::new(Tokens::read(&path)?));
                Some((path, tokens))
            }
            None => None,
        };
        Ok(Self {
            store,
            manner,
            address,
            requests: Semaphore::new(REQUESTS_MAX),
            bodies: Arc::new(Semaphore::new(BODIES_KIB_MAX)),
            inflated: Semaphore::new(INFLATED_MAX),
            rows: Semaphore::new(ROWS_MAX),
            bound: Bound::default(),
            metrics: Metrics::new(),
            tls,
            tokens,
            alarmed: Mutex::new(None),
        })
    }

    /// The tokens of now; `None` where nobody is asked for one.
    pub(super) fn tokens(&self) -> Option<Arc<Tokens>> {
        let (_, tokens) = self.tokens.as_ref()?;
        Some(tokens.read().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Reads tokens and certificate again. After an error the old ones go on.
    pub(super) fn reload(&self) -> Result<(), ReceiverError> {
        if let Some((path, tokens)) = &self.tokens {
            let fresh = Arc::new(Tokens::read(path)?);
            *tokens.write().unwrap_or_else(PoisonError::into_inner) = fresh;
            self.bound.forget();
        }
        if let Some(tls) = &self.tls {
            tls.reload()?;
        }
        Ok(())
    }

    /// Tells people that the database fails, at most once in [`ALARM_INTERVAL`].
    pub(super) fn alarm(&self, cause: &sqlx::Error) {
        let mut alarmed = self.alarmed.lock().unwrap_or_else(PoisonError::into_inner);
        if alarmed.is_none_or(|at| at.elapsed() >= ALARM_INTERVAL) {
            *alarmed = Some(Instant::now());
            tracing::error!(error = %cause, "the receiver's database cannot serve: check it and its disk; until then requests are refused");
        }
    }
}
