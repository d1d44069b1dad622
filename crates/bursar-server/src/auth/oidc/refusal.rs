//! Why a token is refused.

/// Why a token is refused, as a text for the client.
///
/// The texts quote nothing from the token and reveal nothing about tenants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefusal {
    /// The text is not a signed token, or contains a duplicate name.
    #[error("it is not a signed token of three parts and at most 8 KiB")]
    Malformed,
    /// The algorithm is not supported.
    #[error("its algorithm is none of RS256, ES256 and EdDSA")]
    Algorithm,
    /// The header requires an extension that Bursar does not know.
    #[error("it has a critical header (crit)")]
    Critical,
    /// The issuer is not configured.
    #[error("its issuer (iss) is not trusted here")]
    Issuer,
    /// The key is unknown or does not fit the algorithm.
    #[error("its key (kid) is none of its issuer's")]
    Key,
    /// The signature does not match.
    #[error("its signature is wrong")]
    Signature,
    /// The audience is another one.
    #[error("it is meant for someone else (aud)")]
    Audience,
    /// The token has expired.
    #[error("it has expired (exp)")]
    Expired,
    /// The token is not valid yet.
    #[error("it is not good yet (nbf)")]
    NotYet,
    /// The validity period is too long.
    #[error("it is good for longer than {0} seconds (exp, iat), which this server does not take")]
    Lifetime(u32),
    /// The subject looks like a key, and subjects are stored.
    #[error("its subject (sub) looks like a key, and no key is kept as a name")]
    Subject,
    /// A claim is missing or has the wrong type.
    #[error("its claim {0} is missing or not of its type")]
    Claim(&'static str),
    /// The token names no role.
    #[error("it names no role")]
    Role,
    /// The token names no tenant, or one that its issuer may not authenticate for.
    #[error("it names no tenant that its issuer speaks for")]
    Tenant,
}
