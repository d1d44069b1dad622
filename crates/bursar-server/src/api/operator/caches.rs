//! What this node keeps in memory for a while, for the operator.

use axum::extract::State;
use bursar_core::{ParseIdError, TenantId};
use bursar_store::{Cache, CacheUse};
use serde::Serialize;
use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;

use crate::api::route::{Routes, Rule};
use crate::app::App;
use crate::auth::access::OPERATOR;
use crate::auth::authorize::Operator;
use crate::wire::envelope::Answer;
use crate::wire::error::ApiError;
use crate::wire::error_code::ErrorCode;
use crate::wire::params::{Path, Query};
use crate::wire::scalars::Id;
use crate::wire::schema::query;

/// Tenants that are named for each cache.
const FULLEST_MAX: usize = 10;

/// How full a cache is.
#[derive(Debug, Serialize, ToSchema)]
pub struct CacheView {
    name: &'static str,
    /// Entries in it.
    entries: u64,
    /// Entries at most, of all tenants.
    entries_max: u64,
    /// Entries of one tenant at most.
    tenant_entries_max: u64,
    /// About how many bytes the entries take, where that is counted.
    #[schema(value_type = Option<u64>, required)]
    bytes: Option<u64>,
    #[schema(value_type = Option<u64>, required)]
    bytes_max: Option<u64>,
    /// The ten tenants that have most.
    fullest: Vec<CacheTenant>,
}

/// What a tenant has in a cache.
#[derive(Debug, Serialize, ToSchema)]
struct CacheTenant {
    #[schema(value_type = Id)]
    tenant_id: String,
    entries: u64,
}

/// What was forgotten.
#[derive(Debug, Serialize, ToSchema)]
pub struct CacheCleared {
    name: &'static str,
    /// How many entries.
    cleared: u64,
}

/// Whose entries are meant, for the documents.
struct CacheParams;

impl IntoParams for CacheParams {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![query::<Id>("tenant_id", "Only what is kept of this tenant.")]
    }
}

impl CacheView {
    fn of(cache: &dyn Cache) -> Self {
        let CacheUse { entries, entries_max, tenant_entries_max, bytes, bytes_max, mut tenants } =
            cache.in_use();
        tenants
            .sort_unstable_by_key(|(tenant_id, entries)| (std::cmp::Reverse(*entries), *tenant_id));
        let fullest = tenants.into_iter().take(FULLEST_MAX).map(|(tenant_id, entries)| {
            CacheTenant { tenant_id: tenant_id.to_string(), entries: entries as u64 }
        });
        Self {
            name: cache.name(),
            entries: entries as u64,
            entries_max: entries_max as u64,
            tenant_entries_max: tenant_entries_max as u64,
            bytes: bytes.map(|bytes| bytes as u64),
            bytes_max: bytes_max.map(|bytes| bytes as u64),
            fullest: fullest.collect(),
        }
    }
}

/// Lists what this node keeps in memory
///
/// Every node has caches of its own: ask the node that is meant, not a load balancer.
#[utoipa::path(
    get,
    path = "/fdr/caches",
    tag = "server",
    responses((status = 200, body = [CacheView], description = "Every cache.")),
)]
pub async fn list_caches(
    State(app): State<App>,
    _: Operator,
    query: Query,
) -> Result<Answer<Vec<CacheView>>, ApiError> {
    query.done()?;
    Ok(Answer::ok(app.caches().into_iter().map(CacheView::of).collect()))
}

/// Clears what this node keeps in memory
///
/// Of one tenant or of all. No fact of the ledger is lost; docs/operating.md says what each cache
/// is for.
#[utoipa::path(
    delete,
    path = "/fdr/caches/{name}",
    tag = "server",
    params(
        ("name" = String, Path, description = "The cache."),
        CacheParams,
    ),
    responses((status = 200, body = CacheCleared, description = "What was forgotten.")),
    extensions(("x-refuses" = json!([ErrorCode::CacheNotFound, ErrorCode::TenantNotFound]))),
)]
pub async fn clear_cache(
    State(app): State<App>,
    operator: Operator,
    Path(name): Path<String>,
    mut query: Query,
) -> Result<Answer<CacheCleared>, ApiError> {
    let tenant_id = query.text("tenant_id").map(|text| parse_tenant(&text)).transpose()?;
    query.done()?;
    let caches = app.caches();
    let cache = caches.into_iter().find(|cache| cache.name() == name);
    let cache = cache.ok_or_else(|| ApiError::of(ErrorCode::CacheNotFound))?;
    let (name, cleared) = (cache.name(), cache.clear(tenant_id));
    let (actor_id, tenant) = (&operator.actor.actor_id, tenant_id.map(|id| id.to_string()));
    tracing::info!(cache = name, cleared, actor_id, tenant_id = tenant, "a cache was cleared");
    Ok(Answer::ok(CacheCleared { name, cleared: cleared as u64 }))
}

fn parse_tenant(text: &str) -> Result<TenantId, ApiError> {
    TenantId::parse(text).map_err(|error| match error {
        ParseIdError::NotUuid => ApiError::field("tenant_id", "must be a UUID"),
        ParseIdError::Unknown => ApiError::of(ErrorCode::TenantNotFound),
    })
}

/// The routes of this file, each with its rule.
pub fn routes() -> Routes {
    Routes::new()
        .add(Rule::of(OPERATOR), routes!(list_caches))
        .add(Rule::of(OPERATOR), routes!(clear_cache))
}
