//! The columns of a reservation, declared once for writes, reads and the text of statements.

use bursar_core::{KeyId, Reservation};

use crate::rows::codec;
pub(crate) use crate::rows::entry_columns::{entry_arrays, entry_marks, entry_names};

/// Applies a macro to the columns of a reservation, except its key, in their order.
///
/// The macros of [`entry_columns`](mod@crate::rows::entry_columns) make literals for statements of it.
macro_rules! reservation_columns {
    ($apply:ident $(, $before:literal)?) => {
        $crate::rows::reservation_columns::$apply! {
            $($before)?
            call_id Text "unnest($3)" |held| held.request.call_id.as_str();
            integration_id Number "unnest($4)" |held| held.request.integration_id.number();
            estimated_cost_nanos Number "unnest($5)" |held| held.request.estimate.cost.get();
            estimated_tokens Number "unnest($6)" |held| held.request.estimate.tokens;
            model OptText "unnest($7)" |held| held.request.model.as_deref();
            ttl_seconds Number "unnest($8)" |held| held.request.ttl_seconds.into();
            decision OwnText "unnest($9)" |held| codec::decision_text(&held.decision);
            reserved_at Number "unnest($10)" |held| held.created_at.micros();
            expires_at Number "unnest($11)" |held| held.expires_at.micros();
            state Number "unnest($12::smallint[])" |held| codec::reservation_state_code(held.state);
            ended_at OptNumber "unnest($13)" |held| held.ended_at.map(bursar_core::Timestamp::micros);
            session_id OptText "unnest($14)" |held| held.request.session_id.as_deref();
            agent_id OptText "unnest($15)" |held| held.request.agent_id.as_deref();
            tags OwnText "unnest($16)" |held| held.request.tags.json();
            account_key_id OptNumber "unnest($17)" |held| held.request.account_key_id.map(KeyId::number);
            postings OwnText "unnest($18)" |held| codec::postings_text(&held.postings);
            limits_version Number "unnest($19)" |held| held.limits_version;
        }
    };
}
pub(crate) use reservation_columns;

/// The number of columns.
pub(crate) const RESERVATION_COLUMNS: usize = RESERVATION_VALUES.len();

/// The value of a column for a reservation.
pub(crate) enum ReservationValue {
    Number(fn(&Reservation) -> i64),
    OptNumber(fn(&Reservation) -> Option<i64>),
    Text(for<'r> fn(&'r Reservation) -> &'r str),
    OptText(for<'r> fn(&'r Reservation) -> Option<&'r str>),
    OwnText(fn(&Reservation) -> Option<String>),
}

macro_rules! define_columns {
    ($($name:ident $kind:ident $array:literal $value:expr;)*) => {
        /// The values of the columns in their order.
        pub(crate) const RESERVATION_VALUES: &[ReservationValue] =
            &[$(ReservationValue::$kind($value)),*];
    };
}
use define_columns;

reservation_columns!(define_columns);
