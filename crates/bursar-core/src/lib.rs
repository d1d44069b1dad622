//! The rules of Bursar, as a deterministic state machine.
//!
//! This crate alone decides whether a call may go on, what a record counts, and when a reservation
//! settles, is released or expires. A [`Book`] holds the accounts and calls that a group of
//! commands touches. [`Book::apply`] decides one command, returns its outcome and remembers what
//! storage has to save.
//!
//! Deliberately absent: input and output, clocks, randomness, threads, and any wire or storage
//! format. The same commands on the same book give the same answers on every machine.

mod account;
mod book;
mod call;
mod caps;
mod clock;
mod command;
mod decide;
mod entry;
mod estimate;
mod health;
mod id;
mod integration;
mod limit;
mod limit_account;
mod limit_book;
mod limit_state;
mod measure;
mod money;
mod number;
mod period;
mod posting;
mod protection;
mod rate;
mod record_effect;
mod reservation;
mod scope;
mod subject;
mod tags;
mod tenant;
mod text;
mod time;
mod tokens;
mod totals;
mod units;
mod usage;
mod usage_error;

pub use account::{Account, Counter};
pub use book::{Book, CounterKey, Loaded};
pub use call::Call;
pub use caps::{Caps, ReservationCap, TenantSums, UNSWEPT_MAX};
pub use clock::{ClockEvent, ClockMark, ClockReading, ClockState, Timekeeper};
pub use command::{
    Command, ExtendOutcome, Outcome, RecordMode, RecordOutcome, RecordRefusal, ReleaseOutcome,
    ReserveOutcome, ReserveRefusal,
};
pub use decide::{
    Decision, LimitInForce, LimitsInForce, Reason, ReasonCode, Verdict, decide, warn_percent,
};
pub use entry::{CostSource, Entry, EntryKind, RecordedCall};
pub use estimate::Estimate;
pub use health::{FailureCause, Health};
pub use id::*;
pub use integration::{
    BuiltInLimit, CostBasis, Integration, IntegrationStatus, LifecycleRefusal, LimitSettings,
};
pub use limit::{
    Action, Allowance, Applied, Bound, Limit, LimitSet, Override, Rule, UnknownPeriod,
    WarnPercents, Window,
};
pub use limit_account::{LimitAccount, LimitCounter, MinuteSlot};
pub use limit_book::{LimitBook, LimitValues, LoadedLimits};
pub use limit_state::{AccountSums, LimitState};
pub use measure::{Calls, Concurrent, Cost, Measure, Quantity, Tokens};
pub use money::{NANOS_PER_CENT, Nanos, cents_half_up, usd_string};
pub use number::{NumberError, rounded_number, whole_number};
pub use period::{Calendar, CalendarUnit, Period, UtcCalendar, Zone};
pub use posting::{LimitAccountKey, Posting};
pub use protection::{Breach, Dimension, ProtectionDecision};
pub use rate::RateWindow;
pub use reservation::{Hold, HoldChange, Reservation, ReservationState, ReserveRequest};
pub use scope::{Label, Scope, Selected};
pub use subject::{OwnedSubject, Subject};
pub use tags::{TagNames, Tags};
pub use tenant::{OnboardingState, TenantLifecycle, TenantRefusal};
pub use text::is_control;
pub use time::{Day, Hour, Month, QuarterHour, Timestamp};
pub use tokens::{TOKENS_MAX, TokenBuckets, TokenCounts};
pub use totals::{Overflow, Totals};
pub use units::{UnitAmount, Units};
pub use usage::{CallId, CallKey, LATENCY_MS_MAX, PolicyResult, RecordSource, Usage, UsageStatus};
pub use usage_error::UsageError;
