//! Why a token is refused.

/// Why a token is refused, as a text for the client.
///
/// The texts quote nothing from the token and reveal nothing about tenants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefusal {
    /// The text is not a signed token, or contains a duplicate name.
    #[error("it is not a signed JWT of at most 8 KiB")]
    Malformed,
    /// The algorithm is not supported.
    #[error("its algorithm (alg) is not RS256, ES256 or EdDSA")]
    Algorithm,
    /// The header requires an extension that Bursar does not know.
    #[error("its header has critical extensions (crit), which are not supported")]
    Critical,
    /// The issuer is not configured.
    #[error("its issuer (iss) is not configured on this server")]
    Issuer,
    /// The key is unknown or does not fit the algorithm.
    #[error("its issuer has no such key (kid)")]
    Key,
    /// The signature does not match.
    #[error("its signature is invalid")]
    Signature,
    /// The audience is another one.
    #[error("its audience (aud) is not the configured one")]
    Audience,
    /// The token has expired.
    #[error("it has expired (exp)")]
    Expired,
    /// The token is not valid yet.
    #[error("it is not valid yet (nbf)")]
    NotYet,
    /// The validity period is too long.
    #[error("it is valid for more than {0} seconds (exp, iat), the maximum on this server")]
    Lifetime(u32),
    /// The subject looks like a key, and subjects are stored.
    #[error("its subject (sub) looks like a secret key, which must not be stored")]
    Subject,
    /// A claim is missing or has the wrong type.
    #[error("its claim {0} is missing or has the wrong type")]
    Claim(&'static str),
    /// The token names no role.
    #[error("it has no role that this server knows")]
    Role,
    /// The token names no tenant, or one that its issuer may not authenticate for.
    #[error("it names no tenant that its issuer may authenticate")]
    Tenant,
}
