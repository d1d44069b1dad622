//! Which models and agents have rollups of their own: remembered, because almost all of a group's
//! are known, and decided under a lock when one is new.

use std::collections::{BTreeSet, HashSet};

use bursar_core::TenantId;

use super::bulk::{Bulk, Column};
use super::lane::PostgresLane;
use super::tx::{params, store_error};
use crate::error::StoreError;
use crate::rows::rollup::{Label, LabelKind, Labels};

/// What the labels take that a lane remembers; beyond that it begins anew. A tenant has 11,000 at
/// most (`LabelKind::max`).
const REMEMBERED_BYTES_MAX: usize = 16 * 1024 * 1024;
/// What a label takes besides its texts.
const LABEL_BYTES: usize = 80;

const LOCK_COUNT: &str = "insert into rollup_label_counts (tenant_id, kind, labels) \
     values ($1, $2, 0) on conflict (tenant_id, kind) \
     do update set labels = rollup_label_counts.labels returning labels";
// Label by label: a join would read every label of the tenant.
const SELECT_LABELS: &str = "select asked.place from \
     unnest($3::text[], $4::text[]) with ordinality as asked (provider, label, place) \
     cross join lateral (select label from rollup_labels where tenant_id = $1 and kind = $2 \
     and provider = asked.provider and label = asked.label limit 1) known";
const INSERT_LABELS: &str = "insert into rollup_labels (tenant_id, kind, provider, label) \
     values ($1, $2, unnest($3), unnest($4))";
const SET_COUNT: &str =
    "update rollup_label_counts set labels = $3 where tenant_id = $1 and kind = $2";

type Owned = (TenantId, LabelKind, Box<str>, Box<str>);

/// Labels that are stored, as far as a lane remembers them.
#[derive(Default)]
pub(super) struct KnownLabels {
    stored: HashSet<Owned>,
    stored_bytes: usize,
    /// Those that the transaction adds or met.
    staged: Vec<Owned>,
}

impl KnownLabels {
    fn knows(&self, (tenant_id, kind, provider, label): Label<'_>) -> bool {
        self.stored.contains(&(tenant_id, kind, provider.into(), label.into()))
    }

    /// After a commit: what was added is stored.
    pub(super) fn keep_staged(&mut self) {
        for label in self.staged.drain(..) {
            let bytes = LABEL_BYTES + label.2.len() + label.3.len();
            if self.stored_bytes + bytes > REMEMBERED_BYTES_MAX {
                self.stored.clear();
                self.stored_bytes = 0;
            }
            if self.stored.insert(label) {
                self.stored_bytes += bytes;
            }
        }
    }

    pub(super) fn forget_staged(&mut self) {
        self.staged.clear();
    }
}

pub(super) struct StoredLabels<'a>(pub(super) &'a mut PostgresLane);

impl Labels for StoredLabels<'_> {
    fn admit<'a>(
        &mut self,
        asked: &BTreeSet<Label<'a>>,
    ) -> Result<BTreeSet<Label<'a>>, StoreError> {
        let (mut admitted, unknown): (BTreeSet<_>, BTreeSet<_>) =
            asked.iter().partition(|label| self.0.labels.knows(**label));
        let unknown: Vec<Label<'a>> = unknown.into_iter().collect();
        // Sorted, so of one tenant and kind after the other.
        for part in unknown.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
            admitted.extend(self.admit_part(part)?);
        }
        Ok(admitted)
    }
}

impl StoredLabels<'_> {
    /// Admits labels of one tenant and kind that are not remembered.
    fn admit_part<'a>(&mut self, part: &[Label<'a>]) -> Result<Vec<Label<'a>>, StoreError> {
        let Some(&(tenant_id, kind, ..)) = part.first() else { return Ok(Vec::new()) };
        let (tenant, code) = (tenant_id.number(), kind.code());
        let known = self.0.ask_of(Some(tenant_id), async |client| {
            let places = stored(client, tenant, code, part).await?;
            let is_all = places.len() == part.len();
            if is_all {
                return Ok(places);
            }
            // Others may have added some, until this is answered and the row is ours.
            let count = client.query_typed_one(LOCK_COUNT, params![tenant, code]).await;
            let count: i64 = count.and_then(|row| row.try_get(0)).map_err(store_error)?;
            let mut places = stored(client, tenant, code, part).await?;
            let room = usize::try_from(kind.max() - count).unwrap_or(0);
            let new: Vec<usize> =
                (0..part.len()).filter(|place| !places.contains(place)).take(room).collect();
            if !new.is_empty() {
                insert(client, tenant, code, count, part, &new).await?;
                places.extend(new);
            }
            Ok(places)
        })?;
        let admitted: Vec<Label<'a>> =
            known.into_iter().filter_map(|place| part.get(place)).copied().collect();
        let owned = |label: &Label<'a>| (label.0, label.1, label.2.into(), label.3.into());
        self.0.labels.staged.extend(admitted.iter().map(owned));
        Ok(admitted)
    }
}

/// The places of those labels that are stored.
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
    let place = |row: &tokio_postgres::Row| row.try_get::<_, i64>(0).map_err(store_error);
    rows.iter().map(|row| Ok(usize::try_from(place(row)? - 1).unwrap_or(usize::MAX))).collect()
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
        new.iter().filter_map(|place| part.get(*place)).map(|label| (label.2, label.3)).unzip();
    let count = count + i64::try_from(new.len()).unwrap_or(i64::MAX);
    let columns = vec![Column::Texts(providers), Column::Texts(labels)];
    let bulk = Bulk { sql: INSERT_LABELS, rows: new.len(), columns };
    bulk.execute(client, &[tenant, kind]).await?;
    client.execute_typed(SET_COUNT, params![tenant, kind, count]).await.map_err(store_error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_the_greatest_length_are_bounded_in_bytes() {
        let mut known = KnownLabels::default();
        let long = "\u{1f4b8}".repeat(250);
        for tenant in 1..=4 {
            let tenant_id = TenantId::from_number(tenant).expect("in range");
            for number in 0..10_000 {
                let label = format!("{long}{number}").into();
                known.staged.push((tenant_id, LabelKind::Agent, "".into(), label));
            }
            known.keep_staged();
            let bytes: usize = known.stored.iter().map(|label| label.3.len()).sum();
            assert!(bytes <= known.stored_bytes && bytes <= REMEMBERED_BYTES_MAX, "{bytes}");
        }
        assert!(!known.stored.is_empty() && known.staged.is_empty());
    }
}
