//! Path and query parameters, with errors that name them.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use bursar_core::{IntegrationId, KeyId, ParseIdError, TenantId};
use bursar_store::Page;
use serde::de::DeserializeOwned;
use utoipa::IntoParams;
use utoipa::openapi::path::{Parameter, ParameterIn};

use crate::wire::envelope::ListMeta;
use crate::wire::error::ApiError;
use crate::wire::error_code::ErrorCode;
use crate::wire::scalars::BoundedInteger;
use crate::wire::schema::query;

/// The default page size.
const LIMIT_DEFAULT: u32 = 20;
/// The largest page size.
const LIMIT_MAX: u32 = 100;
/// The most parameters of a query.
const PARAMETERS_MAX: usize = 64;
/// The largest offset.
const OFFSET_MAX: u32 = 1_000_000;

/// The parameters of a path.
#[derive(Debug)]
pub(crate) struct Path<T>(pub(crate) T);

impl<S, T> FromRequestParts<S> for Path<T>
where
    S: Send + Sync,
    T: DeserializeOwned + Send,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = axum::extract::Path::<T>::from_request_parts(parts, state).await;
        let unreadable = |_| ApiError::new(ErrorCode::BadRequest, "The path is not valid UTF-8.");
        path.map(|path| Self(path.0)).map_err(unreadable)
    }
}

/// The parameters of a query. Reading one removes it, and [`Query::done`] refuses the rest.
#[derive(Debug)]
pub(crate) struct Query(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let pairs = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&parts.uri);
        let unreadable = |_| ApiError::new(ErrorCode::BadRequest, "The query is not valid.");
        let pairs = pairs.map_err(unreadable)?.0;
        if pairs.len() > PARAMETERS_MAX {
            return Err(ApiError::new(ErrorCode::BadRequest, "The query has too many parameters."));
        }
        for (at, (name, value)) in pairs.iter().enumerate() {
            // No stored text contains NUL, and PostgreSQL refuses a statement with it.
            if name.contains('\0') || value.contains('\0') {
                return Err(ApiError::field(name.clone(), "must not contain the character NUL"));
            }
            if pairs.iter().take(at).any(|(earlier, _)| earlier == name) {
                return Err(ApiError::field(name.clone(), "must be given once"));
            }
        }
        Ok(Self(pairs))
    }
}

impl Query {
    /// Reads a text. An empty one counts as absent.
    pub(crate) fn text(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(found, _)| found == name)?;
        Some(self.0.swap_remove(at).1).filter(|text| !text.is_empty())
    }

    /// Reads a value with the parser `read`.
    ///
    /// # Errors
    /// 422 on the parameter, with the rest of a sentence from `read`.
    pub(crate) fn read<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(&str) -> Result<T, &'static str>,
    ) -> Result<Option<T>, ApiError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        read(&text).map(Some).map_err(|problem| ApiError::field(name, problem))
    }

    /// Reads an integer within bounds.
    ///
    /// # Errors
    /// 422 on the parameter.
    pub(crate) fn integer(
        &mut self,
        name: &str,
        bounds: std::ops::RangeInclusive<u32>,
    ) -> Result<Option<u32>, ApiError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        match text.parse::<u32>() {
            Ok(value) if bounds.contains(&value) => Ok(Some(value)),
            Ok(_) | Err(_) => {
                let (low, high) = bounds.into_inner();
                Err(ApiError::field(name, &format!("must be an integer from {low} to {high}")))
            }
        }
    }

    /// Reads `true` or `false`.
    ///
    /// # Errors
    /// 422 on the parameter.
    pub(crate) fn boolean(&mut self, name: &str) -> Result<bool, ApiError> {
        let read = |text: &str| match text {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err("must be true or false"),
        };
        Ok(self.read(name, read)?.unwrap_or(false))
    }

    /// Reads the id of an integration.
    ///
    /// # Errors
    /// 422 if it is not an id, 404 if it cannot be one of this server's.
    pub(crate) fn integration(&mut self) -> Result<Option<IntegrationId>, ApiError> {
        let Some(text) = self.text("integration_id") else { return Ok(None) };
        match IntegrationId::parse(&text) {
            Ok(id) => Ok(Some(id)),
            Err(ParseIdError::NotUuid) => Err(ApiError::field("integration_id", "must be a UUID")),
            Err(ParseIdError::Unknown) => Err(ApiError::of(ErrorCode::IntegrationNotFound)),
        }
    }

    /// Reads `offset` and `limit`.
    ///
    /// # Errors
    /// 422 on the parameter.
    pub(crate) fn page(&mut self) -> Result<Page, ApiError> {
        let offset = self.integer("offset", 0..=OFFSET_MAX)?.unwrap_or(0);
        let limit = self.integer("limit", 1..=LIMIT_MAX)?.unwrap_or(LIMIT_DEFAULT);
        Ok(Page { offset, limit })
    }

    /// Refuses unknown parameters, so that a typing error does not go unnoticed.
    ///
    /// # Errors
    /// 422 on the first one.
    pub(crate) fn done(self) -> Result<(), ApiError> {
        match self.0.into_iter().next() {
            None => Ok(()),
            Some((name, _)) => {
                Err(ApiError::of(ErrorCode::UnknownField)
                    .on(name, "is not a parameter of this route"))
            }
        }
    }
}

/// `offset` and `limit` as [`Query::page`] reads them, for the OpenAPI document.
#[derive(Debug)]
pub(crate) struct PageParams;

impl IntoParams for PageParams {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![
            query::<BoundedInteger<0, OFFSET_MAX, 0>>("offset", "The number of rows to skip."),
            query::<BoundedInteger<1, LIMIT_MAX, LIMIT_DEFAULT>>(
                "limit",
                "The maximum number of rows on a page.",
            ),
        ]
    }
}

/// The paging of a list by offset.
pub(crate) fn list_meta(page: Page, rows: usize, total: i64) -> ListMeta {
    let shown = i64::from(page.offset) + rows as i64;
    ListMeta {
        total: Some(total),
        page: page.offset / page.limit.max(1) + 1,
        page_size: page.limit,
        has_more: shown < total,
        next_cursor: None,
    }
}

macro_rules! path_id {
    ($(#[$doc:meta])* $name:ident, $type:ty, $code:ident) => {
        $(#[$doc])*
        ///
        /// # Errors
        /// 404 if the text is not such an id: a foreign id gets the same answer.
        pub(crate) fn $name(text: &str) -> Result<$type, ApiError> {
            <$type>::parse(text).map_err(|_| ApiError::of(ErrorCode::$code))
        }
    };
}

path_id! {
    /// The tenant in a path.
    tenant_id, TenantId, TenantNotFound
}
path_id! {
    /// The integration in a path.
    integration_id, IntegrationId, IntegrationNotFound
}
path_id! {
    /// The key of a path.
    key_id, KeyId, KeyNotFound
}
