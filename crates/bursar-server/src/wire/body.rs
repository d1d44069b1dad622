//! Request bodies: size limits, gzip, and JSON errors that name the field.
//!
//! Deliberately absent: what happens to a body that is not read to its end. The connection decides
//! that for every response (http/request_body.rs).

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRef, FromRequest, Request};
use axum::http::{Extensions, HeaderMap, header};
use bursar_core::TenantId;
use bytes::Bytes;
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

use crate::http::holder::{Holder, HolderKind};
use crate::http::inflate::inflate;
use crate::http::limits::BODY_BYTES_MAX;
use crate::http::memory_budget::{BodyLimits, ByteHold};
use crate::http::request_extensions::RequestTenant;
use crate::http::work_pool::WorkPool;
use crate::wire::error::ApiError;
use crate::wire::error_code::ErrorCode;
use crate::wire::json_depth::{DEPTH_MAX, find_too_deep};

/// The largest body of most routes in bytes, before and after decompression.
pub const SMALL: usize = 256 * 1024;
/// The largest body of a batch in bytes, before and after decompression.
pub(crate) const BATCH: usize = BODY_BYTES_MAX;
/// The most records of a batch.
pub(crate) const BATCH_RECORDS_MAX: usize = 1_000;
/// The largest body that is decoded on a thread that answers requests.
///
/// Even the most expensive such body takes less than a millisecond.
const INLINE_GZIP_MAX: usize = 1024;
const INLINE_JSON_MAX: usize = 64 * 1024;

/// Reads and decodes request bodies.
pub struct BodyReader {
    /// Memory and time.
    pub(crate) limits: BodyLimits,
    /// Threads that decode large and compressed bodies.
    pub pool: WorkPool,
    /// Whether the ledger has room for a batch of the tenant, with this many bytes in flight.
    ///
    /// Reading a batch that cannot be written costs as much as writing one, and clients can send
    /// far more than can be written.
    pub(crate) has_room: Box<dyn Fn(TenantId, usize) -> bool + Send + Sync>,
}

impl BodyReader {
    /// Whether a body of up to `bytes_max` bytes could be written.
    fn has_room(&self, bytes_max: usize, holder: Holder, hold: &ByteHold) -> bool {
        let HolderKind::Tenant(tenant_id) = holder.kind else { return true };
        bytes_max != BATCH || (self.has_room)(tenant_id, hold.of_tenant())
    }
}

/// The text of a body of at most `MAX` bytes.
#[derive(Debug)]
pub struct Text<const MAX: usize> {
    bytes: Bytes,
    holder: Holder,
    pool: WorkPool,
}

impl<const MAX: usize> Text<MAX> {
    /// Decodes the body; a large one on a thread of the pool. There is no other way to its text.
    ///
    /// # Errors
    /// Errors of `read`, 400 if the body is not UTF-8, and 503 if too many large bodies of the
    /// tenant or the integration wait.
    pub async fn read<T: Send + 'static>(
        self,
        read: impl FnOnce(&str) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        if self.bytes.len() <= INLINE_JSON_MAX {
            return read(self.as_str()?);
        }
        self.pool.clone().run(self.holder, move || read(self.as_str()?)).await?
    }

    /// Reads the body as JSON. An empty body is the default.
    ///
    /// # Errors
    /// As [`Text::read`] and [`parse`].
    pub(crate) async fn read_optional<T>(self) -> Result<T, ApiError>
    where
        T: DeserializeOwned + Default + Send + 'static,
    {
        let read = self.read(|text| match text.trim() {
            "" => Ok(T::default()),
            text => parse(text),
        });
        read.await
    }

    fn as_str(&self) -> Result<&str, ApiError> {
        std::str::from_utf8(&self.bytes)
            .map_err(|_| ApiError::new(ErrorCode::InvalidJson, "The body is not valid UTF-8."))
    }
}

impl<const MAX: usize, S> FromRequest<S> for Text<MAX>
where
    S: Send + Sync,
    Arc<BodyReader>: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let reader = Arc::<BodyReader>::from_ref(state);
        let (parts, body) = request.into_parts();
        let gzip = check_headers(&parts.headers)?;
        let announced = parts.headers.get(header::CONTENT_LENGTH);
        let announced = announced.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
        if announced.is_some_and(|length| length > MAX) {
            return Err(ApiError::too_large(MAX));
        }
        let holder = proved_holder(&parts.extensions);
        let BodyLimits { deadline, budget } = &reader.limits;
        let mut hold = budget.hold(holder);
        let reading = &reader;
        let arrival = async move {
            if !hold.take(announced.unwrap_or(0)) || !reading.has_room(MAX, holder, &hold) {
                return Err(ApiError::of(ErrorCode::Overloaded));
            }
            collect(body, MAX, hold).await
        };
        let arrived = tokio::time::timeout(*deadline, arrival).await;
        let bytes = arrived.map_err(|_| ApiError::of(ErrorCode::RequestTimeout))??;
        let pool = reader.pool.clone();
        if !gzip {
            return Ok(Self { bytes, holder, pool });
        }
        let hold = budget.hold_beside(holder, bytes.len());
        if bytes.len() <= INLINE_GZIP_MAX {
            return inflate(&bytes, MAX, hold).map(|bytes| Self { bytes, holder, pool });
        }
        let inflated = pool.run(holder, move || inflate(&bytes, MAX, hold));
        inflated.await?.map(|bytes| Self { bytes, holder, pool })
    }
}

/// A body of at most 256 KiB, read as JSON into `T`.
pub(crate) struct Json<T>(pub(crate) T);

impl<T, S> FromRequest<S> for Json<T>
where
    T: DeserializeOwned + Send + 'static,
    S: Send + Sync,
    Arc<BodyReader>: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let text = Text::<SMALL>::from_request(request, state).await?;
        text.read(|text| parse(text)).await.map(Self)
    }
}

/// Parses JSON. Only after a failure, it parses again to find the path of the error.
///
/// # Errors
/// 400 if the text is not JSON or is nested too deeply, 422 if a field is wrong. The error names
/// the field.
pub fn parse<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, ApiError> {
    if let Some((line, column)) = find_too_deep(text) {
        let message = format!(
            "The JSON is nested more than {DEPTH_MAX} levels deep at line {line}, column {column}."
        );
        return Err(ApiError::new(ErrorCode::InvalidJson, message));
    }
    parse_envelope(text)
}

/// Parses JSON whose parts are skipped and later parsed one by one with [`parse`].
///
/// A part that is nested too deeply does not affect the others.
///
/// # Errors
/// 400 if the text is not JSON, 422 if a field is wrong. The error names the field.
pub(crate) fn parse_envelope<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, ApiError> {
    // serde would accept a list as the fields of a struct in their order.
    if text.trim_ascii_start().starts_with('[') {
        return Err(ApiError::new(
            ErrorCode::InvalidField,
            "The body must be a JSON object, not a list.",
        ));
    }
    match serde_json::from_str(text) {
        Ok(value) => Ok(value),
        Err(error) => Err(explain::<T>(text, &error)),
    }
}

/// Distinguishes a null field from an absent one.
///
/// # Errors
/// What is wrong with the field.
pub(crate) fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

fn explain<'a, T: Deserialize<'a>>(text: &'a str, error: &serde_json::Error) -> ApiError {
    if !error.is_data() {
        let place = format!("line {}, column {}", error.line(), error.column());
        let message = if error.to_string().starts_with("recursion limit") {
            format!("The JSON is nested too deeply at {place}.")
        } else if text.is_empty() {
            "The body is empty. It must be a JSON object.".to_owned()
        } else {
            format!("The body is not valid JSON at {place}.")
        };
        return ApiError::new(ErrorCode::InvalidJson, message);
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let path = match serde_path_to_error::deserialize::<_, T>(&mut deserializer) {
        Ok(_) => String::new(),
        Err(traced) => traced.path().to_string(),
    };
    field_error(path.trim_start_matches('.').trim_matches('?'), &error.to_string())
}

/// Converts an error of the JSON parser into the field and the problem.
///
/// The text can quote the value, which may be a secret, so only names are taken from it.
fn field_error(path: &str, words: &str) -> ApiError {
    // Only at the start: further text may quote values.
    let quoted = |before: &str| {
        let rest = words.strip_prefix(before)?;
        rest.split_once('`').map(|(name, _)| name.to_owned())
    };
    let parent = match path.rsplit_once('.') {
        Some((parent, _)) => format!("{parent}."),
        None => String::new(),
    };
    if let Some(name) = quoted("unknown field `") {
        let error = ApiError::of(ErrorCode::UnknownField);
        return error.on(format!("{parent}{name}"), "is not a field of this request");
    }
    if let Some(name) = quoted("missing field `") {
        let parent = if path.is_empty() { String::new() } else { format!("{path}.") };
        return ApiError::field(format!("{parent}{name}"), "is required");
    }
    if let Some(name) = quoted("duplicate field `") {
        return ApiError::field(format!("{parent}{name}"), "must be given once");
    }
    let expected = words
        .rsplit_once("expected ")
        .map(|(_, rest)| rest.split(" at line").next().unwrap_or(rest));
    let problem = match expected {
        Some("i64") => "must be an integer that fits 64 bits".to_owned(),
        Some("u32") => "must be an integer from 0 to 4294967295".to_owned(),
        Some("a sequence") => "must be a list".to_owned(),
        Some(what) if what.starts_with("struct ") => "must be an object".to_owned(),
        Some(what) => format!("must be {what}"),
        None => "has an invalid value".to_owned(),
    };
    if path.is_empty() || path == "." {
        return ApiError::new(ErrorCode::InvalidField, format!("The body {problem}."));
    }
    ApiError::field(path, &problem)
}

/// Checks the headers of the body. Returns whether it is gzip.
fn check_headers(headers: &HeaderMap) -> Result<bool, ApiError> {
    let unsupported = |message| ApiError::new(ErrorCode::UnsupportedMediaType, message);
    if let Some(content_type) = headers.get(header::CONTENT_TYPE) {
        let text = content_type.to_str().unwrap_or_default().to_ascii_lowercase();
        let kind = text.split(';').next().unwrap_or_default().trim();
        if kind != "application/json" && !kind.ends_with("+json") {
            return Err(unsupported("The body must be JSON: send Content-Type: application/json."));
        }
    }
    let encoding = headers.get(header::CONTENT_ENCODING).map(|value| value.as_bytes());
    match encoding {
        None | Some(b"" | b"identity") => Ok(false),
        Some(b"gzip" | b"x-gzip") => Ok(true),
        Some(_) => Err(unsupported("The only supported Content-Encoding is gzip.")),
    }
}

/// Collects a body. Its announced size is charged already.
async fn collect(mut body: Body, max: usize, mut hold: ByteHold) -> Result<Bytes, ApiError> {
    let mut collected = Vec::new();
    let mut whole = Bytes::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| broke_off())?.into_data() else { continue };
        let length = whole.len() + collected.len() + data.len();
        if length > max {
            return Err(ApiError::too_large(max));
        }
        let more = length.saturating_sub(hold.bytes());
        if !hold.take(more) {
            return Err(ApiError::of(ErrorCode::Overloaded));
        }
        // Most bodies arrive in one part, which is not copied.
        if whole.is_empty() && collected.is_empty() {
            whole = data;
            continue;
        }
        if collected.is_empty() {
            collected.reserve_exact(hold.bytes());
        }
        collected.extend_from_slice(&std::mem::take(&mut whole));
        collected.extend_from_slice(&data);
    }
    let bytes = if collected.is_empty() { whole } else { collected.into() };
    Ok(hold.keep(bytes))
}

/// The holder of the body, if its caller is authenticated.
fn proved_holder(extensions: &Extensions) -> Holder {
    extensions.get::<RequestTenant>().map_or(Holder::ANONYMOUS, RequestTenant::holder)
}

fn broke_off() -> ApiError {
    ApiError::new(ErrorCode::BadRequest, "The body ended too early.")
}
