//! A writer's connection and its transaction, which begins with its first query.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bursar_core::{Calendar, CallKey, EntryId, IntegrationId, TenantId, Timestamp};
use tokio::join;
use tokio::runtime::Runtime;
use tokio_postgres::Client;

use super::connect::Address;
use super::known_labels::KnownLabels;
use super::limits::KnownSets;
use super::sweep::Sweep;
use super::tx::{self, Messages, Param, commit_error, params, store_error};
use crate::audit::chain::AuditKey;
use crate::calendar::ZonedCalendar;
use crate::clock::StoreClock;
use crate::error::{NotWritable, StoreError};
use crate::rows::row::AuditRow;

/// The limit on one round trip, in addition to the database's own timeouts.
const REPLY_MAX: Duration = Duration::from_secs(20);
/// How many id numbers a writer takes from the database at once.
const NUMBERS: i64 = 8_192;
/// How long a writer uses them: an id tells approximately when it was made.
const NUMBERS_LIFE: Duration = Duration::from_secs(1);
/// How many numbers a transaction needs at its begin: enough for a change of the control plane.
const NUMBERS_LEFT_MIN: i64 = 64;

const TAKE_NUMBERS: &str = "update id_numbers set next_number = greatest(next_number, $2) + $1 \
     where name = 'ids' returning next_number - $1";

pub(super) struct PostgresWriter {
    address: Address,
    pub(super) messages: Messages,
    runtime: Runtime,
    client: Option<Arc<Client>>,
    pub(super) clock: StoreClock,
    pub(super) now: Timestamp,
    tx_state: TxState,
    numbers: Numbers,
    pub(super) known: KnownLabels,
    pub(super) limit_sets: Arc<KnownSets>,
    pub(super) calendar: Arc<dyn Calendar>,
    /// Whether the group locks the numbers of all its values, because it found one too late.
    pub(super) locks_all_values: bool,
    /// Call ids that this transaction claimed, with the entries they were claimed for.
    pub(super) claims: HashMap<CallKey, Option<EntryId>>,
    /// Integrations that the group needs although its commands do not name them.
    pub(super) extra_integrations: BTreeSet<IntegrationId>,
    /// The limit on the tenant's open reservations when this transaction is saved, if other
    /// transactions may add reservations meanwhile.
    pub(super) reservations_max: Option<i64>,
    pub(super) sweep: Arc<Sweep>,
    pub(super) audit_key: AuditKey,
    /// The rows that this transaction adds to the audit log.
    ///
    /// They are written just before the commit, so that the head of the chain is the last row that
    /// the transaction locks.
    pub(super) audits: Vec<AuditRow>,
}

/// A failed connection attempt is not retried: the next one would probably fail too.
fn no_connection(error: tokio_postgres::Error) -> StoreError {
    StoreError::Unavailable(Arc::new(error))
}

/// The state of the writer's transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TxState {
    None,
    /// The transaction begins with its first query.
    Deferred,
    /// The transaction is open, and sees the rows of this tenant.
    Begun(Option<TenantId>),
}

/// A range of numbers that no other writer uses.
#[derive(Default)]
struct Numbers {
    next: i64,
    end: i64,
    taken_at: Option<Instant>,
}

impl PostgresWriter {
    pub(super) fn new(
        address: Address,
        messages: Messages,
        clock: StoreClock,
        sweep: Arc<Sweep>,
        limit_sets: Arc<KnownSets>,
        audit_key: AuditKey,
    ) -> std::io::Result<Self> {
        Ok(Self {
            address,
            messages,
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build()?,
            client: None,
            now: clock.now(),
            clock,
            tx_state: TxState::None,
            numbers: Numbers::default(),
            known: KnownLabels::default(),
            limit_sets,
            calendar: Arc::new(ZonedCalendar::default()),
            locks_all_values: false,
            claims: HashMap::new(),
            extra_integrations: BTreeSet::new(),
            reservations_max: None,
            sweep,
            audit_key,
            audits: Vec::new(),
        })
    }

    /// Runs queries, over a new connection if there is none.
    ///
    /// Inside a transaction use [`PostgresWriter::query_in_tx`], which refuses a new connection.
    pub(super) fn query<T>(
        &mut self,
        query: impl AsyncFnOnce(&Client) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let known = self.client.clone();
        let address = &self.address;
        let done = self.runtime.block_on(async {
            let running = async {
                let client = match known {
                    Some(client) => client,
                    None => Arc::new(address.connect().await.map_err(no_connection)?),
                };
                let result = query(&client).await;
                Ok::<_, StoreError>((client, result))
            };
            tokio::time::timeout(REPLY_MAX, running).await
        });
        let (client, result) = match done {
            Ok(Ok(done)) => done,
            Ok(Err(error)) => return Err(error),
            Err(late) => {
                self.client = None;
                return Err(StoreError::Unavailable(Arc::new(late)));
            }
        };
        // A lost connection is dropped, and the next query opens a new one. A read-only session is
        // dropped too: it may be on a standby, or be older than a promotion.
        let is_read_only =
            matches!(result, Err(StoreError::NotWritable { reason: NotWritable::ReadOnly, .. }));
        self.client = Some(client).filter(|client| !client.is_closed() && !is_read_only);
        result
    }

    /// Fails if the connection of an open transaction is lost.
    ///
    /// A new connection would commit each statement at once, and accept a commit of nothing.
    fn check_connection(&self) -> Result<(), StoreError> {
        match (self.tx_state, &self.client) {
            (TxState::Begun(_), None) => {
                let lost = std::io::Error::other("the connection of the transaction is lost");
                Err(StoreError::Retry(Arc::new(lost)))
            }
            (TxState::None | TxState::Deferred, _) | (TxState::Begun(_), Some(_)) => Ok(()),
        }
    }

    /// Drops the connection; the next query opens a new one.
    pub(super) fn disconnect(&mut self) {
        self.client = None;
    }

    /// The statements that open a transaction and set its tenant; `None` if that is already done.
    pub(super) fn opening(&mut self, tenant_id: Option<TenantId>) -> Option<String> {
        let text = match (self.tx_state, tenant_id) {
            (TxState::None | TxState::Deferred, _) => tx::begin_write(tenant_id),
            (TxState::Begun(Some(current)), Some(wanted)) if current == wanted => return None,
            (TxState::Begun(_), Some(wanted)) => tx::set_tenant(wanted),
            (TxState::Begun(_), None) => return None,
        };
        let current = if let TxState::Begun(current) = self.tx_state { current } else { None };
        self.tx_state = TxState::Begun(tenant_id.or(current));
        Some(text)
    }

    /// Runs queries about a tenant's rows in the writer's transaction.
    pub(super) fn query_in_tx<T>(
        &mut self,
        tenant_id: Option<TenantId>,
        query: impl AsyncFnOnce(&Client) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.check_connection()?;
        let (opening, messages) = (self.opening(tenant_id), self.messages);
        self.query(async move |client| {
            let Some(text) = opening else { return query(client).await };
            // Both are sent together, which saves a round trip. If the opening fails, no tenant is
            // set, so that the query neither reads nor writes rows of a tenant.
            let opening = tx::set(client, &text, messages);
            let (opened, result) = join!(biased; opening, query(client));
            opened.map_err(store_error)?;
            result
        })
    }

    /// Runs a statement that changes rows of a tenant.
    pub(super) fn put(
        &mut self,
        tenant_id: TenantId,
        sql: &str,
        values: &[Param<'_>],
    ) -> Result<(), StoreError> {
        self.query_in_tx(Some(tenant_id), async |client| {
            client.execute_typed(sql, values).await.map(|_| ()).map_err(store_error)
        })
    }

    /// Begins a transaction; the database gets it with the first query.
    pub(super) fn begin_deferred(&mut self) {
        self.tx_state = TxState::Deferred;
    }

    /// Like [`PostgresWriter::begin_deferred`], with enough numbers for new rows.
    pub(super) fn begin_deferred_with_numbers(&mut self) -> Result<(), StoreError> {
        let Numbers { next, end, .. } = self.numbers;
        if end - next < NUMBERS_LEFT_MIN {
            self.numbers = Numbers::default();
            self.allocate_numbers(0)?;
        }
        self.begin_deferred();
        Ok(())
    }

    /// Commits the transaction, if it has begun in the database.
    pub(super) fn commit_open(&mut self) -> Result<(), StoreError> {
        self.check_connection()?;
        let open = std::mem::replace(&mut self.tx_state, TxState::None);
        if let TxState::Begun(_) = open {
            let committed = self
                .query(async |client| client.batch_execute("commit").await.map_err(commit_error));
            if let Err(error) = committed {
                // The result of the commit may be unknown, so the connection is not used again.
                self.disconnect();
                return Err(error);
            }
        }
        Ok(())
    }

    /// Rolls the transaction back, if it has begun in the database.
    pub(super) fn rollback_open(&mut self) {
        let open = std::mem::replace(&mut self.tx_state, TxState::None);
        if matches!(open, TxState::Begun(_)) && self.client.is_some() {
            let rolled_back = self
                .query(async |client| client.batch_execute("rollback").await.map_err(store_error));
            if rolled_back.is_err() {
                self.disconnect();
            }
        }
    }

    pub(super) fn allocate_numbers(&mut self, count: usize) -> Result<i64, StoreError> {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        let Numbers { next, end, taken_at } = self.numbers;
        let is_fresh = taken_at.is_some_and(|taken_at| taken_at.elapsed() < NUMBERS_LIFE);
        let is_open = matches!(self.tx_state, TxState::Begun(_));
        if end - next >= count && (is_fresh || is_open) {
            self.numbers.next += count;
            return Ok(next);
        }
        if is_open {
            // A rollback would return numbers that were taken in the transaction, and another
            // writer could get them too. The next attempt takes them before it begins.
            self.numbers = Numbers::default();
            return Err(StoreError::Retry(Arc::new(std::io::Error::other("no ids are left"))));
        }
        let run = count.max(NUMBERS);
        let now = self.clock.now().micros();
        let first = self.query(async |client| {
            let row = client.query_typed_one(TAKE_NUMBERS, params![run, now]).await;
            row.and_then(|row| row.try_get::<_, i64>(0)).map_err(store_error)
        })?;
        self.numbers =
            Numbers { next: first + count, end: first + run, taken_at: Some(Instant::now()) };
        Ok(first)
    }
}
