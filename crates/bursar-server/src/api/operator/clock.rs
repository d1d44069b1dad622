//! Bursar's time and the system clock: compare them, and confirm that the clock is right.

use axum::extract::State;
use bursar_core::ClockState;
use bursar_store::ClockConfirmed;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::routes;

use crate::api::route::{Routes, Rule};
use crate::app::App;
use crate::auth::access::OPERATOR;
use crate::auth::authorize::Operator;
use crate::wire::enums::enum_schemas;
use crate::wire::envelope::Answer;
use crate::wire::error::ApiError;
use crate::wire::scalars::Instant;
use crate::wire::timestamps;

const MICROS_PER_SECOND: i64 = 1_000_000;

/// How Bursar's time compares with the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClockStatus {
    /// They agree.
    Steady,
    /// The clock jumped forward and is not trusted yet.
    Jumped,
    /// The clock is behind Bursar's time.
    Behind,
}

impl ClockStatus {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::Jumped => "jumped",
            Self::Behind => "behind",
        }
    }

    fn of(state: &ClockState) -> Self {
        if state.adopted_in_seconds.is_some() {
            Self::Jumped
        } else if state.ahead_seconds() < 0 {
            Self::Behind
        } else {
            Self::Steady
        }
    }
}

enum_schemas! {
    /// How Bursar's time compares with the clock.
    ClockStanding in ClockStatus = ClockStatus::as_str { Steady, Jumped, Behind };
}

/// Bursar's time and the clock.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ClockView {
    #[schema(value_type = ClockStanding)]
    state: &'static str,
    /// Bursar's time. All decisions use it.
    #[schema(value_type = Instant)]
    now: String,
    /// The clock: that of this machine, or that of the shared database.
    #[schema(value_type = Instant)]
    clock: String,
    /// How far the clock is ahead of Bursar's time, in seconds. Negative when it is behind.
    ahead_seconds: i64,
    /// Whether writes and decisions are refused because of the difference.
    refuses: bool,
    /// Seconds until a clock that jumped forward is trusted.
    #[schema(required)]
    adopted_in_seconds: Option<u32>,
}

/// What the confirmation changed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ClockConfirmedView {
    /// Bursar's time, which now equals the clock.
    #[schema(value_type = Instant)]
    now: String,
    /// How far the clock was ahead of Bursar's time, in seconds. Negative when it was behind.
    was_ahead_seconds: i64,
    /// Whether Bursar's time changed by a second or more.
    adopted: bool,
}

/// Shows Bursar's time and the clock
///
/// Bursar's time flows evenly. It follows a clock that jumped forward only after the clock stayed
/// ahead for a minute, and it never goes back by itself.
#[utoipa::path(
    get,
    path = "/fdr/clock",
    tag = "server",
    responses((status = 200, body = ClockView, description = "Both.")),
)]
pub(crate) async fn get_clock(State(app): State<App>, _: Operator) -> Answer<ClockView> {
    let state = app.store.clock();
    Answer::ok(ClockView {
        state: ClockStatus::of(&state).as_str(),
        now: timestamps::text(state.now),
        clock: timestamps::text(state.wall),
        ahead_seconds: state.ahead_seconds(),
        refuses: state.adopted_in_seconds.is_some(),
        adopted_in_seconds: state.adopted_in_seconds,
    })
}

/// Confirms that the clock is right
///
/// Bursar's time takes the value of the clock at once, forward or back, on every node. Use this to
/// accept a jump forward without waiting, or to take back a time that ran ahead.
#[utoipa::path(
    post,
    path = "/fdr/clock/confirm",
    tag = "server",
    responses((
        status = 200,
        body = ClockConfirmedView,
        description = "The new time, and how far the clock was ahead.",
    )),
)]
pub(crate) async fn confirm_clock(
    State(app): State<App>,
    operator: Operator,
) -> Result<Answer<ClockConfirmedView>, ApiError> {
    let ClockConfirmed { now, changed_micros } = app.ledger.confirm_clock().await?;
    let was_ahead_seconds = changed_micros / MICROS_PER_SECOND;
    let (actor, address) = (&operator.actor.actor_id, operator.actor.address.as_deref());
    // The confirmation belongs to no tenant, so no audit log can hold it.
    tracing::warn!(actor, address, was_ahead_seconds, now = %now, "the clock was confirmed");
    Ok(Answer::ok(ClockConfirmedView {
        now: timestamps::text(now),
        was_ahead_seconds,
        adopted: was_ahead_seconds != 0,
    }))
}

pub(crate) fn routes() -> Routes {
    Routes::new()
        .add(Rule::of(OPERATOR), routes!(get_clock))
        .add(Rule::of(OPERATOR), routes!(confirm_clock))
}
