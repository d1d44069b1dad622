//! Decides which models, agents, values of tags and keys have rollups of their own.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use bursar_core::{IntegrationId, TagNames, TenantId};
use rusqlite::{Connection, params};

use super::error::store_error;
use crate::error::StoreError;
use crate::rows::rollup_labels::{
    KeyLabel, KeyedModel, LABELS_MAX, Label, LabelKind, Labels, MODEL_KEYS_MAX,
};
use crate::tables::tag_names::SELECT_TAG_NAMES;

const SELECT_LABEL: &str = "select 1 from rollup_labels \
     where tenant_id = ?1 and kind = ?2 and provider = ?3 and label = ?4";
const COUNT_LABELS: &str = "select count(*) from rollup_labels where tenant_id = ?1 and kind = ?2";
const COUNT_VALUES: &str =
    "select count(*) from rollup_labels where tenant_id = ?1 and kind = ?2 and provider = ?3";
const INSERT_LABEL: &str =
    "insert into rollup_labels (tenant_id, kind, provider, label) values (?1, ?2, ?3, ?4)";

/// The key itself if it has a rollup, or else the code of the other keys if they have one.
const SELECT_KEY: &str = "select max(key_id) from rollups where tenant_id = ?1 \
     and integration_id = ?2 and grain = 2 and start = ?3 and provider = ?4 and label = ?5 \
     and key_id in (?6, ?7)";
const COUNT_KEYED: &str = "select count(*) from rollups where tenant_id = ?1 \
     and integration_id = ?2 and grain = 2 and start = ?3 and key_id > 0";

pub(super) struct StoredLabels<'a>(pub(super) &'a Connection);

impl Labels for StoredLabels<'_> {
    fn tag_names(&mut self, tenant_id: TenantId) -> Result<TagNames, StoreError> {
        let mut select = self.0.prepare_cached(SELECT_TAG_NAMES).map_err(store_error)?;
        let names =
            select.query_map([tenant_id.number()], |row| row.get(0)).map_err(store_error)?;
        names.collect::<Result<_, _>>().map(TagNames::stored).map_err(store_error)
    }

    fn admit<'a>(
        &mut self,
        wanted: &BTreeSet<Label<'a>>,
    ) -> Result<BTreeSet<Label<'a>>, StoreError> {
        let mut admitted = BTreeSet::new();
        // Labels are counted once for the group, and only if there are new ones.
        let mut counts: BTreeMap<(TenantId, LabelKind, &str), i64> = BTreeMap::new();
        for &label in wanted {
            if self.is_known(label)? {
                admitted.insert(label);
                continue;
            }
            let count = match counts.entry(label.family()) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(unknown) => unknown.insert(self.count(label)?),
            };
            if *count < LABELS_MAX {
                self.insert(label)?;
                *count += 1;
                admitted.insert(label);
            }
        }
        Ok(admitted)
    }

    fn admit_keys<'a>(
        &mut self,
        wanted: &BTreeSet<KeyedModel<'a>>,
    ) -> Result<BTreeSet<KeyedModel<'a>>, StoreError> {
        let mut admitted = BTreeSet::new();
        let mut counts: BTreeMap<(TenantId, IntegrationId, i32), i64> = BTreeMap::new();
        for &key in wanted {
            let has_room = match self.stored_key(key)? {
                Some(KeyLabel::OTHER_KEYS) => false,
                Some(_) => true,
                None => {
                    let count = match counts.entry((key.tenant_id, key.integration_id, key.day)) {
                        Entry::Occupied(known) => known.into_mut(),
                        Entry::Vacant(unknown) => unknown.insert(self.count_keyed(key)?),
                    };
                    *count += 1;
                    *count <= MODEL_KEYS_MAX
                }
            };
            if has_room {
                admitted.insert(key);
            }
        }
        Ok(admitted)
    }
}

impl StoredLabels<'_> {
    fn is_known(&self, label: Label<'_>) -> Result<bool, StoreError> {
        let Label { tenant_id, kind, provider, label } = label;
        let mut select = self.0.prepare_cached(SELECT_LABEL).map_err(store_error)?;
        let key = params![tenant_id.number(), kind.code(), provider, label];
        select.exists(key).map_err(store_error)
    }

    /// The number of labels in the family of a label.
    fn count(&self, label: Label<'_>) -> Result<i64, StoreError> {
        let (tenant, kind) = (label.tenant_id.number(), label.kind.code());
        let counted = match label.kind {
            LabelKind::Model | LabelKind::Agent => {
                let mut count = self.0.prepare_cached(COUNT_LABELS).map_err(store_error)?;
                count.query_row(params![tenant, kind], |row| row.get(0))
            }
            LabelKind::Tag => {
                let mut count = self.0.prepare_cached(COUNT_VALUES).map_err(store_error)?;
                count.query_row(params![tenant, kind, label.provider], |row| row.get(0))
            }
        };
        counted.map_err(store_error)
    }

    fn insert(&self, label: Label<'_>) -> Result<(), StoreError> {
        let Label { tenant_id, kind, provider, label } = label;
        let mut insert = self.0.prepare_cached(INSERT_LABEL).map_err(store_error)?;
        let row = params![tenant_id.number(), kind.code(), provider, label];
        insert.execute(row).map(|_| ()).map_err(store_error)
    }

    fn stored_key(&self, key: KeyedModel<'_>) -> Result<Option<i64>, StoreError> {
        let KeyedModel { tenant_id, integration_id, day, provider, model, key_id } = key;
        let (own, other) = (KeyLabel::Own(key_id).code(), KeyLabel::OTHER_KEYS);
        let mut select = self.0.prepare_cached(SELECT_KEY).map_err(store_error)?;
        let (tenant, integration) = (tenant_id.number(), integration_id.number());
        let key = params![tenant, integration, day, provider, model, own, other];
        select.query_row(key, |row| row.get(0)).map_err(store_error)
    }

    fn count_keyed(&self, key: KeyedModel<'_>) -> Result<i64, StoreError> {
        let mut count = self.0.prepare_cached(COUNT_KEYED).map_err(store_error)?;
        let day = params![key.tenant_id.number(), key.integration_id.number(), key.day];
        count.query_row(day, |row| row.get(0)).map_err(store_error)
    }
}
