//! What a token must be.

use bursar_server::auth::access::Role;
use bursar_server::auth::oidc::{Issuers, Person, PersonError, TokenRefusal};
use bursar_testing::oidc::issuer::{KEYS, Says, TestIssuer};
use bursar_testing::oidc::signer::{Signer, message};
use ring::hmac;
use serde_json::{Value, json};

use crate::issuers::{claims, noon, tenant, trusted, with, written};

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
        Self::written(|issuer| issuer).await
    }

    /// The same with another configuration.
    async fn written(change: impl Fn(Value) -> Value) -> Self {
        let (rsa, p256, ed25519) = (Signer::rsa("r"), Signer::p256("p"), Signer::ed25519("e"));
        let issuer = TestIssuer::new(&[&rsa, &p256, &ed25519]).await;
        let issuers = trusted(&[change(written(&issuer.url))]);
        Self { issuer, rsa, p256, ed25519, issuers }
    }

    fn claims(&self) -> Value {
        claims(&self.issuer.url)
    }

    async fn prove(&self, token: &str) -> Result<Person, PersonError> {
        self.issuers.prove(token, noon(0)).await
    }

    /// What becomes of a token with another value of a claim.
    async fn prove_with(&self, name: &str, value: Value) -> Result<Person, PersonError> {
        self.prove(&self.ed25519.token(&with(self.claims(), name, value))).await
    }

    /// The same for a claim that must be refused.
    async fn refuses(&self, name: &str, value: Value, refusal: TokenRefusal) {
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
    assert_eq!(world.issuer.asked(KEYS), 1);
}

#[tokio::test]
async fn no_other_algorithm_proves_anything() {
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
async fn a_public_key_is_no_shared_secret() {
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
async fn a_token_is_three_parts_of_plain_base64_with_objects_in_them() {
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
async fn a_name_that_comes_twice_is_refused() {
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
async fn a_header_cannot_ask_for_more() {
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
async fn what_someone_else_signed_is_refused() {
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
async fn a_token_without_a_key_id_is_for_an_issuer_with_one_key() {
    let world = World::new().await;
    let header = json!({ "alg": "EdDSA" }).to_string();
    let token = world.ed25519.token_of(&header, &world.claims().to_string());
    assert_eq!(world.prove(&token).await, refused(TokenRefusal::Key));
    world.issuer.says(KEYS, Says::keys(&[&world.ed25519]));
    let issuers = trusted(&[written(&world.issuer.url)]);
    assert!(issuers.prove(&token, noon(0)).await.is_ok());
}

#[tokio::test]
async fn an_issuer_that_is_not_trusted_is_never_asked() {
    let world = World::new().await;
    let stranger = TestIssuer::new(&[&world.ed25519]).await;
    let token = world.ed25519.token(&claims(&stranger.url));
    assert_eq!(world.prove(&token).await, refused(TokenRefusal::Issuer));
    for other in [world.issuer.url.clone() + "/", world.issuer.url.to_uppercase(), String::new()] {
        world.refuses("iss", json!(other), TokenRefusal::Issuer).await;
    }
    for wrong in [json!(null), json!(5), json!([world.issuer.url])] {
        world.refuses("iss", wrong, TokenRefusal::Claim("iss")).await;
    }
    let asked = [&stranger, &world.issuer].map(|issuer| issuer.asked(KEYS));
    assert_eq!(asked, [0, 0]);
}

#[tokio::test]
async fn a_token_must_be_meant_for_this_server() {
    let world = World::new().await;
    for meant in [json!("bursar"), json!(["bursar"]), json!(["other", "bursar"])] {
        assert!(world.prove_with("aud", meant.clone()).await.is_ok(), "{meant}");
    }
    for other in [json!("other"), json!("Bursar"), json!(""), json!([]), json!(["other"])] {
        world.refuses("aud", other, TokenRefusal::Audience).await;
    }
    for wrong in [json!(null), json!(5), json!({ "bursar": 1 }), json!(["bursar", 5])] {
        world.refuses("aud", wrong, TokenRefusal::Claim("aud")).await;
    }
}

#[tokio::test]
async fn a_token_is_good_from_when_to_when_it_says_and_a_minute_around() {
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
        world.refuses("exp", expires, TokenRefusal::Expired).await;
    }
    for begins in [at(60), at(0), at(-1_000_000), json!(0), json!(1.5), json!(-1)] {
        assert!(world.prove_with("nbf", begins.clone()).await.is_ok(), "{begins}");
    }
    for begins in [at(61), json!(noon(60).second() as f64 + 0.5), json!(1e300), json!(u64::MAX)] {
        world.refuses("nbf", begins, TokenRefusal::NotYet).await;
    }
    for name in ["exp", "nbf"] {
        let text = json!(noon(0).second().to_string());
        for wrong in [json!(null), text, json!(true)] {
            world.refuses(name, wrong, TokenRefusal::Claim(name)).await;
        }
        for wrong in [json!([noon(0).second()]), json!({})] {
            assert!(world.prove_with(name, wrong).await.is_err());
        }
    }
}

#[tokio::test]
async fn a_token_that_is_good_for_longer_than_a_day_is_refused() {
    let world = World::new().await;
    let lived = async |issued: Option<i64>, expires: Value| {
        let issued = issued.map_or(Value::Null, |seconds| json!(noon(0).second() + seconds));
        let claims = with(with(world.claims(), "exp", expires), "iat", issued);
        world.prove(&world.ed25519.token(&claims)).await.map(drop)
    };
    let at = |seconds: i64| json!(noon(0).second() + seconds);
    let too_long = Err(PersonError::Refused(TokenRefusal::Lifetime(86_400)));
    for (issued, expires, expected) in [
        // From when it was issued, however much of that is over.
        (Some(0), at(86_400), Ok(())),
        (Some(0), at(86_401), too_long),
        (Some(-86_000), at(400), Ok(())),
        (Some(-86_000), at(401), too_long),
        (Some(-30 * 86_400), at(600), too_long),
        // From now, when it does not say or says what has not come, a minute around.
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
    let said = too_long.map_err(|error| error.to_string());
    let expected = "The token is refused: it is good for longer than 86400 seconds (exp, iat), which \
                    this server does not take.";
    assert_eq!(said, Err(expected.to_owned()));
}

#[tokio::test]
async fn a_person_who_is_named_like_a_key_is_refused() {
    let world = World::new().await;
    for subject in [
        "sk-proj-abcdefghijklmnopqrst",
        "auth0|AKIAABCDEFGHIJKLMNOP",
        "bur_operator_0123456789abcdef0123456789abcdef",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.abcdefghij",
    ] {
        world.refuses("sub", json!(subject), TokenRefusal::Subject).await;
        let said = PersonError::Refused(TokenRefusal::Subject).to_string();
        assert!(said.contains("(sub) looks like a key") && !said.contains(subject), "{said}");
    }
}

#[tokio::test]
async fn a_token_names_a_person() {
    let world = World::new().await;
    for subject in ["a", "a b", "auth0|507f1f77", "ä", &"x".repeat(255), &"ä".repeat(255)] {
        let proved = world.prove_with("sub", json!(subject)).await;
        assert_eq!(proved.map(|person| person.subject).as_deref(), Ok(subject));
    }
    for wrong in
        [json!(null), json!(""), json!(5), json!("x".repeat(256)), json!("a\nb"), json!("a\u{0}")]
    {
        world.refuses("sub", wrong, TokenRefusal::Claim("sub")).await;
    }
}

#[tokio::test]
async fn a_token_names_a_role() {
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
        world.refuses("bursar_role", wrong, TokenRefusal::Role).await;
    }
}

#[tokio::test]
async fn roles_may_be_found_deeper_and_be_called_otherwise() {
    let world = World::written(|issuer| {
        let issuer = with(issuer, "role_claim", json!("realm_access.roles"));
        let issuer = with(issuer, "admin_value", json!("bursar-admin"));
        with(issuer, "viewer_value", json!("bursar-reader"))
    })
    .await;
    let roles = json!({ "roles": ["uma_authorization", "bursar-reader"] });
    let proved = world.prove_with("realm_access", roles).await;
    assert_eq!(proved.map(|person| person.role), Ok(Role::Viewer));
    world.refuses("realm_access", json!({ "roles": ["admin"] }), TokenRefusal::Role).await;
    world.refuses("realm_access", json!("bursar-admin"), TokenRefusal::Role).await;
}

#[tokio::test]
async fn an_issuer_of_one_tenant_names_no_other() {
    let (own, other) = (tenant(7).to_string(), tenant(8).to_string());
    let world = World::new().await;
    assert!(world.prove_with("bursar_tenant", json!(own)).await.is_ok());
    for named in [json!(other), json!("acme"), json!(7), json!([own]), json!("")] {
        world.refuses("bursar_tenant", named, TokenRefusal::Tenant).await;
    }
    let asks = World::written(|issuer| with(issuer, "tenant_claim", json!("org.id"))).await;
    let proved = asks.prove_with("org", json!({ "id": own })).await;
    assert_eq!(proved.map(|person| person.tenant_id), Ok(tenant(7)));
    for named in [json!(null), json!({}), json!({ "id": other }), json!({ "id": null })] {
        asks.refuses("org", named, TokenRefusal::Tenant).await;
    }
}

#[tokio::test]
async fn an_issuer_of_several_tenants_names_one_each_time() {
    let world = World::written(|issuer| {
        with(with(issuer, "tenant", Value::Null), "tenant_claim", json!("org"))
    })
    .await;
    for number in [7, 8] {
        let proved = world.prove_with("org", json!(tenant(number).to_string())).await;
        assert_eq!(proved.map(|person| person.tenant_id), Ok(tenant(number)));
    }
    for wrong in [json!(null), json!(7), json!("acme"), json!([tenant(7).to_string()])] {
        world.refuses("org", wrong, TokenRefusal::Tenant).await;
    }
}

#[tokio::test]
async fn an_issuers_key_is_good_for_that_issuer_only() {
    let (one, two) = (Signer::ed25519("a"), Signer::ed25519("b"));
    let (first, second) = (TestIssuer::new(&[&one]).await, TestIssuer::new(&[&two]).await);
    let of_eight = with(written(&second.url), "tenant", json!(tenant(8).to_string()));
    let issuers = trusted(&[written(&first.url), of_eight]);
    let prove = async |token: String| issuers.prove(&token, noon(0)).await;
    let own = prove(two.token(&claims(&second.url))).await;
    assert_eq!(own.map(|person| person.tenant_id), Ok(tenant(8)));
    assert_eq!(prove(two.token(&claims(&first.url))).await, refused(TokenRefusal::Key));
    let renamed = json!({ "alg": "EdDSA", "kid": "a" }).to_string();
    let token = two.token_of(&renamed, &claims(&first.url).to_string());
    assert_eq!(prove(token).await, refused(TokenRefusal::Signature));
}
