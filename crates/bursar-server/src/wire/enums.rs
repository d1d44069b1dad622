//! The closed sets of words on the wire, read from the code that writes them.

use bursar_core::{FailureCause, Health, Measure};
use bursar_store::Step;
use serde_json::Value;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};

use crate::auth::scopes::GRANTS;
use crate::wire::error_code;

/// The providers that are known. To add one, add its word here.
pub const PROVIDER_TYPES: &[&str] = &["openai", "anthropic", "azure_openai", "bedrock", "custom"];

/// What became of a record.
pub(crate) const ACCEPTED: &str = "accepted";
pub(crate) const DUPLICATE: &str = "duplicate";
pub(crate) const CONFLICT: &str = "conflict";
pub(crate) const ERROR: &str = "error";

/// What the server is when it answers.
pub(crate) const LIVE: &str = "live";
pub(crate) const READY: &str = "ready";

/// The word on the wire for what a limit adds up.
pub(crate) const fn limit_type(measure: Measure) -> &'static str {
    match measure {
        Measure::Cost => "budget",
        Measure::Tokens => "tokens",
        Measure::Calls => "rate",
    }
}

/// The word for how a reservation stands.
pub(crate) const fn reservation_state_name(state: bursar_core::ReservationState) -> &'static str {
    match state {
        bursar_core::ReservationState::Open => "open",
        bursar_core::ReservationState::Settled => "settled",
        bursar_core::ReservationState::Released => "released",
        bursar_core::ReservationState::Expired => "expired",
    }
}

/// The word for whose figure a cost is.
pub(crate) const fn cost_basis_name(basis: bursar_core::CostBasis) -> &'static str {
    match basis {
        bursar_core::CostBasis::Reported => "reported",
        bursar_core::CostBasis::Computed => "computed",
    }
}

/// The word for what an entry is.
pub(crate) const fn entry_kind_name(kind: bursar_core::EntryKind) -> &'static str {
    match kind {
        bursar_core::EntryKind::Usage => "usage",
        bursar_core::EntryKind::Correction => "correction",
    }
}

/// The word for what usage is told apart by.
pub(crate) const fn group_by_name(by: bursar_store::GroupBy) -> &'static str {
    match by {
        bursar_store::GroupBy::Integration => "integration",
        bursar_store::GroupBy::Model => "model",
        bursar_store::GroupBy::Provider => "provider",
        bursar_store::GroupBy::Agent => "agent",
        bursar_store::GroupBy::Session => "session",
    }
}

/// The word for a step.
pub(crate) const fn step_name(step: Step) -> &'static str {
    match step {
        Step::Hour => "hour",
        Step::Day => "day",
    }
}

/// One of these words.
pub(crate) fn one_of(
    meaning: &str,
    words: impl IntoIterator<Item = impl Into<Value>>,
) -> RefOr<Schema> {
    let text = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words));
    text.description(Some(meaning.trim_ascii())).build().into()
}

/// The schema of a set of words. A handler that has one to itself declares it beside the words.
macro_rules! enum_schema {
    ($(#[doc = $doc:literal])+ $name:ident, $values:expr) => {
        $(#[doc = $doc])+
        #[derive(Debug)]
        pub struct $name;

        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                $crate::wire::enums::one_of(concat!($($doc,)+), $values)
            }
        }

        impl utoipa::ToSchema for $name {
            fn name() -> std::borrow::Cow<'static, str> {
                std::borrow::Cow::Borrowed(stringify!($name))
            }
        }
    };
}

/// The words of an enum. A variant that is neither shown nor hidden does not compile.
macro_rules! enum_schemas {
    ($(
        $(#[doc = $doc:literal])+
        $name:ident in $type:ty = $as_str:path { $($shown:ident),+ } $(hides { $hidden:ident })?;
    )+) => {
        $(
            $crate::wire::enums::enum_schema! {
                $(#[doc = $doc])+
                $name,
                {
                    type Known = $type;
                    const fn is_known(value: Known) {
                        match value {
                            $(Known::$shown)|+ $(| Known::$hidden)? => {}
                        }
                    }
                    let _: fn(Known) = is_known;
                    [$($as_str(Known::$shown)),+]
                }
            }
        )+
    };
}

pub(crate) use {enum_schema, enum_schemas};

enum_schemas! {
    /// Where a tenant is in its life.
    TenantLifecycle in bursar_core::TenantLifecycle =
        bursar_core::TenantLifecycle::as_str { Active, Suspended, Terminated, Archived };
    /// How far a tenant has come in setting itself up.
    OnboardingState in bursar_core::OnboardingState =
        bursar_core::OnboardingState::as_str
        { Created, IdentityVerified, ApiKeyCreated, SdkConnected, Complete };
    /// Where an integration is in its life.
    IntegrationStatus in bursar_core::IntegrationStatus =
        bursar_core::IntegrationStatus::as_str
        { Created, Enabled, Disabled, Error } hides { Deleted };
    /// Whose figure is the cost of a record: the client's, or always the computed one.
    CostBasis in bursar_core::CostBasis =
        cost_basis_name { Reported, Computed };
    /// What the caller's own policy made of the call.
    PolicyResult in bursar_core::PolicyResult =
        bursar_core::PolicyResult::as_str { Allowed, Warned, Blocked };
    /// The answer to a caller, from best to worst. The first two let the call go on.
    Verdict in bursar_core::Verdict =
        bursar_core::Verdict::as_str { Allowed, Warned, Throttled, Blocked, HardBlocked };
    /// What an entry of the ledger is.
    EntryKind in bursar_core::EntryKind =
        entry_kind_name { Usage, Correction };
    /// Which figure is the cost of a record.
    CostSource in bursar_core::CostSource =
        bursar_core::CostSource::as_str { Reported, Computed, Held, Unknown };
    /// Where the figures of a record come from.
    UsageStatus in bursar_core::UsageStatus =
        bursar_core::UsageStatus::as_str { Reported, Estimated, Missing };
    /// How a reservation stands.
    ReservationState in bursar_core::ReservationState =
        reservation_state_name { Open, Settled, Released, Expired };
    /// What was asked when a decision was kept.
    DecisionKind in bursar_store::DecisionKind =
        bursar_store::DecisionKind::as_str { Check, Reservation };
    /// What usage is told apart by.
    GroupBy in bursar_store::GroupBy =
        group_by_name { Integration, Model, Provider, Agent, Session };
    /// What a series tells usage apart by.
    SeriesGroupBy in bursar_store::GroupBy =
        group_by_name { Integration, Model, Provider, Agent } hides { Session };
    /// The steps of a series.
    SeriesStep in bursar_store::Step = step_name { Hour, Day };
    /// What protection looks at.
    ProtectionDimension in bursar_core::Dimension =
        bursar_core::Dimension::as_str { Rate, Burst, Cost, Anomaly };
    /// The answers to a caller that are kept: all but the one that nothing was to be said about.
    KeptVerdict in bursar_core::Verdict =
        bursar_core::Verdict::as_str { Warned, Throttled, Blocked, HardBlocked } hides { Allowed };
}

enum_schema! {
    /// What the last check of a provider and its credential said.
    HealthState,
    {
        const fn is_known(value: Health) {
            match value {
                Health::Unknown | Health::Healthy | Health::Degraded => {}
                Health::Failing(FailureCause::Credential | FailureCause::Provider) => {}
            }
        }
        let _: fn(Health) = is_known;
        let failing = Health::Failing(FailureCause::Provider);
        [Health::Unknown, Health::Healthy, Health::Degraded, failing].map(Health::as_str)
    }
}

enum_schema! {
    /// What protection did to a request that met a threshold.
    ProtectionAction,
    {
        use bursar_core::{Breach, Dimension, ProtectionDecision};
        const fn is_known(decision: ProtectionDecision) {
            match decision {
                ProtectionDecision::Allow
                | ProtectionDecision::Warn(_)
                | ProtectionDecision::Throttle(_)
                | ProtectionDecision::Reject(_) => {}
            }
        }
        let _: fn(ProtectionDecision) = is_known;
        let dimension = Dimension::Rate;
        let breach = Breach { dimension, retry_after_ms: 0, current_value: 0, allowed_value: 0 };
        let kept: [fn(Breach) -> ProtectionDecision; 3] = [
            ProtectionDecision::Warn,
            ProtectionDecision::Throttle,
            ProtectionDecision::Reject,
        ];
        kept.map(|kept| kept(breach).as_str())
    }
}

enum_schema! {
    /// The limit that a reason speaks of; values of `budget` are cents.
    LimitType,
    [Measure::Cost, Measure::Tokens, Measure::Calls].map(limit_type)
}

enum_schema! {
    /// Why a decision is what it is.
    ReasonCode,
    bursar_core::ReasonCode::ALL.map(bursar_core::ReasonCode::as_str)
}

enum_schema! {
    /// What a failure is; the table of codes says what each means.
    ErrorCode,
    error_code::ErrorCode::ALL.iter().map(|code| code.as_str())
}

enum_schema! {
    /// A provider that is known.
    ProviderType,
    PROVIDER_TYPES.iter().copied()
}

enum_schema! {
    /// What became of one record that stands alone.
    RecordStatus,
    [ACCEPTED, DUPLICATE]
}

enum_schema! {
    /// What became of one record of a batch.
    BatchRecordStatus,
    [ACCEPTED, DUPLICATE, CONFLICT, ERROR]
}

enum_schema! {
    /// What an API key may; a wildcard stands for all scopes of a resource, or for all.
    Scope,
    GRANTS.iter().copied()
}

enum_schema! {
    /// As which kind of actor a caller is known: the operator, a person, or a program.
    ActorType,
    ["founder", "customer", "machine"]
}

enum_schema! {
    /// What the server is when it answers.
    ServerState,
    [LIVE, READY]
}
