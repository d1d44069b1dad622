//! Scalar types on the wire that a Rust type alone does not describe: ids, times, money.

use std::borrow::Cow;

use utoipa::openapi::schema::{
    AdditionalProperties, AnyOfBuilder, KnownFormat, ObjectBuilder, SchemaFormat, Type,
};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// The largest cost of a record or an estimate, in cents: a million dollars.
const CENTS_MAX: f64 = 100_000_000.0;
/// The same in dollars.
const USD_MAX: f64 = 1_000_000.0;
/// The largest number of tokens or milliseconds.
const COUNT_MAX: f64 = 1_000_000_000.0;

/// The largest threshold of an override.
pub(crate) const ALLOWED_VALUE_MAX: u32 = 1_000_000_000;
/// The longest reason of an override.
pub(crate) const REASON_CHARS_MAX: usize = 500;

macro_rules! scalars {
    ($($(#[doc = $doc:literal])+ $name:ident = $schema:expr;)+) => {
        $(
            $(#[doc = $doc])+
            #[derive(Debug)]
            pub(crate) struct $name;

            impl PartialSchema for $name {
                fn schema() -> RefOr<Schema> {
                    let described = concat!($($doc,)+).trim_ascii();
                    RefOr::T(Schema::from($schema.description(Some(described)).build()))
                }
            }

            impl ToSchema for $name {
                fn name() -> Cow<'static, str> {
                    Cow::Borrowed(stringify!($name))
                }
            }
        )+
    };
}

scalars! {
    /// An id that this server created.
    Id = custom("uuid").examples(["00660b79-1e72-8c3a-87e1-65583f7b7206"]);
    /// An instant in UTC, to the microsecond.
    Instant = text(KnownFormat::DateTime).examples(["2026-11-20T13:00:39.123456Z"]);
    /// A day of the UTC calendar.
    Date = text(KnownFormat::Date).examples(["2026-11-20"]);
    /// A month of the UTC calendar.
    Month = pattern("^(19[7-9][0-9]|[2-9][0-9]{3})-(0[1-9]|1[0-2])$").examples(["2026-10"]);
    /// An instant in the future.
    Later = text(KnownFormat::DateTime).examples(["2100-01-01T00:00:00Z"]);
    /// An instant with a zone, or a day of the UTC calendar.
    InstantOrDate =
        AnyOfBuilder::new().item(text(KnownFormat::DateTime)).item(text(KnownFormat::Date));
    /// Dollars, exact to a nano-dollar.
    Usd = pattern(r"^-?[0-9]+(\.[0-9]{1,9})?$").examples(["0.0125"]);
    /// An amount in cents, at most a million dollars: a number in any notation, or a decimal
    /// string. Rounded half up to a nano-dollar.
    AmountCents = number_or_string(Type::Number, CENTS_MAX, AMOUNT_TEXT).examples([1.25]);
    /// An amount in dollars, at most a million: a number in any notation, or a decimal string.
    /// Rounded half up to a nano-dollar.
    AmountUsd = number_or_string(Type::Number, USD_MAX, AMOUNT_TEXT).examples([0.0125]);
    /// A reference to a credential, never the credential: `encrypted://<id>`,
    /// `vault://<mount>/<path>[#field]`, and for the operator `env://NAME` and `file:///path`.
    CredentialRef = pattern(REFERENCE).max_length(Some(500)).examples(["vault://secret/openai"]);
    /// A name of 1 to 255 characters, not blank, without control characters.
    Name = pattern(PLAIN).min_length(Some(1)).max_length(Some(255)).examples(["acme"]);
    /// A text of 1 to 256 characters, not blank, without control characters.
    ModelName = pattern(PLAIN).min_length(Some(1)).max_length(Some(256)).examples(["gpt-4o"]);
    /// The client's idempotency key of a call: 1 to 256 characters, not blank, without control
    /// characters. White space around it is removed.
    CallId = pattern(ONE_LINE).min_length(Some(1)).max_length(Some(256)).examples(["call-1"]);
    /// A label of up to 256 characters. White space around it is removed, and control characters and
    /// line separators become U+FFFD. A blank label counts as absent.
    Label = label(256).examples(["agent-7"]);
    /// Like a label, of up to 100 characters.
    ShortLabel = label(100).examples(["timeout"]);
    /// Like a label, of up to 64 characters.
    RegionLabel = label(64).examples(["eu-central-1"]);
    /// A label of up to 256 characters; a longer one is ignored, and the response names the field.
    RequestLabel = ObjectBuilder::new().schema_type(Type::String).examples(["req_011CSHoEeqs5"]);
    /// How far token figures can be relied on; `reported` is an older word for `final`.
    SentUsageStatus = ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(["final", "partial", "estimated", "missing", "reported"]));
    /// Like a label, of up to 50 characters.
    TierLabel = label(50).examples(["priority"]);
    /// Like a label, of 1 to 256 characters, not blank.
    ModelLabel = label(256).min_length(Some(1)).pattern(Some(NOT_BLANK)).examples(["gpt-4o"]);
    /// Like a label, of 1 to 100 characters, not blank.
    ProviderLabel = label(100).min_length(Some(1)).pattern(Some(NOT_BLANK)).examples(["openai"]);
    /// A text. NUL becomes U+FFFD.
    Message = ObjectBuilder::new().schema_type(Type::String);
    /// A whole number of tokens, at most one billion, in any notation: `14417`, `14417.0`,
    /// `"14417"`.
    TokenCount = number_or_string(Type::Integer, COUNT_MAX, COUNT_TEXT).examples([1200]);
    /// Milliseconds, at most one billion: a number in any notation, or a decimal string. Rounded
    /// half up.
    Millis = number_or_string(Type::Number, COUNT_MAX, MILLIS_TEXT).examples([812.4]);
    /// A threshold of protection; 0 means unlimited.
    AllowedValue = ObjectBuilder::new()
        .schema_type(Type::Integer)
        .minimum(Some(0))
        .maximum(Some(ALLOWED_VALUE_MAX));
    /// A reason of 1 to 500 characters, not blank, without control characters.
    ReasonText = pattern(PLAIN)
        .min_length(Some(1))
        .max_length(Some(REASON_CHARS_MAX))
        .examples(["a migration"]);
    /// A limit; 0 means unlimited.
    LimitAmount = ObjectBuilder::new()
        .schema_type(Type::Integer)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
        .minimum(Some(0))
        .maximum(Some(i64::MAX));
    /// A hash as 64 hexadecimal digits.
    Digest = pattern("^[0-9a-f]{64}$");
    /// Other facts about a call: an object of at most 32 KiB, without secrets.
    FreeObject = ObjectBuilder::new();
    /// An object of up to 16 strings of 1 to 256 characters. Names have 1 to 64 of the characters
    /// `A-Z`, `a-z`, `0-9`, `_`, `.` and `-`; `import` and names that begin with `bursar.` are the
    /// server's. A tag that breaks the rules is left out, and the response names it.
    TagValues = ObjectBuilder::new()
        .additional_properties(Some(AdditionalProperties::FreeForm(true)))
        .examples([serde_json::json!({ "team": "search" })]);
    /// An object of up to 16 amounts from 0 to one billion, rounded half up to six places: numbers
    /// in any notation, or decimal strings. Names have 1 to 32 of the characters `a-z`, `0-9` and
    /// `_`; others are left out, and the response names them.
    UnitAmounts = ObjectBuilder::new()
        .additional_properties(Some(RefOr::T(Schema::from(
            number_or_string(Type::Number, COUNT_MAX, MILLIS_TEXT).build(),
        ))))
        .examples([serde_json::json!({ "web_search": 2 })]);
    /// Names and values of a record.
    Tags = ObjectBuilder::new()
        .additional_properties(Some(Schema::from(ObjectBuilder::new().schema_type(Type::String).build())));
    /// Amounts of a record, exact to six places.
    Units = ObjectBuilder::new()
        .additional_properties(Some(Schema::from(ObjectBuilder::new().schema_type(Type::Number).build())));
}

const REFERENCE: &str = concat!(
    r"^(encrypted://[A-Za-z0-9-]+",
    r"|vault://[A-Za-z0-9_-][A-Za-z0-9_.-]*(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)+(#[A-Za-z0-9_-]+)?",
    r"|env://[A-Za-z0-9_]+",
    r"|file:///[^\x00-\x1f\x7f-\x9f]+)$",
);
/// At least one character that is not blank, and no control character.
const PLAIN: &str = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$";
/// At least one character that is not blank; inside, neither control characters nor line separators.
const ONE_LINE: &str = concat!(
    r"^\s*[^\s\x00-\x1f\x7f-\x9f]",
    r"([^\x00-\x1f\x7f-\x9f\u2028\u2029]*[^\s\x00-\x1f\x7f-\x9f])?\s*$",
);
/// At least one character that is not blank.
const NOT_BLANK: &str = r"\S";
/// Strings that are amounts, in cents and in dollars. More are accepted, if they are in the bounds.
const AMOUNT_TEXT: &str = r"^\s*([0-9]{1,6}(\.[0-9]{0,20})?|\.[0-9]{1,20})([eE]-[0-9]{1,2})?\s*$";
/// Strings that are whole numbers.
const COUNT_TEXT: &str = r"^\s*[0-9]{1,9}(\.0{0,9})?\s*$";
/// Strings that are numbers of milliseconds.
const MILLIS_TEXT: &str = r"^\s*[0-9]{1,9}(\.[0-9]{0,20})?\s*$";

fn number_or_string(number: Type, maximum: f64, string: &str) -> AnyOfBuilder {
    let number = ObjectBuilder::new().schema_type(number).minimum(Some(0.0)).maximum(Some(maximum));
    AnyOfBuilder::new().item(number).item(pattern(string))
}

fn label(chars_max: usize) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).max_length(Some(chars_max))
}

fn text(format: KnownFormat) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).format(Some(SchemaFormat::KnownFormat(format)))
}

fn custom(format: &str) -> ObjectBuilder {
    let format = SchemaFormat::Custom(format.to_owned());
    ObjectBuilder::new().schema_type(Type::String).format(Some(format))
}

fn pattern(pattern: &str) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).pattern(Some(pattern))
}

/// An integer parameter with bounds and a default.
///
/// The code enforces the same constants, so the document cannot differ.
#[derive(Debug)]
pub(crate) struct BoundedInteger<const LOW: u32, const HIGH: u32, const DEFAULT: u32>;

impl<const LOW: u32, const HIGH: u32, const DEFAULT: u32> PartialSchema
    for BoundedInteger<LOW, HIGH, DEFAULT>
{
    fn schema() -> RefOr<Schema> {
        let bounds = ObjectBuilder::new().minimum(Some(LOW)).maximum(Some(HIGH));
        let default = Some(serde_json::Value::from(DEFAULT));
        bounds.schema_type(Type::Integer).default(default).build().into()
    }
}

impl<const LOW: u32, const HIGH: u32, const DEFAULT: u32> ToSchema
    for BoundedInteger<LOW, HIGH, DEFAULT>
{
}
