//! The enumerations on the wire, generated from the code that writes their values.

use bursar_core::{FailureCause, Health, Measure};
use bursar_store::Step;
use serde_json::Value;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};

use crate::auth::scopes::GRANTS;
use crate::wire::error_code;

/// The known providers. To add one, add its name here.
pub(crate) const PROVIDER_TYPES: &[&str] =
    &["openai", "anthropic", "azure_openai", "bedrock", "custom"];

/// The results of a record.
pub(crate) const ACCEPTED: &str = "accepted";
pub(crate) const DUPLICATE: &str = "duplicate";
pub(crate) const CONFLICT: &str = "conflict";
pub(crate) const ERROR: &str = "error";

/// The states of the server in health checks.
pub(crate) const LIVE: &str = "live";
pub(crate) const READY: &str = "ready";

/// The name of the limit on a measure.
pub(crate) const fn limit_type(measure: Measure) -> &'static str {
    match measure {
        Measure::Cost => "budget",
        Measure::Tokens => "tokens",
        Measure::Calls => "rate",
        Measure::Concurrent => "concurrent",
    }
}

pub(crate) const fn reservation_state_name(state: bursar_core::ReservationState) -> &'static str {
    match state {
        bursar_core::ReservationState::Open => "open",
        bursar_core::ReservationState::Settled => "settled",
        bursar_core::ReservationState::Released => "released",
        bursar_core::ReservationState::Expired => "expired",
    }
}

pub(crate) const fn cost_basis_name(basis: bursar_core::CostBasis) -> &'static str {
    match basis {
        bursar_core::CostBasis::Reported => "reported",
        bursar_core::CostBasis::Computed => "computed",
    }
}

pub(crate) const fn entry_kind_name(kind: bursar_core::EntryKind) -> &'static str {
    match kind {
        bursar_core::EntryKind::Usage => "usage",
        bursar_core::EntryKind::Correction => "correction",
    }
}

pub(crate) const fn group_by_name(by: bursar_store::GroupBy) -> &'static str {
    match by {
        bursar_store::GroupBy::Integration => "integration",
        bursar_store::GroupBy::Model => "model",
        bursar_store::GroupBy::Provider => "provider",
        bursar_store::GroupBy::Agent => "agent",
        bursar_store::GroupBy::Session => "session",
    }
}

pub(crate) const fn step_name(step: Step) -> &'static str {
    match step {
        Step::Hour => "hour",
        Step::Day => "day",
    }
}

/// A string schema with these values.
pub(crate) fn one_of(
    meaning: &str,
    words: impl IntoIterator<Item = impl Into<Value>>,
) -> RefOr<Schema> {
    let text = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words));
    text.description(Some(meaning.trim_ascii())).build().into()
}

/// Declares the schema of one enumeration.
macro_rules! enum_schema {
    ($(#[doc = $doc:literal])+ $name:ident, $values:expr) => {
        $(#[doc = $doc])+
        #[derive(Debug)]
        pub(crate) struct $name;

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

/// Declares the schemas of Rust enums. A variant that is neither shown nor hidden does not compile.
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
    /// The lifecycle state of a tenant.
    TenantLifecycle in bursar_core::TenantLifecycle =
        bursar_core::TenantLifecycle::as_str { Active, Suspended, Terminated, Archived };
    /// The onboarding state of a tenant.
    OnboardingState in bursar_core::OnboardingState =
        bursar_core::OnboardingState::as_str
        { Created, IdentityVerified, ApiKeyCreated, SdkConnected, Complete };
    /// The status of an integration.
    IntegrationStatus in bursar_core::IntegrationStatus =
        bursar_core::IntegrationStatus::as_str
        { Created, Enabled, Disabled, Error } hides { Deleted };
    /// Where the cost of a record comes from: the client's figure, or always the computed one.
    CostBasis in bursar_core::CostBasis =
        cost_basis_name { Reported, Computed };
    /// The result of the caller's own policy.
    PolicyResult in bursar_core::PolicyResult =
        bursar_core::PolicyResult::as_str { Allowed, Warned, Blocked };
    /// The decision about a call, from best to worst. With the first two the call may go on.
    Verdict in bursar_core::Verdict =
        bursar_core::Verdict::as_str { Allowed, Warned, Throttled, Blocked, HardBlocked };
    /// The kind of an entry of the ledger.
    EntryKind in bursar_core::EntryKind =
        entry_kind_name { Usage, Correction };
    /// Where the cost of a record comes from.
    CostSource in bursar_core::CostSource =
        bursar_core::CostSource::as_str { Reported, Computed, Held, Unknown };
    /// How far the token figures of a record can be relied on.
    UsageStatus in bursar_core::UsageStatus =
        bursar_core::UsageStatus::as_str { Final, Partial, Estimated, Missing };
    /// How the record reached Bursar.
    RecordSource in bursar_core::RecordSource =
        bursar_core::RecordSource::as_str { Api, Import, Gateway, Otlp };
    /// The state of a reservation.
    ReservationState in bursar_core::ReservationState =
        reservation_state_name { Open, Settled, Released, Expired };
    /// The kind of request that a decision answered.
    DecisionKind in bursar_store::DecisionKind =
        bursar_store::DecisionKind::as_str { Check, Reservation };
    /// How usage is grouped.
    GroupBy in bursar_store::GroupBy =
        group_by_name { Integration, Model, Provider, Agent, Session };
    /// How a series is grouped.
    SeriesGroupBy in bursar_store::GroupBy =
        group_by_name { Integration, Model, Provider, Agent } hides { Session };
    /// The step of a series.
    SeriesStep in bursar_store::Step = step_name { Hour, Day };
    /// The dimension of a threshold.
    ProtectionDimension in bursar_core::Dimension =
        bursar_core::Dimension::as_str { Rate, Burst, Cost, Anomaly };
    /// The decisions that are logged: all but `allowed`.
    KeptVerdict in bursar_core::Verdict =
        bursar_core::Verdict::as_str { Warned, Throttled, Blocked, HardBlocked } hides { Allowed };
}

enum_schema! {
    /// The result of the last check of a provider and its credential.
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
    /// What protection did to a request at a threshold.
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
    /// The limit of a reason. Values of `budget` are in cents.
    LimitType,
    Measure::ALL.map(limit_type)
}

enum_schema! {
    /// The reason for a decision.
    ReasonCode,
    bursar_core::ReasonCode::ALL.map(bursar_core::ReasonCode::as_str)
}

enum_schema! {
    /// The code of an error. The table of codes explains each.
    ErrorCode,
    error_code::ErrorCode::ALL.iter().map(|code| code.as_str())
}

enum_schema! {
    /// A known provider.
    ProviderType,
    PROVIDER_TYPES.iter().copied()
}

enum_schema! {
    /// The result of a single record.
    RecordStatus,
    [ACCEPTED, DUPLICATE]
}

enum_schema! {
    /// The result of one record of a batch.
    BatchRecordStatus,
    [ACCEPTED, DUPLICATE, CONFLICT, ERROR]
}

enum_schema! {
    /// A scope of an API key. A wildcard stands for all scopes of a resource, or for all scopes.
    Scope,
    GRANTS.iter().copied()
}

enum_schema! {
    /// The kind of caller: the operator, a person, or a program.
    ActorType,
    ["founder", "customer", "machine"]
}

enum_schema! {
    /// The state of the server.
    ServerState,
    [LIVE, READY]
}
