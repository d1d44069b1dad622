//! The implementation of [`Store`] for PostgreSQL: each read is a read-only transaction.

use std::sync::Arc;

use async_trait::async_trait;
use bursar_core::ClockState;

use super::open::PostgresStore;
use super::readers::PingReply;
use super::store_stats;
use crate::error::StoreError;
use crate::read::near_limit::NearLimit;
use crate::read::read_context::ReadContext;
use crate::read::store::{Store, StoreStats};

#[async_trait]
impl Store for PostgresStore {
    fn clock(&self) -> ClockState {
        self.clock.state()
    }

    async fn ping(&self) -> Result<(), StoreError> {
        let PingReply { clock: (wall, confirmations), writable } = self.readers.ping().await?;
        self.clock.observe_database(wall, confirmations);
        writable
    }

    fn with_context(&self, context: ReadContext) -> Arc<dyn Store> {
        Arc::new(Self { context, ..self.clone() })
    }

    async fn near_limits(&self, limit: usize) -> Result<Vec<NearLimit>, StoreError> {
        let (scans, now) = (Arc::clone(&self.scans), self.now());
        self.readers
            .read_all(async move |db| {
                store_stats::near_limits(db.client()?, &scans, now, limit).await
            })
            .await
    }

    async fn stats(&self) -> Result<StoreStats, StoreError> {
        let (scans, now) = (Arc::clone(&self.scans), self.now());
        self.readers
            .read_all(async move |db| store_stats::stats(db.client()?, &scans, now).await)
            .await
    }
}
