//! The tag names of a tenant whose usage is added up by value.

use async_trait::async_trait;
use bursar_core::{TagNames, TenantId};

use super::query::Query;
use super::value::{FromRow, values};
use crate::error::StoreError;
use crate::rows::columns::{Columns, RawColumns};
use crate::write::writer_connection::ControlTx;

pub(crate) const SELECT_TAG_NAMES: &str = "select name from tag_names where tenant_id = $1";
const DELETE_TAG_NAMES: &str = "delete from tag_names where tenant_id = $1";
const INSERT_TAG_NAME: &str = "insert into tag_names (tenant_id, name) values ($1, $2)";

/// Reads of tag names.
#[async_trait]
pub trait TagNameReads: Send + Sync {
    /// The tag names of a tenant whose usage is added up by value.
    async fn tag_names(&self, tenant_id: TenantId) -> Result<TagNames, StoreError>;
}

#[async_trait]
impl<S: Query> TagNameReads for S {
    async fn tag_names(&self, tenant_id: TenantId) -> Result<TagNames, StoreError> {
        let names: Vec<TagName> =
            self.rows(tenant_id, SELECT_TAG_NAMES, values![tenant_id]).await?;
        Ok(TagNames::stored(names.into_iter().map(|TagName(name)| name).collect()))
    }
}

impl dyn ControlTx + '_ {
    /// Replaces the tag names of a tenant. Records that are already stored count as before.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn put_tag_names(
        &mut self,
        tenant_id: TenantId,
        names: &TagNames,
    ) -> Result<(), StoreError> {
        self.execute(tenant_id, DELETE_TAG_NAMES.into(), &values![tenant_id])?;
        for name in names.iter() {
            self.execute(tenant_id, INSERT_TAG_NAME.into(), &values![tenant_id, name])?;
        }
        Ok(())
    }
}

struct TagName(Box<str>);

impl FromRow for TagName {
    fn from_row(row: &dyn RawColumns) -> Result<Self, StoreError> {
        row.text(0).map(Self)
    }
}
