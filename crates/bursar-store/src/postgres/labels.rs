//! Decides which models and agents have rollups of their own; for new ones under a lock.

use std::collections::BTreeSet;

use super::bulk::{Bulk, Column};
use super::tx::{params, store_error};
use super::writer_state::PostgresWriter;
use crate::error::StoreError;
use crate::rows::rollup::{Label, Labels};

const LOCK_COUNT: &str = "insert into rollup_label_counts (tenant_id, kind, labels) \
     values ($1, $2, 0) on conflict (tenant_id, kind) \
     do update set labels = rollup_label_counts.labels returning labels";
// Looks up label by label, because a join would read all labels of the tenant.
const SELECT_LABELS: &str = "select wanted.position from \
     unnest($3::text[], $4::text[]) with ordinality as wanted (provider, label, position) \
     cross join lateral (select label from rollup_labels where tenant_id = $1 and kind = $2 \
     and provider = wanted.provider and label = wanted.label limit 1) known";
const INSERT_LABELS: &str = "insert into rollup_labels (tenant_id, kind, provider, label) \
     values ($1, $2, unnest($3), unnest($4))";
const SET_COUNT: &str =
    "update rollup_label_counts set labels = $3 where tenant_id = $1 and kind = $2";

pub(super) struct StoredLabels<'a>(pub(super) &'a mut PostgresWriter);

impl Labels for StoredLabels<'_> {
    fn admit<'a>(
        &mut self,
        wanted: &BTreeSet<Label<'a>>,
    ) -> Result<BTreeSet<Label<'a>>, StoreError> {
        let (mut admitted, unknown): (BTreeSet<_>, BTreeSet<_>) =
            wanted.iter().partition(|label| self.0.labels.contains(**label));
        let unknown: Vec<Label<'a>> = unknown.into_iter().collect();
        // They are sorted by tenant and kind.
        for part in unknown.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
            admitted.extend(self.admit_part(part)?);
        }
        Ok(admitted)
    }
}

impl StoredLabels<'_> {
    /// Admits labels of one tenant and kind that are not in the cache.
    fn admit_part<'a>(&mut self, part: &[Label<'a>]) -> Result<Vec<Label<'a>>, StoreError> {
        let Some(&(tenant_id, kind, ..)) = part.first() else { return Ok(Vec::new()) };
        let (tenant, code) = (tenant_id.number(), kind.code());
        let known = self.0.query_in_tx(Some(tenant_id), async |client| {
            let positions = stored(client, tenant, code, part).await?;
            if positions.len() == part.len() {
                return Ok(positions);
            }
            // Until this locks the row, other servers may add labels, so they are read again.
            let count = client.query_typed_one(LOCK_COUNT, params![tenant, code]).await;
            let count: i64 = count.and_then(|row| row.try_get(0)).map_err(store_error)?;
            let mut positions = stored(client, tenant, code, part).await?;
            let room = usize::try_from(kind.max() - count).unwrap_or(0);
            let new: Vec<usize> =
                (0..part.len()).filter(|at| !positions.contains(at)).take(room).collect();
            if !new.is_empty() {
                insert(client, tenant, code, count, part, &new).await?;
                positions.extend(new);
            }
            Ok(positions)
        })?;
        let admitted: Vec<Label<'a>> =
            known.into_iter().filter_map(|at| part.get(at)).copied().collect();
        self.0.labels.stage(&admitted);
        Ok(admitted)
    }
}

/// The positions in `part` of the labels that are stored.
async fn stored(
    client: &tokio_postgres::Client,
    tenant: i64,
    kind: i64,
    part: &[Label<'_>],
) -> Result<BTreeSet<usize>, StoreError> {
    let (providers, labels): (Vec<&str>, Vec<&str>) =
        part.iter().map(|label| (label.2, label.3)).unzip();
    let key = params![tenant, kind, providers, labels];
    let rows = client.query_typed(SELECT_LABELS, key).await.map_err(store_error)?;
    let position = |row: &tokio_postgres::Row| row.try_get::<_, i64>(0).map_err(store_error);
    rows.iter().map(|row| Ok(usize::try_from(position(row)? - 1).unwrap_or(usize::MAX))).collect()
}

async fn insert(
    client: &tokio_postgres::Client,
    tenant: i64,
    kind: i64,
    count: i64,
    part: &[Label<'_>],
    new: &[usize],
) -> Result<(), StoreError> {
    let (providers, labels): (Vec<&str>, Vec<&str>) =
        new.iter().filter_map(|at| part.get(*at)).map(|label| (label.2, label.3)).unzip();
    let count = count + i64::try_from(new.len()).unwrap_or(i64::MAX);
    let columns = vec![Column::Texts(providers), Column::Texts(labels)];
    let bulk = Bulk { sql: INSERT_LABELS, rows: new.len(), columns };
    bulk.execute(client, &[tenant, kind]).await?;
    client.execute_typed(SET_COUNT, params![tenant, kind, count]).await.map_err(store_error)?;
    Ok(())
}
