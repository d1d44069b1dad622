//! Verification of token signatures with ring.
//!
//! A key verifies only with the algorithm of its own type and curve, whatever the token says. A
//! public key is never used as a shared secret, which would let anyone sign. Deliberately absent:
//! signing.

use std::ops::RangeInclusive;

use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
    UnparsedPublicKey,
};

use super::refusal::TokenRefusal;

/// The accepted sizes of an RSA modulus in bits. Shorter keys are weak, longer ones slow.
const RSA_BITS: RangeInclusive<usize> = 2_048..=8_192;
/// The bytes of a P-256 coordinate and of an Ed25519 point.
pub(super) const POINT_BYTES: usize = 32;

/// The supported algorithms. All others are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    EdDsa,
}

/// A public key of a type that implies one algorithm.
pub(super) struct VerifyingKey(KeyMaterial);

enum KeyMaterial {
    Rsa(RsaPublicKeyComponents<Vec<u8>>),
    /// The uncompressed point.
    P256(Vec<u8>),
    Ed25519([u8; POINT_BYTES]),
}

impl Algorithm {
    const ALL: [Self; 3] = [Self::Rs256, Self::Es256, Self::EdDsa];

    /// The algorithm with this name in a token's header or in a key.
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.as_str() == name)
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }
}

impl VerifyingKey {
    /// An RSA key, unless its modulus is too short or too long.
    pub(super) fn rsa(modulus: &[u8], exponent: &[u8]) -> Option<Self> {
        let (n, e) = (number(modulus)?, number(exponent)?);
        let bits = n.len() * 8 - n.first()?.leading_zeros() as usize;
        let components = RsaPublicKeyComponents { n: n.to_vec(), e: e.to_vec() };
        RSA_BITS.contains(&bits).then_some(Self(KeyMaterial::Rsa(components)))
    }

    /// A key on P-256.
    pub(super) fn p256(x: &[u8; POINT_BYTES], y: &[u8; POINT_BYTES]) -> Self {
        Self(KeyMaterial::P256([&[4], x.as_slice(), y.as_slice()].concat()))
    }

    /// A key on Ed25519.
    pub(super) const fn ed25519(point: [u8; POINT_BYTES]) -> Self {
        Self(KeyMaterial::Ed25519(point))
    }

    /// The only algorithm that this key verifies.
    pub(super) const fn algorithm(&self) -> Algorithm {
        match self.0 {
            KeyMaterial::Rsa(_) => Algorithm::Rs256,
            KeyMaterial::P256(_) => Algorithm::Es256,
            KeyMaterial::Ed25519(_) => Algorithm::EdDsa,
        }
    }

    /// Verifies the signature of a message.
    ///
    /// # Errors
    /// [`TokenRefusal::Signature`], also for a key that ring rejects.
    pub(super) fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), TokenRefusal> {
        let verified = match &self.0 {
            KeyMaterial::Rsa(key) => key.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature),
            KeyMaterial::P256(key) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key).verify(message, signature)
            }
            KeyMaterial::Ed25519(key) => {
                UnparsedPublicKey::new(&ED25519, key).verify(message, signature)
            }
        };
        verified.map_err(|_| TokenRefusal::Signature)
    }
}

/// The bytes of an integer without leading zeros.
///
/// Some issuers write a leading zero as a sign, which ring rejects.
fn number(bytes: &[u8]) -> Option<&[u8]> {
    let start = bytes.iter().position(|byte| *byte != 0)?;
    bytes.get(start..)
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;

    /// The claims in the examples of RFC 7515.
    const CLAIMS: &str = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNv\
        bS9pc19yb290Ijp0cnVlfQ";
    /// RFC 7515, A.2.
    const RSA_MODULUS: &str = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw\
        -4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL\
        -bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4\
        LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";
    const RSA_SIGNATURE: &str = "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAu\
        HIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h\
        6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvh\
        J1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
    /// RFC 7515, A.3.
    const P256_X: &str = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
    const P256_Y: &str = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0";
    const P256_SIGNATURE: &str = "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmW\
        QxfKTUJqPP3-Kg6NU1Q";
    /// RFC 8037, A.4.
    const ED25519_X: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
    const ED25519_SIGNED: &str = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
    const ED25519_SIGNATURE: &str = "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5B\
        hVsPt9g7sVvpAr_MuM0KAg";

    fn bytes(text: &str) -> Vec<u8> {
        URL_SAFE_NO_PAD.decode(text).expect("base64")
    }

    fn point(text: &str) -> [u8; POINT_BYTES] {
        bytes(text).try_into().expect("a point")
    }

    /// A key, a message and its signature.
    fn examples() -> [(VerifyingKey, String, Vec<u8>); 3] {
        let rsa = VerifyingKey::rsa(&bytes(RSA_MODULUS), &[1, 0, 1]).expect("2,048 bits");
        let p256 = VerifyingKey::p256(&point(P256_X), &point(P256_Y));
        let ed25519 = VerifyingKey::ed25519(point(ED25519_X));
        [
            (rsa, format!("eyJhbGciOiJSUzI1NiJ9.{CLAIMS}"), bytes(RSA_SIGNATURE)),
            (p256, format!("eyJhbGciOiJFUzI1NiJ9.{CLAIMS}"), bytes(P256_SIGNATURE)),
            (ed25519, ED25519_SIGNED.to_owned(), bytes(ED25519_SIGNATURE)),
        ]
    }

    #[test]
    fn a_signature_is_of_one_message_by_one_key() {
        let examples = examples();
        for (at, (key, message, signature)) in examples.iter().enumerate() {
            assert_eq!(key.algorithm(), Algorithm::ALL[at]);
            let verify = |message: &str, signature: &[u8]| {
                key.verify(message.as_bytes(), signature).map_err(|refusal| refusal.to_string())
            };
            let wrong = Err(TokenRefusal::Signature.to_string());
            assert_eq!(verify(message, signature), Ok(()), "{message}");
            assert_eq!(verify(&message.replace('J', "K"), signature), wrong);
            for (other, (_, message, signature)) in examples.iter().enumerate() {
                assert_eq!(verify(message, signature).is_ok(), at == other, "{at} {other}");
            }
            let longer = [signature.as_slice(), &[0]].concat();
            let shorter = signature.get(1..).expect("a signature");
            let mut changed = signature.clone();
            changed[0] ^= 1;
            for signature in [&[], longer.as_slice(), shorter, &changed, &vec![0; signature.len()]]
            {
                assert_eq!(verify(message, signature), wrong, "{signature:?}");
            }
        }
    }

    #[test]
    fn an_rsa_key_has_a_length_that_is_neither_broken_nor_slow() {
        let taken = |modulus: &[u8]| VerifyingKey::rsa(modulus, &[1, 0, 1]).is_some();
        assert!(taken(&[0xff; 256]) && taken(&[0xff; 1_024]));
        assert!(taken(&[[0].as_slice(), &[0xff; 256]].concat()), "a sign in front");
        assert!(!taken(&[0xff; 255]) && !taken(&[0xff; 1_025]) && !taken(&[0; 256]) && !taken(&[]));
        assert!(!taken(&[[0x7f].as_slice(), &[0xff; 255]].concat()), "2,047 bits");
        assert!(VerifyingKey::rsa(&[0xff; 256], &[0]).is_none());
    }
}
