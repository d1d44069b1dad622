//! Signatures are verified by ring, and nothing is ever signed here.
//!
//! jsonwebtoken asks a provider that is one for the process. Its own would bring aws-lc, which
//! takes minutes to build, or the `rsa` crate, whose timing tells about keys.

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{ErrorKind, Result};
use jsonwebtoken::signature::{self, Verifier};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, EncodingKey};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
    UnparsedPublicKey, VerificationAlgorithm,
};

static RING: CryptoProvider = CryptoProvider {
    signer_factory: signer,
    verifier_factory: verifier,
    key_utils: KeyUtils {
        rsa_pub_components_from_private_key: |_| Err(ErrorKind::UnsupportedAlgorithm.into()),
        rsa_pub_components_from_public_key: |_| Err(ErrorKind::UnsupportedAlgorithm.into()),
        ec_pub_components_from_private_key: |_, _| Err(ErrorKind::UnsupportedAlgorithm.into()),
        ed_pub_components_from_private_key: |_, _| Err(ErrorKind::UnsupportedAlgorithm.into()),
        compute_digest: |_, _| Err(ErrorKind::UnsupportedAlgorithm.into()),
    },
};

/// Makes this process verify by ring. Without it the library would panic.
pub(super) fn use_ring() {
    // It refuses a second time, when it is ring already.
    let _ = RING.install_default();
}

fn signer(_: &Algorithm, _: &EncodingKey) -> Result<Box<dyn JwtSigner>> {
    Err(ErrorKind::UnsupportedAlgorithm.into())
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>> {
    let fits = match key.family() {
        AlgorithmFamily::Rsa => *algorithm == Algorithm::RS256,
        AlgorithmFamily::Ec => *algorithm == Algorithm::ES256,
        AlgorithmFamily::Ed => *algorithm == Algorithm::EdDSA,
        // A public key taken for a shared secret would let everyone sign.
        AlgorithmFamily::Hmac => false,
    };
    if !fits {
        return Err(ErrorKind::InvalidAlgorithm.into());
    }
    Ok(Box::new(ByRing { algorithm: *algorithm, key: key.clone() }))
}

struct ByRing {
    algorithm: Algorithm,
    key: DecodingKey,
}

impl JwtVerifier for ByRing {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl Verifier<Vec<u8>> for ByRing {
    fn verify(
        &self,
        message: &[u8],
        signature: &Vec<u8>,
    ) -> std::result::Result<(), signature::Error> {
        let curve: &dyn VerificationAlgorithm = match self.key.family() {
            AlgorithmFamily::Ec => &ECDSA_P256_SHA256_FIXED,
            AlgorithmFamily::Ed => &ED25519,
            AlgorithmFamily::Rsa | AlgorithmFamily::Hmac => {
                return self.verify_rsa(message, signature);
            }
        };
        let key = self.key.try_get_as_bytes().map_err(|_| signature::Error::new())?;
        let verified = UnparsedPublicKey::new(curve, key).verify(message, signature);
        verified.map_err(|_| signature::Error::new())
    }
}

impl ByRing {
    fn verify_rsa(
        &self,
        message: &[u8],
        signature: &[u8],
    ) -> std::result::Result<(), signature::Error> {
        let DecodingKeyKind::RsaModulusExponent { n, e } = self.key.kind() else {
            return Err(signature::Error::new());
        };
        let key = RsaPublicKeyComponents { n, e };
        let verified = key.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature);
        verified.map_err(|_| signature::Error::new())
    }
}
