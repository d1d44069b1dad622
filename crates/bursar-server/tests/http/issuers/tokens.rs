//! Validation of tokens.

use bursar_server::auth::access::Role;
use bursar_server::auth::oidc::{Issuers, Person, PersonError, TokenRefusal};
use bursar_testing::oidc::issuer::{KEYS, Reply, TestIssuer};
use bursar_testing::oidc::signer::{Signer, message};
use ring::hmac;
use serde_json::{Value, json};

use crate::issuers::{claims, issuer_config, noon, tenant, trusted, with};

/// An issuer of tenant 7 with a key of each kind, and a server that trusts it.
struct World {
    issuer: TestIssuer,
    rsa: Signer,
    p256: Signer,
    ed25519: Signer,
    issuers: Issuers,
}

impl World {
    async fn new() -> Self {
        Self::with_config(|issuer| issuer).await
    }

    /// An issuer whose configuration is changed by a function.
    async fn with_config(change: impl Fn(Value) -> Value) -> Self {
        let (rsa, p256, ed25519) = (Signer::rsa("r"), Signer::p256("p"), Signer::ed25519("e"));
        let issuer = TestIssuer::new(&[&rsa, &p256, &ed25519]).await;
        let issuers = trusted(&[change(issuer_config(&issuer.url))]);
        Self { issuer, rsa, p256, ed25519, issuers }
    }

    fn claims(&self) -> Value {
        claims(&self.issuer.url)
    }

    async fn prove(&self, token: &str) -> Result<Person, PersonError> {
        self.issuers.prove(token, noon(0)).await
    }

    /// The result of a token with another value of one claim.
    async fn prove_with(&self, name: &str, value: Value) -> Result<Person, PersonError> {
        self.prove(&self.ed25519.token(&with(self.claims(), name, value))).await
    }

    /// Asserts that the value of a claim is refused.
    async fn check_refused(&self, name: &str, value: Value, refusal: TokenRefusal) {
        let proved = self.prove_with(name, value.clone()).await;
        assert_eq!(proved, Err(PersonError::Refused(refusal)), "{name}: {value}");
    }
}

fn refused(refusal: TokenRefusal) -> Result<Person, PersonError> {
    Err(PersonError::Refused(refusal))
}

#[tokio::test]
async fn a_token_of_each_algorithm_proves_its_person() {
    let world = World::new().await;
    let person = Person {
        tenant_id: tenant(7),
        subject: "ada".to_owned(),
        issuer: world.issuer.url.clone(),
        role: Role::Admin,
        expires_at: noon(660),
    };
    for signer in [&world.rsa, &world.p256, &world.ed25519] {
        let proved = world.prove(&signer.token(&world.claims())).await;
        assert_eq!(proved.as_ref(), Ok(&person), "{}", signer.algorithm());
    }
    assert_eq!(world.issuer.request_count(KEYS), 1);
}

#[tokio::test]
async fn other_algorithms_are_refused() {
    let world = World::new().await;
    let claims = world.claims().to_string();
    for algorithm in ["none", "None", "NONE", "", "HS256", "RS384", "PS256", "ES384", "rs256"] {
        let header = json!({ "alg": algorithm, "kid": "r" }).to_string();
        let unsigned = message(&header, &claims) + ".";
        assert_eq!(world.prove(&unsigned).await, refused(TokenRefusal::Algorithm), "{algorithm}");
        let signed = world.rsa.token_of(&header, &claims);
        assert_eq!(world.prove(&signed).await, refused(TokenRefusal::Algorithm), "{algorithm}");
    }
    let header = json!({ "kid": "r" }).to_string();
    let signed = world.rsa.token_of(&header, &claims);
    assert_eq!(world.prove(&signed).await, refused(TokenRefusal::Algorithm));
}

#[tokio::test]
async fn a_public_key_is_not_accepted_as_a_shared_secret() {
    use base64::Engine;
    let world = World::new().await;
    for signer in [&world.rsa, &world.p256, &world.ed25519] {
        for algorithm in ["HS256", signer.algorithm()] {
            let header = json!({ "alg": algorithm, "kid": signer.id }).to_string();
            let message = message(&header, &world.claims().to_string());
            let key = hmac::Key::new(hmac::HMAC_SHA256, &signer.public_bytes());
            let tag = hmac::sign(&key, message.as_bytes());
            let tag = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(tag);
            let proved = world.prove(&format!("{message}.{tag}")).await;
            let expected = if algorithm == "HS256" {
                TokenRefusal::Algorithm
            } else {
                TokenRefusal::Signature
            };
            assert_eq!(proved, refused(expected), "{algorithm}");
        }
    }
}

#[tokio::test]
async fn an_algorithm_must_fit_its_key() {
    let world = World::new().await;
    let claims = world.claims().to_string();
    for (key_id, algorithm) in [("r", "ES256"), ("p", "RS256"), ("e", "ES256"), ("p", "EdDSA")] {
        let header = json!({ "alg": algorithm, "kid": key_id }).to_string();
        let signed = world.p256.token_of(&header, &claims);
        assert_eq!(world.prove(&signed).await, refused(TokenRefusal::Key), "{key_id} {algorithm}");
    }
}

#[tokio::test]
async fn a_malformed_token_is_refused() {
    let world = World::new().await;
    let good = world.ed25519.token(&world.claims());
    let (signed, signature) = good.rsplit_once('.').unwrap();
    for token in [
        "",
        ".",
        "..",
        "a.b.c",
        signed,
        &format!("{good}.{signature}"),
        &format!("{signed}=.{signature}"),
        &format!(" {good}"),
        &message("[]", "{}"),
        &(message("{}", "[]") + ".x"),
        &(message("{", "{}") + ".x"),
    ] {
        assert_eq!(world.prove(token).await, refused(TokenRefusal::Malformed), "{token}");
    }
    assert_eq!(world.prove(&format!("{signed}.")).await, refused(TokenRefusal::Signature));
    let long = with(world.claims(), "more", json!("x".repeat(8_192)));
    assert_eq!(world.prove(&world.ed25519.token(&long)).await, refused(TokenRefusal::Malformed));
    let long = with(world.claims(), "more", json!("x".repeat(4_096)));
    assert!(world.prove(&world.ed25519.token(&long)).await.is_ok());
}

#[tokio::test]
async fn duplicate_names_in_a_token_are_refused() {
    let world = World::new().await;
    let header = json!({ "alg": "EdDSA", "kid": "e" }).to_string();
    let claims = world.claims().to_string();
    for (header, claims) in [
        (r#"{"alg":"EdDSA","alg":"EdDSA","kid":"e"}"#.to_owned(), claims.clone()),
        (r#"{"alg":"EdDSA","kid":"e","kid":"e"}"#.to_owned(), claims.clone()),
        (header.clone(), claims.replacen('{', r#"{"sub":"eve","#, 1)),
        (header.clone(), claims.replacen('{', r#"{"bursar_role":"viewer","#, 1)),
        (header.clone(), claims.replacen('{', r#"{"more":{"a":1,"a":2},"#, 1)),
    ] {
        let token = world.ed25519.token_of(&header, &claims);
        assert_eq!(
            world.prove(&token).await,
            refused(TokenRefusal::Malformed),
            "{header} {claims}"
        );
    }
    assert!(world.prove(&world.ed25519.token_of(&header, &claims)).await.is_ok());
}

#[tokio::test]
async fn a_token_header_cannot_supply_a_key_or_critical_extensions() {
    let world = World::new().await;
    let claims = world.claims().to_string();
    let eve = Signer::ed25519("e");
    let header = |more: Value| {
        let mut header = json!({ "alg": "EdDSA", "kid": "e" });
        header.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        header.to_string()
    };
    for crit in [json!([]), json!(["b64"]), json!(null)] {
        let token = world.ed25519.token_of(&header(json!({ "crit": crit })), &claims);
        assert_eq!(world.prove(&token).await, refused(TokenRefusal::Critical));
    }
    for more in [json!({ "jwk": eve.jwk() }), json!({ "jku": "https://eve.example/keys" })] {
        let token = eve.token_of(&header(more), &claims);
        assert_eq!(world.prove(&token).await, refused(TokenRefusal::Signature));
    }
    for (name, wrong) in
        [("typ", json!(5)), ("enc", json!([])), ("x5c", json!("a")), ("jwk", json!(1))]
    {
        let token = world.ed25519.token_of(&header(json!({ name: wrong })), &claims);
        assert_eq!(world.prove(&token).await, refused(TokenRefusal::Malformed), "{name}");
        let token = world.ed25519.token_of(&header(json!({ name: null })), &claims);
        assert!(world.prove(&token).await.is_ok(), "{name}");
    }
    for kid in [json!(5), json!(null), json!(["e"])] {
        let token = world.ed25519.token_of(&header(json!({ "kid": kid })), &claims);
        assert_eq!(world.prove(&token).await, refused(TokenRefusal::Malformed));
    }
}

#[tokio::test]
async fn a_signature_by_another_key_is_refused() {
    let world = World::new().await;
    let (eve, of_eve) = (Signer::ed25519("e"), Signer::ed25519("of eve"));
    assert_eq!(world.prove(&eve.token(&world.claims())).await, refused(TokenRefusal::Signature));
    assert_eq!(world.prove(&of_eve.token(&world.claims())).await, refused(TokenRefusal::Key));
    let good = world.ed25519.token(&world.claims());
    let other = world.ed25519.token(&with(world.claims(), "sub", json!("eve")));
    let (signed, _) = other.rsplit_once('.').unwrap();
    let (_, signature) = good.rsplit_once('.').unwrap();
    let mixed = format!("{signed}.{signature}");
    assert_eq!(world.prove(&mixed).await, refused(TokenRefusal::Signature));
}

#[tokio::test]
async fn a_token_without_a_key_id_needs_an_issuer_with_one_key() {
    let world = World::new().await;
    let header = json!({ "alg": "EdDSA" }).to_string();
    let token = world.ed25519.token_of(&header, &world.claims().to_string());
    assert_eq!(world.prove(&token).await, refused(TokenRefusal::Key));
    world.issuer.set_reply(KEYS, Reply::keys(&[&world.ed25519]));
    let issuers = trusted(&[issuer_config(&world.issuer.url)]);
    assert!(issuers.prove(&token, noon(0)).await.is_ok());
}

#[tokio::test]
async fn an_untrusted_issuer_is_never_contacted() {
    let world = World::new().await;
    let stranger = TestIssuer::new(&[&world.ed25519]).await;
    let token = world.ed25519.token(&claims(&stranger.url));
    assert_eq!(world.prove(&token).await, refused(TokenRefusal::Issuer));
    for other in [world.issuer.url.clone() + "/", world.issuer.url.to_uppercase(), String::new()] {
        world.check_refused("iss", json!(other), TokenRefusal::Issuer).await;
    }
    for wrong in [json!(null), json!(5), json!([world.issuer.url])] {
        world.check_refused("iss", wrong, TokenRefusal::Claim("iss")).await;
    }
    let requests = [&stranger, &world.issuer].map(|issuer| issuer.request_count(KEYS));
    assert_eq!(requests, [0, 0]);
}

#[tokio::test]
async fn a_token_needs_the_audience_of_this_server() {
    let world = World::new().await;
    for meant in [json!("bursar"), json!(["bursar"]), json!(["other", "bursar"])] {
        assert!(world.prove_with("aud", meant.clone()).await.is_ok(), "{meant}");
    }
    for other in [json!("other"), json!("Bursar"), json!(""), json!([]), json!(["other"])] {
        world.check_refused("aud", other, TokenRefusal::Audience).await;
    }
    for wrong in [json!(null), json!(5), json!({ "bursar": 1 }), json!(["bursar", 5])] {
        world.check_refused("aud", wrong, TokenRefusal::Claim("aud")).await;
    }
}

#[tokio::test]
async fn exp_and_nbf_apply_with_a_minute_of_leeway() {
    let world = World::new().await;
    let at = |seconds: i64| json!(noon(0).second() + seconds);
    for expires in [at(1), at(0), at(-59), json!(noon(0).second() as f64 - 58.5), at(86_460)] {
        assert!(world.prove_with("exp", expires.clone()).await.is_ok(), "{expires}");
    }
    for expires in [
        at(-60),
        at(-61),
        json!(noon(0).second() as f64 - 59.5),
        json!(0),
        json!(-1),
        json!(-1e300),
        json!(i64::MIN),
    ] {
        world.check_refused("exp", expires, TokenRefusal::Expired).await;
    }
    for begins in [at(60), at(0), at(-1_000_000), json!(0), json!(1.5), json!(-1)] {
        assert!(world.prove_with("nbf", begins.clone()).await.is_ok(), "{begins}");
    }
    for begins in [at(61), json!(noon(60).second() as f64 + 0.5), json!(1e300), json!(u64::MAX)] {
        world.check_refused("nbf", begins, TokenRefusal::NotYet).await;
    }
    for name in ["exp", "nbf"] {
        let text = json!(noon(0).second().to_string());
        for wrong in [json!(null), text, json!(true)] {
            world.check_refused(name, wrong, TokenRefusal::Claim(name)).await;
        }
        for wrong in [json!([noon(0).second()]), json!({})] {
            assert!(world.prove_with(name, wrong).await.is_err());
        }
    }
}

#[tokio::test]
async fn a_token_with_a_lifetime_over_a_day_is_refused() {
    let world = World::new().await;
    let lived = async |issued: Option<i64>, expires: Value| {
        let issued = issued.map_or(Value::Null, |seconds| json!(noon(0).second() + seconds));
        let claims = with(with(world.claims(), "exp", expires), "iat", issued);
        world.prove(&world.ed25519.token(&claims)).await.map(drop)
    };
    let at = |seconds: i64| json!(noon(0).second() + seconds);
    let too_long = Err(PersonError::Refused(TokenRefusal::Lifetime(86_400)));
    for (issued, expires, expected) in [
        // Counted from `iat`, even if most of the lifetime is over.
        (Some(0), at(86_400), Ok(())),
        (Some(0), at(86_401), too_long),
        (Some(-86_000), at(400), Ok(())),
        (Some(-86_000), at(401), too_long),
        (Some(-30 * 86_400), at(600), too_long),
        // Counted from now if `iat` is missing or in the future, with a minute of leeway.
        (None, at(86_460), Ok(())),
        (None, at(86_461), too_long),
        (Some(60), at(86_460), Ok(())),
        (Some(86_400), at(2 * 86_400), too_long),
        (None, json!(1e18), too_long),
        (Some(0), json!(i64::MAX), too_long),
    ] {
        assert_eq!(lived(issued, expires.clone()).await, expected, "{issued:?} {expires}");
    }
    for wrong in [json!("now"), json!(true), json!([1])] {
        let refused = world.prove_with("iat", wrong.clone()).await;
        assert_eq!(refused, Err(PersonError::Refused(TokenRefusal::Claim("iat"))), "{wrong}");
    }
    let message = too_long.map_err(|error| error.to_string());
    let expected = "The token was refused: it is valid for more than 86400 seconds (exp, iat), the \
                    maximum on this server.";
    assert_eq!(message, Err(expected.to_owned()));
}

#[tokio::test]
async fn a_subject_that_looks_like_a_key_is_refused() {
    let world = World::new().await;
    for subject in [
        "sk-proj-abcdefghijklmnopqrst",
        "auth0|AKIAABCDEFGHIJKLMNOP",
        "bur_operator_0123456789abcdef0123456789abcdef",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.abcdefghij",
    ] {
        world.check_refused("sub", json!(subject), TokenRefusal::Subject).await;
        let message = PersonError::Refused(TokenRefusal::Subject).to_string();
        assert!(
            message.contains("(sub) looks like a secret key") && !message.contains(subject),
            "{message}"
        );
    }
}

#[tokio::test]
async fn a_token_needs_a_valid_subject() {
    let world = World::new().await;
    for subject in ["a", "a b", "auth0|507f1f77", "ä", &"x".repeat(255), &"ä".repeat(255)] {
        let proved = world.prove_with("sub", json!(subject)).await;
        assert_eq!(proved.map(|person| person.subject).as_deref(), Ok(subject));
    }
    for wrong in
        [json!(null), json!(""), json!(5), json!("x".repeat(256)), json!("a\nb"), json!("a\u{0}")]
    {
        world.check_refused("sub", wrong, TokenRefusal::Claim("sub")).await;
    }
}

#[tokio::test]
async fn a_token_needs_a_known_role() {
    let world = World::new().await;
    for (named, role) in [
        (json!("admin"), Role::Admin),
        (json!("viewer"), Role::Viewer),
        (json!(["viewer"]), Role::Viewer),
        (json!(["viewer", "admin"]), Role::Admin),
        (json!(["offline_access", "viewer"]), Role::Viewer),
    ] {
        let proved = world.prove_with("bursar_role", named.clone()).await;
        assert_eq!(proved.map(|person| person.role), Ok(role), "{named}");
    }
    for wrong in [
        json!(null),
        json!(""),
        json!("Admin"),
        json!("admin viewer"),
        json!([]),
        json!(["other"]),
        json!(["admin", 5]),
        json!(true),
        json!({ "admin": true }),
    ] {
        world.check_refused("bursar_role", wrong, TokenRefusal::Role).await;
    }
}

#[tokio::test]
async fn the_role_claim_and_its_values_are_configurable() {
    let world = World::with_config(|issuer| {
        let issuer = with(issuer, "role_claim", json!("realm_access.roles"));
        let issuer = with(issuer, "admin_value", json!("bursar-admin"));
        with(issuer, "viewer_value", json!("bursar-reader"))
    })
    .await;
    let roles = json!({ "roles": ["uma_authorization", "bursar-reader"] });
    let proved = world.prove_with("realm_access", roles).await;
    assert_eq!(proved.map(|person| person.role), Ok(Role::Viewer));
    world.check_refused("realm_access", json!({ "roles": ["admin"] }), TokenRefusal::Role).await;
    world.check_refused("realm_access", json!("bursar-admin"), TokenRefusal::Role).await;
}

#[tokio::test]
async fn an_issuer_of_one_tenant_cannot_name_another() {
    let (own, other) = (tenant(7).to_string(), tenant(8).to_string());
    let world = World::new().await;
    assert!(world.prove_with("bursar_tenant", json!(own)).await.is_ok());
    for named in [json!(other), json!("acme"), json!(7), json!([own]), json!("")] {
        world.check_refused("bursar_tenant", named, TokenRefusal::Tenant).await;
    }
    let asks = World::with_config(|issuer| with(issuer, "tenant_claim", json!("org.id"))).await;
    let proved = asks.prove_with("org", json!({ "id": own })).await;
    assert_eq!(proved.map(|person| person.tenant_id), Ok(tenant(7)));
    for named in [json!(null), json!({}), json!({ "id": other }), json!({ "id": null })] {
        asks.check_refused("org", named, TokenRefusal::Tenant).await;
    }
}

#[tokio::test]
async fn an_issuer_of_several_tenants_must_name_one() {
    let world = World::with_config(|issuer| {
        with(with(issuer, "tenant", Value::Null), "tenant_claim", json!("org"))
    })
    .await;
    for number in [7, 8] {
        let proved = world.prove_with("org", json!(tenant(number).to_string())).await;
        assert_eq!(proved.map(|person| person.tenant_id), Ok(tenant(number)));
    }
    for wrong in [json!(null), json!(7), json!("acme"), json!([tenant(7).to_string()])] {
        world.check_refused("org", wrong, TokenRefusal::Tenant).await;
    }
}

#[tokio::test]
async fn an_issuers_key_is_valid_only_for_that_issuer() {
    let (one, two) = (Signer::ed25519("a"), Signer::ed25519("b"));
    let (first, second) = (TestIssuer::new(&[&one]).await, TestIssuer::new(&[&two]).await);
    let of_eight = with(issuer_config(&second.url), "tenant", json!(tenant(8).to_string()));
    let issuers = trusted(&[issuer_config(&first.url), of_eight]);
    let prove = async |token: String| issuers.prove(&token, noon(0)).await;
    let own = prove(two.token(&claims(&second.url))).await;
    assert_eq!(own.map(|person| person.tenant_id), Ok(tenant(8)));
    assert_eq!(prove(two.token(&claims(&first.url))).await, refused(TokenRefusal::Key));
    let renamed = json!({ "alg": "EdDSA", "kid": "a" }).to_string();
    let token = two.token_of(&renamed, &claims(&first.url).to_string());
    assert_eq!(prove(token).await, refused(TokenRefusal::Signature));
}
