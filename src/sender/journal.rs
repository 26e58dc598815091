//! What the catalog sync must not forget across a crash is kept in the outbox.
//!
//! The one rule: what is about to be created is written down before it is sent, and what came of it before anything else is.

use std::time::Duration;

use async_trait::async_trait;

use super::{EARLIER_LIFE, EARLIER_LIFE_MAX, helm::Helm};
use crate::{
    catalog::{Journal, JournalError},
    domain::{Entity, Generation, LocalRef, RemoteId},
    outbox::{CreateIntent, Outbox},
};

/// Where it is kept.
pub(super) struct OutboxJournal<'a> {
    /// The outbox.
    pub(super) outbox: &'a Outbox,
    /// Whose entities are brought over: the source may become another one meanwhile.
    pub(super) generation: Generation,
    /// Where it is told that it goes on.
    pub(super) helm: &'a Helm,
    /// The slowest answer before this sync.
    pub(super) slowest: Duration,
}

#[async_trait]
impl Journal for OutboxJournal<'_> {
    async fn about_to_create(&mut self, what: LocalRef, slowest: Duration) -> Result<(), JournalError> {
        let patience = (slowest.max(self.slowest) * 3).clamp(EARLIER_LIFE, EARLIER_LIFE_MAX);
        let intent = CreateIntent { what, patience_ms: patience.as_millis() as u32 };
        self.outbox.intend_create(Some(intent)).await.map_err(|error| JournalError(Box::new(error)))
    }

    async fn settled(
        &mut self,
        mapped: &[(LocalRef, RemoteId)],
        brought: &[(LocalRef, Entity<RemoteId>)],
    ) -> Result<(), JournalError> {
        self.outbox
            .map_as(self.generation, mapped.to_vec(), brought.to_vec())
            .await
            .map_err(|error| JournalError(Box::new(error)))?;
        self.helm.has_mapped();
        Ok(())
    }
}
