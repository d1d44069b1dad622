//! The closed sets of words on the wire, read from the code that writes them.

use std::borrow::Cow;

use bursar_core::{FailureCause, Health, Measure};
use serde_json::Value;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::api::enforcement::decision_view;
use crate::api::enforcement::reservations;
use crate::api::integrations::integration;
use crate::api::integrations::integration_view;
use crate::api::operator::{clock, health};
use crate::api::telemetry::{export_format, record_view};
use crate::api::telemetry::{ingest, series};
use crate::auth::scopes::GRANTS;
use crate::wire::error;

/// One of these words.
fn one_of(meaning: &str, words: impl IntoIterator<Item = impl Into<Value>>) -> RefOr<Schema> {
    let text = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words));
    text.description(Some(meaning.trim_ascii())).build().into()
}

macro_rules! word {
    ($(#[doc = $doc:literal])+ $name:ident, $words:expr) => {
        $(#[doc = $doc])+
        #[derive(Debug)]
        pub struct $name;

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                one_of(concat!($($doc,)+), $words)
            }
        }

        impl ToSchema for $name {
            fn name() -> Cow<'static, str> {
                Cow::Borrowed(stringify!($name))
            }
        }
    };
}

/// The words of an enum. A variant that is neither shown nor hidden does not compile.
macro_rules! words {
    ($(
        $(#[doc = $doc:literal])+
        $name:ident in $type:ty = $word:path { $($shown:ident),+ } $(hides { $hidden:ident })?;
    )+) => {
        $(
            word! {
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
                    [$($word(Known::$shown)),+]
                }
            }
        )+
    };
}

words! {
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
        integration_view::cost_basis_word { Reported, Computed };
    /// What the caller's own policy made of the call.
    PolicyResult in bursar_core::PolicyResult =
        bursar_core::PolicyResult::as_str { Allowed, Warned, Blocked };
    /// The answer to a caller, from best to worst. The first two let the call go on.
    Verdict in bursar_core::Verdict =
        bursar_core::Verdict::as_str { Allowed, Warned, Throttled, Blocked, HardBlocked };
    /// What an entry of the ledger is.
    EntryKind in bursar_core::EntryKind =
        record_view::kind_word { Usage, Correction };
    /// Which figure is the cost of a record.
    CostSource in bursar_core::CostSource =
        bursar_core::CostSource::as_str { Reported, Computed, Held, Unknown };
    /// Where the figures of a record come from.
    UsageStatus in bursar_core::UsageStatus =
        bursar_core::UsageStatus::as_str { Reported, Estimated, Missing };
    /// How a reservation stands.
    ReservationState in bursar_core::ReservationState =
        reservations::state_word { Open, Settled, Released, Expired };
    /// What was asked when a decision was kept.
    DecisionKind in bursar_store::DecisionKind =
        bursar_store::DecisionKind::as_str { Check, Reservation };
    /// What usage is told apart by.
    GroupBy in bursar_store::GroupBy =
        series::group_word { Integration, Model, Provider, Agent, Session };
    /// What a series tells usage apart by.
    SeriesGroupBy in bursar_store::GroupBy =
        series::group_word { Integration, Model, Provider, Agent } hides { Session };
    /// The steps of a series.
    SeriesStep in bursar_store::Step = series::step_word { Hour, Day };
    /// What protection looks at.
    ProtectionDimension in bursar_core::Dimension =
        bursar_core::Dimension::as_str { Rate, Burst, Cost, Anomaly };
    /// How an export is written.
    ExportFormat in export_format::UsageFormat = export_format::UsageFormat::as_str { Csv, Ndjson };
    /// The answers to a caller that are kept: all but the one that nothing was to be said about.
    KeptVerdict in bursar_core::Verdict =
        bursar_core::Verdict::as_str { Warned, Throttled, Blocked, HardBlocked } hides { Allowed };
}

word! {
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

word! {
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

word! {
    /// The limit that a reason speaks of; values of `budget` are cents.
    LimitType,
    [Measure::Cost, Measure::Tokens, Measure::Calls].map(decision_view::limit_type)
}

word! {
    /// Why a decision is what it is.
    ReasonCode,
    bursar_core::ReasonCode::ALL.map(bursar_core::ReasonCode::as_str)
}

word! {
    /// What a failure is; the table of codes says what each means.
    ErrorCode,
    error::ErrorCode::ALL.iter().map(|code| code.as_str())
}

word! {
    /// A provider that is known.
    ProviderType,
    integration::PROVIDER_TYPES.iter().copied()
}

word! {
    /// What became of one record that stands alone.
    RecordStatus,
    [ingest::ACCEPTED, ingest::DUPLICATE]
}

word! {
    /// What became of one record of a batch.
    BatchRecordStatus,
    [ingest::ACCEPTED, ingest::DUPLICATE, ingest::CONFLICT, ingest::ERROR]
}

word! {
    /// What an API key may; a wildcard stands for all scopes of a resource, or for all.
    Scope,
    GRANTS.iter().copied()
}

word! {
    /// As which kind of actor a caller is known: the operator, a person, or a program.
    ActorType,
    ["founder", "customer", "machine"]
}

words! {
    /// How Bursar's time and the clock stand to each other.
    ClockStanding in clock::Standing = clock::Standing::as_str { Steady, Jumped, Behind };
}

word! {
    /// What the server is when it answers.
    ServerState,
    [health::LIVE, health::READY]
}
