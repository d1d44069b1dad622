//! The in-memory caches of this node: list and clear them.

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

/// The number of tenants that are listed for each cache.
const FULLEST_MAX: usize = 10;

/// How full a cache is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CacheView {
    name: &'static str,
    /// Entries in the cache.
    entries: u64,
    /// The most entries of all tenants.
    entries_max: u64,
    /// The most entries of one tenant.
    tenant_entries_max: u64,
    /// The approximate size of the entries in bytes, where it is measured.
    #[schema(value_type = Option<u64>, required)]
    bytes: Option<u64>,
    #[schema(value_type = Option<u64>, required)]
    bytes_max: Option<u64>,
    /// The ten tenants with the most entries.
    fullest: Vec<CacheTenant>,
}

/// The entries of one tenant in a cache.
#[derive(Debug, Serialize, ToSchema)]
struct CacheTenant {
    #[schema(value_type = Id)]
    tenant_id: String,
    entries: u64,
}

/// What was cleared.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CacheCleared {
    name: &'static str,
    /// The number of entries removed.
    cleared: u64,
}

/// The filter by tenant, for the OpenAPI document.
struct CacheParams;

impl IntoParams for CacheParams {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![query::<Id>("tenant_id", "Only the entries of this tenant.")]
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

/// Lists the caches of this node
///
/// Every node has its own caches. Ask the node itself, not a load balancer.
#[utoipa::path(
    get,
    path = "/fdr/caches",
    tag = "server",
    responses((status = 200, body = [CacheView], description = "All caches.")),
)]
pub(crate) async fn list_caches(
    State(app): State<App>,
    _: Operator,
    query: Query,
) -> Result<Answer<Vec<CacheView>>, ApiError> {
    query.done()?;
    Ok(Answer::ok(app.caches().into_iter().map(CacheView::of).collect()))
}

/// Clears a cache of this node
///
/// For one tenant or for all. No record, reservation or limit is lost. docs/operating.md explains
/// each cache.
#[utoipa::path(
    delete,
    path = "/fdr/caches/{name}",
    tag = "server",
    params(
        ("name" = String, Path, description = "The cache."),
        CacheParams,
    ),
    responses((status = 200, body = CacheCleared, description = "The number of removed entries.")),
    extensions(("x-refuses" = json!([ErrorCode::CacheNotFound, ErrorCode::TenantNotFound]))),
)]
pub(crate) async fn clear_cache(
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

pub(crate) fn routes() -> Routes {
    Routes::new()
        .add(Rule::of(OPERATOR), routes!(list_caches))
        .add(Rule::of(OPERATOR), routes!(clear_cache))
}
