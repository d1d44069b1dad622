//! Recomputes counters and rollups from the entries, and compares them with the stored ones.

#![warn(clippy::arithmetic_side_effects)]

use std::collections::{HashMap, HashSet};

use bursar_core::{
    CallId, CallKey, CounterKey, EntryId, EntryKind, IntegrationId, KeyId, Month, Nanos,
    PolicyResult, Subject, Tags, TenantId, Timestamp, Totals, Usage,
};

use crate::checked_sum;
use crate::error::StoreError;
use crate::rows::codec::{self, call_key};
use crate::rows::columns::{Columns, RawColumns};
use crate::rows::counted_tags::CountedTags;
use crate::rows::decode;
use crate::rows::rollup::{Grain, RollupEntry, RollupFacts, RollupKey};
use crate::rows::rollup_columns::Rollup;
use crate::rows::rollup_labels::{Admitted, KeyLabel, KeyedModel, Label, MODEL_KEYS_MAX};
use crate::verify::differences::Differences;
use crate::verify::limits::{CountedAmount, LimitRecount};

/// The result of a verification.
#[derive(Debug, Default)]
pub struct VerifyReport {
    /// Entries that were counted.
    pub entries: u64,
    /// Open reservations that were counted.
    pub open_reservations: u64,
    /// Stored counters that were compared.
    pub counters: u64,
    /// Stored rollups that were compared.
    pub rollups: u64,
    pub differences: Differences,
}

impl VerifyReport {
    /// Adds the result of another part of the data.
    pub(crate) fn merge(&mut self, other: Self) {
        let Self { entries, open_reservations, counters, rollups, differences } = other;
        self.entries = self.entries.saturating_add(entries);
        self.open_reservations = self.open_reservations.saturating_add(open_reservations);
        self.counters = self.counters.saturating_add(counters);
        self.rollups = self.rollups.saturating_add(rollups);
        self.differences.merge(differences);
    }
}

/// Adds one; there are never enough rows to saturate.
const fn count(rows: &mut u64) {
    *rows = rows.saturating_add(1);
}

/// The fields of an entry that the recount uses.
pub(crate) struct CountedEntry {
    pub(crate) entry_id: EntryId,
    tenant_id: TenantId,
    integration_id: IntegrationId,
    call_id: String,
    agent_id: Option<String>,
    provider: String,
    model: String,
    occurred_at: Timestamp,
    created_at: Timestamp,
    stored_bytes: i64,
    key_id: Option<KeyId>,
    tags: Tags,
    counted_tags: CountedTags,
    session_id: Option<String>,
    account_key_id: Option<KeyId>,
    limits_version: i64,
    facts: RollupFacts,
}

impl CountedEntry {
    /// Reads `entry_id, tenant_id, integration_id, call_id, agent_id, provider, model,
    /// occurred_at, created_at`, the bytes of all texts, `key_id, tags, counted_tags, session_id,
    /// account_key_id, limits_version`, and the columns of [`decode::rollup_facts`].
    pub(crate) fn read(row: &impl Columns) -> Result<Self, StoreError> {
        let (tenant_id, integration_id) = decode::integration_ref(row, 1)?;
        Ok(Self {
            entry_id: row.id(0, EntryId::from_number)?,
            tenant_id,
            integration_id,
            call_id: row.text(3)?,
            agent_id: row.opt_text(4)?,
            provider: row.text(5)?,
            model: row.text(6)?,
            occurred_at: row.instant(7)?,
            created_at: row.instant(8)?,
            stored_bytes: Usage::FIXED_BYTES.saturating_add(row.int(9)?),
            key_id: row.opt_id(10, KeyId::from_number)?,
            tags: codec::tags(row.opt_str(11)?)?,
            counted_tags: CountedTags::stored(row.int(12)?),
            session_id: row.opt_text(13)?,
            account_key_id: row.opt_id(14, KeyId::from_number)?,
            limits_version: row.int(15)?,
            facts: decode::rollup_facts(row, 16)?,
        })
    }

    /// The key of the entry's call id; `None` for a correction.
    pub(crate) fn call_key(&self) -> Result<Option<(TenantId, CallKey)>, StoreError> {
        match self.facts.kind {
            EntryKind::Correction => Ok(None),
            EntryKind::Usage => {
                let call_id = CallId::new(self.call_id.as_str())
                    .map_err(|error| StoreError::Corrupt(error.to_string()))?;
                Ok(Some((self.tenant_id, call_key(self.tenant_id, &call_id))))
            }
        }
    }

    /// What limits look at.
    fn subject(&self) -> Subject<'_> {
        Subject {
            integration_id: self.integration_id,
            account_key_id: self.account_key_id,
            model: Some(&self.model),
            agent_id: self.agent_id.as_deref(),
            session_id: self.session_id.as_deref(),
            tags: &self.tags,
        }
    }

    /// What the entry counts in accounts of limits.
    fn counted_amount(&self) -> CountedAmount {
        let went_on = self.facts.policy_result != PolicyResult::Blocked;
        let calls = i64::from(went_on && self.facts.kind == EntryKind::Usage);
        CountedAmount {
            occurred_at: self.occurred_at,
            created_at: self.created_at,
            limits_version: self.limits_version,
            amount: Totals { cost: self.facts.cost, tokens: self.facts.tokens.total(), calls },
        }
    }

    fn rollup_entry(&self) -> RollupEntry<'_> {
        RollupEntry {
            tenant_id: self.tenant_id,
            integration_id: self.integration_id,
            occurred_at: self.occurred_at,
            provider: &self.provider,
            model: &self.model,
            agent_id: self.agent_id.as_deref(),
            key_id: self.key_id,
            facts: self.facts,
        }
    }
}

/// The key of a rollup, owned.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct CountedRollup {
    tenant_id: TenantId,
    integration_id: IntegrationId,
    grain: i64,
    start: i32,
    provider: String,
    label: String,
    key_id: i64,
}

impl From<RollupKey<'_>> for CountedRollup {
    fn from(key: RollupKey<'_>) -> Self {
        let RollupKey { tenant_id, integration_id, grain, start, provider, label, key } = key;
        let (provider, label) = (provider.to_owned(), label.to_owned());
        let (grain, key_id) = (grain.code(), key.code());
        Self { tenant_id, integration_id, grain, start, provider, label, key_id }
    }
}

/// The labels and keys that have rollups of their own.
#[derive(Default)]
struct StoredLabels {
    labels: HashSet<(TenantId, i64, String, String)>,
    /// Days by model and key, by their stored rollups.
    keys: HashSet<CountedRollup>,
    /// How many of them each day of an integration has.
    keys_of_days: HashMap<(TenantId, IntegrationId, i32), i64>,
}

impl Admitted for StoredLabels {
    fn has_label(&self, label: Label<'_>) -> bool {
        let Label { tenant_id, kind, provider, label } = label;
        self.labels.contains(&(tenant_id, kind.code(), provider.to_owned(), label.to_owned()))
    }

    fn has_key(&self, key: KeyedModel<'_>) -> bool {
        let KeyedModel { tenant_id, integration_id, day, provider, model, key_id } = key;
        self.keys.contains(&CountedRollup {
            tenant_id,
            integration_id,
            grain: Grain::Day.code(),
            start: day,
            provider: provider.to_owned(),
            label: model.to_owned(),
            key_id: KeyLabel::Own(key_id).code(),
        })
    }
}

/// `tenant_id, integration_id, grain, start, provider, label, key_id` of a stored rollup.
fn rollup_key(row: &impl Columns) -> Result<CountedRollup, StoreError> {
    let (tenant_id, integration_id) = decode::integration_ref(row, 0)?;
    Ok(CountedRollup {
        tenant_id,
        integration_id,
        grain: row.int(2)?,
        start: row.int(3)?,
        provider: row.text(4)?,
        label: row.text(5)?,
        key_id: row.int(6)?,
    })
}

/// The recomputed sums that were not yet compared, and the report so far.
///
/// All labels and keys are added first, then all entries and open reservations, and then the stored
/// sums are compared. A compared sum is removed; the rest is missing in the database.
#[derive(Default)]
pub(crate) struct Recount {
    report: VerifyReport,
    /// Used and held totals.
    counters: HashMap<CounterKey, (Totals, Totals)>,
    rollups: HashMap<CountedRollup, Rollup>,
    admitted: StoredLabels,
    /// The number of entries that call ids must name.
    calls: i64,
    /// Open reservations by tenant.
    open: HashMap<TenantId, i64>,
    /// Bytes of the entries by the day on which they were stored.
    bytes: HashMap<(TenantId, IntegrationId, i32), i64>,
    limits: LimitRecount,
}

impl Recount {
    /// Adds a limit: the columns of [`LimitRow`](crate::rows::limit_row::LimitRow), and
    /// `since_version`.
    pub(crate) fn add_limit(&mut self, row: &impl RawColumns) -> Result<(), StoreError> {
        self.limits.add_limit(row)
    }

    /// Adds a stored account of a limit: `tenant_id, limit_id, value, period_start,
    /// used_cost_nanos, used_tokens, used_calls, held_cost_nanos, held_tokens, held_calls`.
    pub(crate) fn add_limit_account(&mut self, row: &impl Columns) -> Result<(), StoreError> {
        self.limits.add_account(row)
    }

    /// Adds the number of values of a limit: `tenant_id, limit_id, period_start, accounts`.
    pub(crate) fn add_limit_values(&mut self, row: &impl Columns) -> Result<(), StoreError> {
        self.limits.add_values(row)
    }

    /// Adds the postings of an open reservation: `tenant_id, call_key, estimated_cost_nanos,
    /// estimated_tokens, expires_at, postings`.
    pub(crate) fn add_posted(&mut self, row: &impl Columns) -> Result<(), StoreError> {
        self.limits.add_open(row)
    }

    /// Compares a stored posting: `tenant_id, limit_id, value, call_key, expires_at, cost_nanos,
    /// tokens`.
    pub(crate) fn compare_posting(&mut self, row: &impl Columns) -> Result<(), StoreError> {
        if let Some(difference) = self.limits.compare_posting(row)? {
            self.differ(|| difference);
        }
        Ok(())
    }

    /// Compares the accounts of limits, after all entries and postings.
    pub(crate) fn compare_limits(&mut self) -> Result<(), StoreError> {
        let (accounts, differences) = std::mem::take(&mut self.limits).differences()?;
        let accounts = u64::try_from(accounts).unwrap_or(u64::MAX);
        self.report.counters = self.report.counters.saturating_add(accounts);
        for difference in differences {
            self.differ(|| difference);
        }
        Ok(())
    }

    /// Adds a label that has rollups of its own: `tenant_id, kind, provider, label`.
    pub(crate) fn add_label(&mut self, row: &impl Columns) -> Result<(), StoreError> {
        let tenant_id = row.id(0, TenantId::from_number)?;
        self.admitted.labels.insert((tenant_id, row.int(1)?, row.text(2)?, row.text(3)?));
        Ok(())
    }

    /// Adds a key that has a rollup of its own: `tenant_id, integration_id, grain, start, provider,
    /// label, key_id`.
    pub(crate) fn add_key(&mut self, row: &impl Columns) -> Result<(), StoreError> {
        let key = rollup_key(row)?;
        let StoredLabels { keys, keys_of_days, .. } = &mut self.admitted;
        let of_day =
            keys_of_days.entry((key.tenant_id, key.integration_id, key.start)).or_default();
        *of_day = of_day.saturating_add(1);
        keys.insert(key);
        Ok(())
    }

    /// Adds an entry; `of_call` is the entry that its call id names.
    pub(crate) fn add_entry(
        &mut self,
        entry: &CountedEntry,
        of_call: Option<i64>,
    ) -> Result<(), StoreError> {
        count(&mut self.report.entries);
        let calls = match entry.facts.kind {
            EntryKind::Usage => 1,
            EntryKind::Correction => 0,
        };
        checked_sum::add(&mut self.calls, calls, "calls")?;
        if calls == 1 && of_call != Some(entry.entry_id.number()) {
            let entry_id = entry.entry_id;
            self.differ(|| format!("the call id of entry {entry_id} names another entry or none"));
        }
        let key = CounterKey {
            tenant_id: entry.tenant_id,
            integration_id: entry.integration_id,
            month: entry.occurred_at.month(),
        };
        let stored_on = (entry.tenant_id, entry.integration_id, entry.created_at.day().number());
        checked_sum::add(
            self.bytes.entry(stored_on).or_default(),
            entry.stored_bytes,
            "stored_bytes",
        )?;
        let tokens = entry.facts.tokens.total();
        let amount = Totals { cost: entry.facts.cost, tokens, calls };
        let (used, _) = self.counters.entry(key).or_default();
        *used = used.plus(amount)?;
        self.limits.add_entry(entry.tenant_id, &entry.subject(), &entry.counted_amount())?;
        let Self { rollups, admitted, .. } = self;
        let added = Rollup::of(&entry.facts);
        let of_entry = entry.rollup_entry();
        let tags = entry.counted_tags.of_tags(&entry.tags);
        let by_tag = tags.map(|tag| of_entry.tag_key(tag, admitted));
        for key in of_entry.keys(admitted).chain(by_tag) {
            rollups.entry(key.into()).or_default().add(&added)?;
        }
        Ok(())
    }

    /// Compares the number of stored call ids that name an entry.
    pub(crate) fn compare_calls(&mut self, stored: i64) {
        let counted = self.calls;
        if stored != counted {
            self.differ(|| format!("{stored} call ids name an entry, counted {counted} calls"));
        }
    }

    /// Adds an open reservation: `tenant_id, integration_id, estimated_cost_nanos,
    /// estimated_tokens, reserved_at`.
    pub(crate) fn add_open(&mut self, row: &impl Columns) -> Result<(), StoreError> {
        count(&mut self.report.open_reservations);
        let (tenant_id, integration_id) = decode::integration_ref(row, 0)?;
        checked_sum::add(self.open.entry(tenant_id).or_default(), 1, "open_reservations")?;
        let amount = Totals { cost: Nanos::new(row.int(2)?), tokens: row.int(3)?, calls: 1 };
        let key = CounterKey { tenant_id, integration_id, month: row.instant(4)?.month() };
        let (_, held) = self.counters.entry(key).or_default();
        *held = held.plus(amount)?;
        Ok(())
    }

    /// Compares a stored counter: `tenant_id, scope_id, month` and the columns of
    /// [`decode::counter`].
    pub(crate) fn compare_counter(&mut self, row: &impl Columns) -> Result<(), StoreError> {
        let (tenant_id, integration_id) = decode::integration_ref(row, 0)?;
        let key = CounterKey { tenant_id, integration_id, month: Month::from_number(row.int(2)?) };
        let stored = decode::counter(row, 3)?;
        count(&mut self.report.counters);
        let (used, held) = self.counters.remove(&key).unwrap_or_default();
        let of = || format!("{} of integration {}", key.month, key.integration_id);
        if stored.used != used {
            self.differ(|| format!("{}: used is {:?}, counted {used:?}", of(), stored.used));
        }
        if stored.held != held {
            self.differ(|| format!("{}: held is {:?}, counted {held:?}", of(), stored.held));
        }
        Ok(())
    }

    /// Compares a stored rollup: `tenant_id, integration_id, grain, start, provider, label, key_id`
    /// and the columns of [`Rollup::read`].
    pub(crate) fn compare_rollup(&mut self, row: &impl Columns) -> Result<(), StoreError> {
        let key = rollup_key(row)?;
        let stored = Rollup::read(row, 7)?;
        if key.key_id == KeyLabel::Other.code() {
            let of_day = (key.tenant_id, key.integration_id, key.start);
            let own = self.admitted.keys_of_days.get(&of_day).copied().unwrap_or_default();
            if own < MODEL_KEYS_MAX {
                self.differ(|| format!("rollup {key:?} is of other keys, but only {own} have one"));
            }
        }
        count(&mut self.report.rollups);
        let counted = self.rollups.remove(&key).unwrap_or_default();
        if stored != counted {
            self.differ(|| format!("rollup {key:?} is {stored:?}, counted {counted:?}"));
        }
        Ok(())
    }

    /// Compares a tenant's stored number of open reservations: `tenant_id, reservations`.
    pub(crate) fn compare_open(&mut self, row: &impl Columns) -> Result<(), StoreError> {
        let tenant_id = row.id(0, TenantId::from_number)?;
        let stored: i64 = row.int(1)?;
        self.differ_if(self.open.get(&tenant_id).copied(), stored, || {
            format!("open reservations of tenant {tenant_id}")
        });
        self.open.remove(&tenant_id);
        Ok(())
    }

    /// Compares the stored bytes of a day: `tenant_id, integration_id, day, bytes`.
    pub(crate) fn compare_bytes(&mut self, row: &impl Columns) -> Result<(), StoreError> {
        let (tenant_id, integration_id) = decode::integration_ref(row, 0)?;
        let (day, stored): (i32, i64) = (row.int(2)?, row.int(3)?);
        let key = (tenant_id, integration_id, day);
        self.differ_if(self.bytes.get(&key).copied(), stored, || {
            format!("bytes that integration {integration_id} stored on day {day}")
        });
        self.bytes.remove(&key);
        Ok(())
    }

    fn differ_if(&mut self, counted: Option<i64>, stored: i64, of: impl Fn() -> String) {
        let counted = counted.unwrap_or_default();
        if stored != counted {
            self.differ(|| format!("{}: {stored} are stored, counted {counted}", of()));
        }
    }

    /// Reports a difference.
    pub(crate) fn differ(&mut self, sentence: impl FnOnce() -> String) {
        self.report.differences.add(sentence);
    }

    /// The report, with the recomputed sums that are not stored.
    pub(crate) fn into_report(self) -> VerifyReport {
        let Self { mut report, counters, rollups, open, bytes, .. } = self;
        for (tenant_id, counted) in open {
            report.differences.add(|| {
                format!("open reservations of tenant {tenant_id}: none stored, counted {counted}")
            });
        }
        for ((_, integration_id, day), counted) in bytes {
            report.differences.add(|| {
                let of = format!("bytes that integration {integration_id} stored on day {day}");
                format!("{of}: none stored, counted {counted}")
            });
        }
        for (key, (used, held)) in counters {
            if (used, held) != (Totals::default(), Totals::default()) {
                report.differences.add(|| {
                    let of = format!("{} of integration {}", key.month, key.integration_id);
                    format!("{of}: no counter, counted {used:?} and held {held:?}")
                });
            }
        }
        for (key, counted) in rollups {
            report.differences.add(|| format!("no rollup {key:?}, counted {counted:?}"));
        }
        report
    }
}
