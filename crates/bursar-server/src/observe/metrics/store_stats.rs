//! Gauges that are read from the store periodically, so that a scrape never waits for it.
//!
//! They come from stored data and not from traffic: an integration over its budget is still over it
//! after a restart, and an alert must not end there.

use std::sync::Arc;

use bursar_core::Measure;
use bursar_store::{NearLimit, Store, StoreError, StoreStats};
use parking_lot::RwLock;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, IntGauge, IntGaugeVec, Registry, Result};

use super::table;
use crate::wire::timestamps;

/// Integrations whose ratios are shown.
const NEAR_LIMIT_MAX: usize = 1_000;

/// The gauges of stored data.
pub(super) struct StoreStatsMetrics {
    ratios: NearLimitRatios,
    reservations_open: IntGauge,
    tenants: IntGauge,
    database_bytes: IntGaugeVec,
    log_kept: IntGauge,
    read_at: IntGauge,
}

impl StoreStatsMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self> {
        let ratios = NearLimitRatios::new()?;
        registry.register(Box::new(ratios.clone()))?;
        Ok(Self {
            ratios,
            reservations_open: table::RESERVATIONS_OPEN.gauge(registry)?,
            tenants: table::TENANTS.gauge(registry)?,
            database_bytes: table::DATABASE_BYTES.gauges(registry)?,
            log_kept: table::LOG_KEPT.gauge(registry)?,
            read_at: table::STORE_READ_AT.gauge(registry)?,
        })
    }

    pub(super) async fn read(&self, store: &dyn Store) -> std::result::Result<(), StoreError> {
        let near_limit = store.near_limits(NEAR_LIMIT_MAX).await?;
        let stats = store.stats().await?;
        let StoreStats { tenants, open_reservations, data_bytes, log_bytes, is_log_kept } = stats;
        self.ratios.show(&near_limit);
        self.reservations_open.set(open_reservations);
        self.tenants.set(tenants);
        self.log_kept.set(i64::from(is_log_kept));
        for (file, bytes) in [("data", data_bytes), ("log", log_bytes)] {
            let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
            self.database_bytes.with_label_values(&[file]).set(bytes);
        }
        self.read_at.set(timestamps::system_now().micros() / 1_000_000);
        Ok(())
    }
}

/// The ratios of the integrations nearest to their limits.
///
/// They are replaced together, so that a scrape never mixes old and new ones.
#[derive(Clone)]
struct NearLimitRatios {
    /// Empty families that describe the metrics to the registry.
    families: Arc<[GaugeVec; 2]>,
    shown: Arc<RwLock<Vec<MetricFamily>>>,
}

impl NearLimitRatios {
    fn new() -> Result<Self> {
        let families = Self::families()?;
        Ok(Self { families: Arc::new(families), shown: Arc::default() })
    }

    fn families() -> Result<[GaugeVec; 2]> {
        Ok([table::BUDGET_USED.ratios()?, table::TOKENS_USED.ratios()?])
    }

    fn show(&self, accounts: &[NearLimit]) {
        // It succeeded at the start, so it cannot fail here.
        let Ok([budgets, tokens]) = Self::families() else { return };
        for account in accounts {
            let (tenant, integration) =
                (account.tenant_id.to_string(), account.integration_id.to_string());
            for (family, measure) in [(&budgets, Measure::Cost), (&tokens, Measure::Tokens)] {
                if let Some(state) = account.state(measure) {
                    let ratio = state.taken() as f64 / state.amount as f64;
                    family.with_label_values(&[&tenant, &integration]).set(ratio);
                }
            }
        }
        *self.shown.write() = [budgets.collect(), tokens.collect()].concat();
    }
}

impl Collector for NearLimitRatios {
    fn desc(&self) -> Vec<&Desc> {
        self.families.iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.shown.read().clone()
    }
}
