//! The labels and keys that have rollups of their own.
//!
//! A report adds up the rollups of its days, so their number is limited. Models, agents and values
//! of a tag have rollups of their own up to a number for each tenant, and keys up to a number for
//! each day of an integration. The rest shares rollups.

use std::collections::BTreeSet;

use bursar_core::{IntegrationId, KeyId, TagNames, TenantId};

use crate::error::StoreError;

/// The limit on the models of a tenant, on its agents, and on the values of one of its tags that
/// have rollups of their own.
pub(crate) const LABELS_MAX: i64 = 1_000;
/// The limit on the pairs of a model and a key that have rollups of their own on one day of an
/// integration.
///
/// It is for each day, so that keys can be rotated for ever. Reports that do not distinguish keys
/// read their rollups too: with this limit at most as many as the models of a tenant may have.
pub(crate) const MODEL_KEYS_MAX: i64 = 1_000;
/// The label of the rollups of all other models, agents or values.
pub const OTHER: &str = "other";

/// The kind of a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum LabelKind {
    Model,
    Agent,
    Tag,
}

impl LabelKind {
    pub(crate) const fn code(self) -> i64 {
        match self {
            Self::Model => 1,
            Self::Agent => 2,
            Self::Tag => 3,
        }
    }
}

/// The key that wrote the calls of a rollup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum KeyLabel {
    /// Keys without a rollup of their own.
    Other,
    /// A person or the operator, or any writer where rollups do not distinguish them.
    NoKey,
    Own(KeyId),
}

impl KeyLabel {
    /// The stored code of [`KeyLabel::Other`].
    pub(crate) const OTHER_KEYS: i64 = -1;

    /// The stored code: the number of the key, which is positive, or none.
    pub(crate) const fn code(self) -> i64 {
        match self {
            Self::Other => Self::OTHER_KEYS,
            Self::NoKey => 0,
            Self::Own(key_id) => key_id.number(),
        }
    }
}

/// A label of a tenant: a model of a provider, an agent, or a value of a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Label<'a> {
    pub(crate) tenant_id: TenantId,
    pub(crate) kind: LabelKind,
    /// The provider of a model, or the name of a tag.
    pub(crate) provider: &'a str,
    pub(crate) label: &'a str,
}

impl<'a> Label<'a> {
    /// The labels with which it shares the limit [`LABELS_MAX`]: those of its kind, or the values of
    /// its tag.
    pub(crate) const fn family(self) -> (TenantId, LabelKind, &'a str) {
        let tag = match self.kind {
            LabelKind::Model | LabelKind::Agent => "",
            LabelKind::Tag => self.provider,
        };
        (self.tenant_id, self.kind, tag)
    }
}

/// A key that called a model on a day. The model is the label of the rollup, which may be [`OTHER`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct KeyedModel<'a> {
    pub(crate) tenant_id: TenantId,
    pub(crate) integration_id: IntegrationId,
    /// Days since 1970.
    pub(crate) day: i32,
    pub(crate) provider: &'a str,
    pub(crate) model: &'a str,
    pub(crate) key_id: KeyId,
}

/// Decides which labels and keys have rollups of their own.
pub(crate) trait Labels {
    /// The tag names of a tenant whose usage is added up by value.
    fn tag_names(&mut self, tenant_id: TenantId) -> Result<TagNames, StoreError>;

    /// Returns the labels among `wanted` that are known or are added now, within [`LABELS_MAX`].
    ///
    /// It is called once for each group.
    fn admit<'a>(
        &mut self,
        wanted: &BTreeSet<Label<'a>>,
    ) -> Result<BTreeSet<Label<'a>>, StoreError>;

    /// Returns the keys among `wanted` that have rollups, or get them within [`MODEL_KEYS_MAX`].
    ///
    /// It is called once for each group. The group has locked the integrations.
    fn admit_keys<'a>(
        &mut self,
        wanted: &BTreeSet<KeyedModel<'a>>,
    ) -> Result<BTreeSet<KeyedModel<'a>>, StoreError>;
}

/// Tells which labels and keys were admitted.
pub(crate) trait Admitted {
    fn has_label(&self, label: Label<'_>) -> bool;
    fn has_key(&self, key: KeyedModel<'_>) -> bool;
}
