//! The claims of a verified token: audience, validity, tenant, role and person.

use bursar_core::{TenantId, Timestamp};
use serde_json::{Map, Value};

use super::issuers::{IssuerConfig, TenantSource};
use super::person::Person;
use super::refusal::TokenRefusal;
use crate::auth::access::Role;
use crate::credentials::raw_key;

/// The clock difference that is tolerated between an issuer and this server.
const LEEWAY_SECONDS: i64 = 60;
/// The longest subject in characters.
const SUBJECT_CHARS_MAX: usize = 255;

/// The claims of a token whose signature was verified.
#[derive(Debug)]
pub(super) struct Claims(pub(super) Map<String, Value>);

impl Claims {
    /// The person that the token identifies.
    ///
    /// # Errors
    /// [`TokenRefusal`].
    pub(super) fn person(
        &self,
        issuer: &IssuerConfig,
        token_seconds_max: u32,
        now: Timestamp,
    ) -> Result<Person, TokenRefusal> {
        if self.text("iss")? != issuer.issuer {
            return Err(TokenRefusal::Issuer);
        }
        self.check_audience(&issuer.audience)?;
        let expires_at = self.check_times(now, token_seconds_max)?;
        let subject = self.text("sub")?;
        let is_sound = (1..=SUBJECT_CHARS_MAX).contains(&subject.chars().count())
            && !subject.chars().any(char::is_control);
        if !is_sound {
            return Err(TokenRefusal::Claim("sub"));
        }
        // The subject becomes the actor in the audit log, which is permanent and visible to others.
        if raw_key::contains_key(subject) {
            return Err(TokenRefusal::Subject);
        }
        Ok(Person {
            tenant_id: self.tenant(&issuer.tenant)?,
            subject: subject.to_owned(),
            issuer: issuer.issuer.clone(),
            role: self.role(issuer)?,
            expires_at,
        })
    }

    fn text(&self, name: &'static str) -> Result<&str, TokenRefusal> {
        self.0.get(name).and_then(Value::as_str).ok_or(TokenRefusal::Claim(name))
    }

    fn check_audience(&self, audience: &str) -> Result<(), TokenRefusal> {
        let wrong = TokenRefusal::Claim("aud");
        let is_meant = match self.0.get("aud").ok_or(wrong)? {
            Value::String(one) => one == audience,
            Value::Array(several) => {
                texts(several).ok_or(wrong)?.into_iter().any(|one| one == audience)
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => {
                return Err(wrong);
            }
        };
        if is_meant { Ok(()) } else { Err(TokenRefusal::Audience) }
    }

    /// Checks the validity period and its length. Returns when the token expires.
    fn check_times(&self, now: Timestamp, seconds_max: u32) -> Result<Timestamp, TokenRefusal> {
        // Rounding never extends a token.
        let end = self.seconds("exp", f64::floor)?;
        let expires = end.saturating_add(LEEWAY_SECONDS);
        let begins = self.seconds("nbf", f64::ceil)?.saturating_sub(LEEWAY_SECONDS);
        if now.second() >= expires {
            return Err(TokenRefusal::Expired);
        }
        if now.second() < begins {
            return Err(TokenRefusal::NotYet);
        }
        let issued = self.0.get("iat").map(|_| self.seconds("iat", f64::floor)).transpose()?;
        // The remaining time is checked too: `iat` may lie in the future or be absent.
        let left = expires.saturating_sub(now.second()).saturating_sub(2 * LEEWAY_SECONDS);
        let life = issued.map_or(left, |issued| left.max(end.saturating_sub(issued)));
        if life > seconds_max.into() {
            return Err(TokenRefusal::Lifetime(seconds_max));
        }
        let expires_at = Timestamp::from_micros(expires.saturating_mul(1_000_000));
        Ok(expires_at.unwrap_or(Timestamp::MAX))
    }

    /// A claim that holds a time: always a number.
    fn seconds(&self, name: &'static str, rounded: fn(f64) -> f64) -> Result<i64, TokenRefusal> {
        let wrong = TokenRefusal::Claim(name);
        let Some(Value::Number(number)) = self.0.get(name) else { return Err(wrong) };
        match number.as_i64() {
            Some(seconds) => Ok(seconds),
            // Values outside the range of integers become the nearest integer.
            None => number.as_f64().map(|seconds| rounded(seconds) as i64).ok_or(wrong),
        }
    }

    fn tenant(&self, source: &TenantSource) -> Result<TenantId, TokenRefusal> {
        let claim = match source {
            TenantSource::Fixed { claim, .. } | TenantSource::Claimed(claim) => claim,
        };
        let named = match claim.find(&self.0) {
            None => None,
            Some(value) => {
                let tenant_id = value.as_str().and_then(|text| TenantId::parse(text).ok());
                Some(tenant_id.ok_or(TokenRefusal::Tenant)?)
            }
        };
        let tenant_id = match source {
            TenantSource::Claimed(_) => named,
            TenantSource::Fixed { tenant_id, is_required, claim: _ } => match named {
                None => Some(*tenant_id).filter(|_| !is_required),
                Some(named) => Some(*tenant_id).filter(|fixed| *fixed == named),
            },
        };
        tenant_id.ok_or(TokenRefusal::Tenant)
    }

    /// The highest role that the claim names. The claim may list roles of other systems.
    fn role(&self, issuer: &IssuerConfig) -> Result<Role, TokenRefusal> {
        let named = |name: &str| {
            if name == issuer.admin_value {
                Some(Role::Admin)
            } else if name == issuer.viewer_value {
                Some(Role::Viewer)
            } else {
                None
            }
        };
        let role = match issuer.role_claim.find(&self.0) {
            Some(Value::String(one)) => named(one),
            Some(Value::Array(several)) => {
                let several = texts(several).ok_or(TokenRefusal::Role)?;
                several.into_iter().filter_map(named).max()
            }
            None | Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) => None,
        };
        role.ok_or(TokenRefusal::Role)
    }
}

/// The strings of a list, if it holds nothing else.
fn texts(values: &[Value]) -> Option<Vec<&str>> {
    values.iter().map(Value::as_str).collect()
}
