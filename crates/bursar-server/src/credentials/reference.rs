//! The grammar of credential references. A reference names a secret and never contains it.

use std::path::Path;

use crate::credentials::raw_key;
use crate::wire::error::ApiError;
use crate::wire::error_code::ErrorCode;

/// The longest reference in characters.
const CHARS_MAX: usize = 500;
const FIELD: &str = "credential_ref";

/// Who sets a reference. Only the operator may name what is stored on the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReferenceAuthor {
    /// The operator of this server.
    Operator,
    Tenant,
}

/// The server-side names that a reference may use.
#[derive(Clone, Debug)]
pub struct AllowedPrefixes {
    /// Prefixes of environment variables.
    pub env: Vec<String>,
    /// Folders of files. None by default.
    pub file: Vec<String>,
}

/// Validates a reference and returns it.
///
/// # Errors
/// 422 on `credential_ref`, or 403 if only the operator may set it. The value is never echoed.
pub fn check(
    reference: String,
    set_by: ReferenceAuthor,
    allowed: &AllowedPrefixes,
) -> Result<String, ApiError> {
    if raw_key::contains_key(&reference) {
        let problem = "looks like a raw key: keep the key in a vault and send a reference to it";
        return Err(ApiError::of(ErrorCode::SecretRefused).on(FIELD, problem));
    }
    if reference.len() > CHARS_MAX || reference.chars().any(char::is_control) {
        return Err(ApiError::field(
            FIELD,
            "must have at most 500 characters, and no control characters",
        ));
    }
    match reference.split_once("://") {
        Some(("encrypted", id)) => grammar(is_name(id, "-"), "must be encrypted://<id>")?,
        Some(("vault", rest)) => check_vault(rest)?,
        Some(("env", name)) => check_env(name, set_by, allowed)?,
        Some(("file", path)) => check_file(path, set_by, allowed)?,
        Some(_) | None => {
            let problem = "must be a reference: encrypted://, vault://, env:// or file://";
            return Err(ApiError::field(FIELD, problem));
        }
    }
    Ok(reference)
}

/// The scheme of a reference, the only part that Bursar shows.
pub fn scheme(reference: &str) -> &str {
    reference.split_once("://").map_or("", |(scheme, _)| scheme)
}

fn grammar(holds: bool, problem: &str) -> Result<(), ApiError> {
    if holds { Ok(()) } else { Err(ApiError::field(FIELD, problem)) }
}

fn is_name(text: &str, also: &str) -> bool {
    let plain = |character: char| character.is_ascii_alphanumeric() || also.contains(character);
    !text.is_empty() && text.chars().all(plain)
}

/// `<mount>/<path>[#field]`, without empty segments and without `..`.
fn check_vault(rest: &str) -> Result<(), ApiError> {
    let (path, field) = rest.split_once('#').unwrap_or((rest, "api_key"));
    let segments: Vec<&str> = path.split('/').collect();
    let plain = |segment: &&str| is_name(segment, "-_.") && !segment.starts_with('.');
    let holds = segments.len() >= 2 && segments.iter().all(plain) && is_name(field, "-_");
    grammar(holds, "must be vault://<mount>/<path>[#field]")
}

fn check_env(
    name: &str,
    set_by: ReferenceAuthor,
    allowed: &AllowedPrefixes,
) -> Result<(), ApiError> {
    by_operator(set_by)?;
    grammar(is_name(name, "_"), "must be env://NAME")?;
    let known = allowed.env.iter().any(|prefix| name.starts_with(prefix.as_str()));
    let problem = format!("must name a variable that begins with {}", allowed.env.join(" or "));
    grammar(known, &problem)
}

fn check_file(
    path: &str,
    set_by: ReferenceAuthor,
    allowed: &AllowedPrefixes,
) -> Result<(), ApiError> {
    by_operator(set_by)?;
    let straight =
        path.starts_with('/') && !path.split('/').any(|part| part == ".." || part == ".");
    grammar(straight, "must be file:///absolute/path without . and ..")?;
    let lies_in = |folder: &String| {
        let below = Path::new(path).strip_prefix(folder);
        below.is_ok_and(|below| below.components().next().is_some())
    };
    let known = allowed.file.iter().any(lies_in);
    grammar(known, "must lie in a folder that the operator's configuration allows")
}

fn by_operator(set_by: ReferenceAuthor) -> Result<(), ApiError> {
    match set_by {
        ReferenceAuthor::Operator => Ok(()),
        ReferenceAuthor::Tenant => {
            let problem = "with env:// or file:// can be set by the operator only";
            Err(ApiError::of(ErrorCode::Forbidden).on(FIELD, problem))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_ref(reference: &str, set_by: ReferenceAuthor, expected: Option<ErrorCode>) {
        let allowed = AllowedPrefixes {
            env: vec!["CUS_CRED_".to_owned(), "LLM_API_KEY_".to_owned()],
            file: vec!["/etc/bursar".to_owned()],
        };
        let code = check(reference.to_owned(), set_by, &allowed).err().map(|error| {
            let (_, value) = reference.split_once("://").unwrap_or(("", reference));
            let echoes = !value.is_empty() && error.message().contains(value);
            assert!(!echoes, "{} echoes", error.message());
            error.code()
        });
        assert_eq!(code, expected, "{reference}");
    }

    #[test]
    fn each_scheme_has_its_grammar() {
        use ErrorCode::{Forbidden, InvalidField, SecretRefused};
        use ReferenceAuthor::{Operator, Tenant};
        check_ref("encrypted://0198c-1", Tenant, None);
        check_ref("encrypted://", Tenant, Some(InvalidField));
        check_ref("vault://secret/tenants/a/openai", Tenant, None);
        check_ref("vault://secret/openai#token", Tenant, None);
        check_ref("vault://secret", Tenant, Some(InvalidField));
        check_ref("vault://secret/../root", Tenant, Some(InvalidField));
        check_ref("vault://secret//x", Tenant, Some(InvalidField));
        check_ref("env://CUS_CRED_A", Operator, None);
        check_ref("env://CUS_CRED_A", Tenant, Some(Forbidden));
        check_ref("env://PATH", Operator, Some(InvalidField));
        check_ref("file:///etc/bursar/key", Operator, None);
        check_ref("file:///etc/bursar/../shadow", Operator, Some(InvalidField));
        check_ref("file:///etc/bursar-other/key", Operator, Some(InvalidField));
        check_ref("file:///etc/shadow", Operator, Some(InvalidField));
        check_ref("file:///etc/bursar", Operator, Some(InvalidField));
        check_ref("file:///etc/bursar/", Operator, Some(InvalidField));
        check_ref("file:///etc/bursar/key", Tenant, Some(Forbidden));
        check_ref("hunter2hunter2", Operator, Some(InvalidField));
        check_ref("https://example.com", Tenant, Some(InvalidField));
        check_ref("sk-abcdefghijklmnopqrstuv", Operator, Some(SecretRefused));
        check_ref("env://sk-abcdefghijklmnopqrstuv", Operator, Some(SecretRefused));
    }
}
