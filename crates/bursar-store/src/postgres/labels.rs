//! Decides which models, agents, values of tags and keys have rollups of their own; for new labels
//! under a lock.

use std::collections::{BTreeMap, BTreeSet};

use bursar_core::{IntegrationId, TagNames, TenantId};
use tokio_postgres::Client;

use super::bulk::{Bulk, Column};
use super::known_labels::Known;
use super::tx::{params, store_error};
use super::writer_state::PostgresWriter;
use crate::error::StoreError;
use crate::rows::columns::Columns;
use crate::rows::rollup_labels::{KeyLabel, KeyedModel, LABELS_MAX, Label, Labels, MODEL_KEYS_MAX};
use crate::tables::tag_names::SELECT_TAG_NAMES;

const LOCK_COUNT: &str = "insert into rollup_label_counts (tenant_id, kind, tag, labels) \
     values ($1, $2, $3, 0) on conflict (tenant_id, kind, tag) \
     do update set labels = rollup_label_counts.labels returning labels";
// Looks up label by label, because a join would read all labels of the tenant.
const SELECT_LABELS: &str = "select wanted.position from \
     unnest($3::text[], $4::text[]) with ordinality as wanted (provider, label, position) \
     cross join lateral (select label from rollup_labels where tenant_id = $1 and kind = $2 \
     and provider = wanted.provider and label = wanted.label limit 1) known";
const INSERT_LABELS: &str = "insert into rollup_labels (tenant_id, kind, provider, label) \
     values ($1, $2, unnest($3), unnest($4))";
const SET_COUNT: &str = "update rollup_label_counts set labels = $4 \
     where tenant_id = $1 and kind = $2 and tag = $3";
const SELECT_KEYS: &str = "select wanted.position from \
     unnest($2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::bigint[]) with ordinality \
     as wanted (integration_id, start, provider, label, key_id, position) \
     cross join lateral (select key_id from rollups where tenant_id = $1 \
     and integration_id = wanted.integration_id and grain = 2 and start = wanted.start \
     and provider = wanted.provider and label = wanted.label \
     and key_id = wanted.key_id limit 1) stored";
const COUNT_KEYS_OF_DAYS: &str = "select days.position, counted.keys from \
     unnest($2::bigint[], $3::bigint[]) with ordinality as days (integration_id, start, position) \
     cross join lateral (select count(*) as keys from rollups where tenant_id = $1 \
     and integration_id = days.integration_id and grain = 2 and start = days.start \
     and key_id > 0) counted";

pub(super) struct StoredLabels<'a>(pub(super) &'a mut PostgresWriter);

impl Labels for StoredLabels<'_> {
    fn tag_names(&mut self, tenant_id: TenantId) -> Result<TagNames, StoreError> {
        self.0.query_in_tx(Some(tenant_id), async |client| {
            let tenant = tenant_id.number();
            let rows = client.query_typed(SELECT_TAG_NAMES, params![tenant]).await;
            let rows = rows.map_err(store_error)?;
            let names = rows.iter().map(|row| row.text(0)).collect::<Result<_, _>>()?;
            Ok(TagNames::stored(names))
        })
    }

    fn admit<'a>(
        &mut self,
        wanted: &BTreeSet<Label<'a>>,
    ) -> Result<BTreeSet<Label<'a>>, StoreError> {
        let (mut admitted, unknown): (BTreeSet<_>, BTreeSet<_>) =
            wanted.iter().partition(|label| self.0.known.contains(&Known::from(**label)));
        let unknown: Vec<Label<'a>> = unknown.into_iter().collect();
        // They are sorted by family.
        for part in unknown.chunk_by(|a, b| a.family() == b.family()) {
            admitted.extend(self.admit_part(part)?);
        }
        Ok(admitted)
    }

    fn admit_keys<'a>(
        &mut self,
        wanted: &BTreeSet<KeyedModel<'a>>,
    ) -> Result<BTreeSet<KeyedModel<'a>>, StoreError> {
        let (mut admitted, unknown): (BTreeSet<_>, BTreeSet<_>) =
            wanted.iter().partition(|key| self.0.known.contains(&Known::from(**key)));
        let unknown: Vec<KeyedModel<'a>> = unknown.into_iter().collect();
        for part in unknown.chunk_by(|a, b| a.tenant_id == b.tenant_id) {
            admitted.extend(self.admit_keys_part(part)?);
        }
        Ok(admitted)
    }
}

impl StoredLabels<'_> {
    /// Admits labels of one family that are not in the cache.
    fn admit_part<'a>(&mut self, part: &[Label<'a>]) -> Result<Vec<Label<'a>>, StoreError> {
        let Some(first) = part.first() else { return Ok(Vec::new()) };
        let (tenant_id, kind, tag) = first.family();
        let (tenant, code) = (tenant_id.number(), kind.code());
        let known = self.0.query_in_tx(Some(tenant_id), async |client| {
            let positions = stored(client, tenant, code, part).await?;
            if positions.len() == part.len() {
                return Ok(positions);
            }
            // Until this locks the row, other servers may add labels, so they are read again.
            let count = client.query_typed_one(LOCK_COUNT, params![tenant, code, tag]).await;
            let count: i64 = count.and_then(|row| row.try_get(0)).map_err(store_error)?;
            let mut positions = stored(client, tenant, code, part).await?;
            let room = usize::try_from(LABELS_MAX - count).unwrap_or(0);
            let new: Vec<usize> =
                (0..part.len()).filter(|at| !positions.contains(at)).take(room).collect();
            if !new.is_empty() {
                let added: Vec<Label<'a>> =
                    new.iter().filter_map(|at| part.get(*at)).copied().collect();
                insert(client, &added, count).await?;
                positions.extend(new);
            }
            Ok(positions)
        })?;
        let admitted: Vec<Label<'a>> =
            known.into_iter().filter_map(|at| part.get(at)).copied().collect();
        self.0.known.stage(admitted.iter().copied().map(Known::from));
        Ok(admitted)
    }

    /// Admits keys of one tenant that are not in the cache.
    ///
    /// The transaction has locked their integrations, so no other one adds keys meanwhile.
    fn admit_keys_part<'a>(
        &mut self,
        part: &[KeyedModel<'a>],
    ) -> Result<Vec<KeyedModel<'a>>, StoreError> {
        let Some(first) = part.first() else { return Ok(Vec::new()) };
        let tenant_id = first.tenant_id;
        let tenant = tenant_id.number();
        let admitted = self.0.query_in_tx(Some(tenant_id), async |client| {
            let stored = stored_keys(client, tenant, part).await?;
            let is_new = |at: &usize| !stored.contains_key(at);
            let new = (0..part.len()).filter(is_new).filter_map(|at| part.get(at));
            let mut room = room_of_days(client, tenant, new).await?;
            let mut admitted = Vec::new();
            for (at, key) in part.iter().enumerate() {
                let is_admitted = match stored.get(&at) {
                    Some(KeyLabel::Own(_)) => true,
                    Some(KeyLabel::Other | KeyLabel::NoKey) => false,
                    None => room.get_mut(&(key.integration_id, key.day)).is_some_and(|room| {
                        *room -= 1;
                        *room >= 0
                    }),
                };
                admitted.extend(is_admitted.then_some(*key));
            }
            Ok(admitted)
        })?;
        self.0.known.stage(admitted.iter().copied().map(Known::from));
        Ok(admitted)
    }
}

/// The positions in `part` of the labels that are stored.
async fn stored(
    client: &Client,
    tenant: i64,
    kind: i64,
    part: &[Label<'_>],
) -> Result<BTreeSet<usize>, StoreError> {
    let (providers, labels): (Vec<&str>, Vec<&str>) =
        part.iter().map(|label| (label.provider, label.label)).unzip();
    let key = params![tenant, kind, providers, labels];
    let rows = client.query_typed(SELECT_LABELS, key).await.map_err(store_error)?;
    rows.iter().map(|row| position(row.int(0)?)).collect()
}

/// A position in an array of the database, which counts from 1.
fn position(number: i64) -> Result<usize, StoreError> {
    let outside = |_| StoreError::Corrupt(format!("{number} is no position"));
    usize::try_from(number - 1).map_err(outside)
}

/// Adds labels of one family, of which `count` are stored.
async fn insert(client: &Client, added: &[Label<'_>], count: i64) -> Result<(), StoreError> {
    let Some(first) = added.first() else { return Ok(()) };
    let (tenant_id, kind, tag) = first.family();
    let (tenant, kind) = (tenant_id.number(), kind.code());
    let count = count + i64::try_from(added.len()).unwrap_or(i64::MAX);
    let (providers, labels): (Vec<&str>, Vec<&str>) =
        added.iter().map(|label| (label.provider, label.label)).unzip();
    let columns = vec![Column::Texts(providers), Column::Texts(labels)];
    let bulk = Bulk { sql: INSERT_LABELS, rows: added.len(), columns };
    bulk.execute(client, &[tenant, kind]).await?;
    let counted = params![tenant, kind, tag, count];
    client.execute_typed(SET_COUNT, counted).await.map_err(store_error)?;
    Ok(())
}

/// What is stored of keys, by position in `part`: the key itself or the other keys of its model.
async fn stored_keys(
    client: &Client,
    tenant: i64,
    part: &[KeyedModel<'_>],
) -> Result<BTreeMap<usize, KeyLabel>, StoreError> {
    // First all keys themselves, and then the other keys of all models.
    let labels = part.iter().map(|key| KeyLabel::Own(key.key_id));
    let labels: Vec<KeyLabel> = labels.chain(part.iter().map(|_| KeyLabel::Other)).collect();
    let twice = || part.iter().chain(part);
    let integrations: Vec<i64> = twice().map(|key| key.integration_id.number()).collect();
    let days: Vec<i64> = twice().map(|key| key.day.into()).collect();
    let (providers, models): (Vec<&str>, Vec<&str>) =
        twice().map(|key| (key.provider, key.model)).unzip();
    let keys: Vec<i64> = labels.iter().map(|label| label.code()).collect();
    let wanted = params![tenant, integrations, days, providers, models, keys];
    let rows = client.query_typed(SELECT_KEYS, wanted).await.map_err(store_error)?;
    let mut stored = BTreeMap::new();
    for row in &rows {
        let at = position(row.int(0)?)?;
        if let Some(label) = labels.get(at) {
            stored.entry(at % part.len()).or_insert(*label);
        }
    }
    Ok(stored)
}

/// How many more keys may get rollups of their own on the days of these keys.
async fn room_of_days<'k>(
    client: &Client,
    tenant: i64,
    keys: impl Iterator<Item = &'k KeyedModel<'k>>,
) -> Result<BTreeMap<(IntegrationId, i32), i64>, StoreError> {
    let days: BTreeSet<(IntegrationId, i32)> =
        keys.map(|key| (key.integration_id, key.day)).collect();
    if days.is_empty() {
        return Ok(BTreeMap::new());
    }
    let days: Vec<(IntegrationId, i32)> = days.into_iter().collect();
    let (integrations, starts): (Vec<i64>, Vec<i64>) =
        days.iter().map(|(integration_id, day)| (integration_id.number(), i64::from(*day))).unzip();
    let wanted = params![tenant, integrations, starts];
    let rows = client.query_typed(COUNT_KEYS_OF_DAYS, wanted).await.map_err(store_error)?;
    let mut room = BTreeMap::new();
    for row in &rows {
        if let Some(day) = days.get(position(row.int(0)?)?) {
            room.insert(*day, MODEL_KEYS_MAX - row.int::<i64>(1)?);
        }
    }
    Ok(room)
}
