//! Files with certificates and keys.

use std::time::Duration;

use bursar_server::http::tls::{Certificates, TlsError, TlsFiles};
use bursar_testing::fuzzing::{Effort, Outcome, fuzz};

#[test]
fn a_certificate_and_key_load_or_the_error_names_the_file_and_no_content() {
    const WORDS: &[&str] =
        &["-----BEGIN CERTIFICATE-----\n", "-----END PRIVATE KEY-----\n", "-----", "=", "A", "\n"];
    let folder = tempfile::tempdir().expect("a folder");
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("made");
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let secret = key.lines().nth(1).expect("base64").to_owned();
    let files = TlsFiles {
        certificate: folder.path().join("certificate.pem"),
        key: folder.path().join("key.pem"),
        reload_every: Duration::from_secs(10),
    };
    fuzz(bolero::check!(), Effort { inputs: 200, ..Effort::PLAIN }, |choices| {
        let broken = choices.mutated_bytes(certificate.as_bytes(), WORDS);
        std::fs::write(&files.certificate, broken).expect("written");
        let broken = choices.mutated_bytes(key.as_bytes(), WORDS);
        std::fs::write(&files.key, broken).expect("written");
        let read = Certificates::load(files.clone());
        if let Err(error) = &read {
            let message = format!("{error} {error:?}");
            assert!(!matches!(error, TlsError::Unreadable { .. }), "{message}");
            assert!(message.contains(".pem") && !message.contains(&secret), "{message}");
        }
        Outcome::of(&read)
    });
}
