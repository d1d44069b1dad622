//! What is wrong with a token.

/// What is wrong with a token, in words for whoever presents it. They quote nothing of it, and
/// tell nothing of tenants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefusal {
    /// It is not a token, or one that says two things.
    #[error("it is not a signed token of three parts and at most 8 KiB")]
    Malformed,
    /// It is signed in another way, or not at all.
    #[error("its algorithm is none of RS256, ES256 and EdDSA")]
    Algorithm,
    /// It must be understood in a way that nobody does here.
    #[error("it has a critical header (crit)")]
    Critical,
    /// Nobody here trusts its issuer.
    #[error("its issuer (iss) is not trusted here")]
    Issuer,
    /// Its key is not there, or not for its algorithm.
    #[error("its key (kid) is none of its issuer's")]
    Key,
    /// It was changed, or signed by someone else.
    #[error("its signature is wrong")]
    Signature,
    /// It is for someone else.
    #[error("it is meant for someone else (aud)")]
    Audience,
    /// Its time is over.
    #[error("it has expired (exp)")]
    Expired,
    /// Its time has not come.
    #[error("it is not good yet (nbf)")]
    NotYet,
    /// It is good for too long.
    #[error("it is good for longer than {0} seconds (exp, iat), which this server does not take")]
    Lifetime(u32),
    /// Its person is named like a key, and names are kept.
    #[error("its subject (sub) looks like a key, and no key is kept as a name")]
    Subject,
    /// A claim is not what it has to be.
    #[error("its claim {0} is missing or not of its type")]
    Claim(&'static str),
    /// It does not say what its person may.
    #[error("it names no role")]
    Role,
    /// It names no tenant, or one that its issuer does not speak for.
    #[error("it names no tenant that its issuer speaks for")]
    Tenant,
}
