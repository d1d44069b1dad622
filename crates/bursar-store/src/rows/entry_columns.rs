//! The columns of an entry, declared once for writes, reads and the text of statements.

use bursar_core::{Entry, KeyId, Nanos};

use crate::rows::codec;

/// Applies a macro to the columns of an entry, except the tenant's, in their order.
///
/// A column has a name, a kind, an expression for PostgreSQL's `insert`, and its value for an entry.
/// With [`entry_names`], [`entry_marks`], [`entry_arrays`] or [`entry_text_bytes`] the result is a
/// literal for a statement. A second argument is a prefix for each name.
macro_rules! entry_columns {
    ($apply:ident $(, $before:literal)?) => {
        $crate::rows::entry_columns::$apply! {
            $($before)?
            entry_id Number "unnest($2)" |entry| entry.entry_id.number();
            integration_id Number "unnest($3)" |entry| entry.usage.integration_id.number();
            kind Number "unnest($4::smallint[])" |entry| codec::kind_code(entry.kind);
            call_id Text "unnest($5)" |entry| entry.usage.call_id.as_str();
            session_id OptText "unnest($6)" |entry| entry.usage.session_id.as_deref();
            agent_id OptText "unnest($7)" |entry| entry.usage.agent_id.as_deref();
            provider Text "unnest($8)" |entry| &entry.usage.provider;
            model Text "unnest($9)" |entry| &entry.usage.model;
            tokens_in Number "unnest($10)" |entry| entry.usage.tokens.tokens_in();
            tokens_out Number "unnest($11)" |entry| entry.usage.tokens.tokens_out();
            tokens_cache_read Number "unnest($12)" |entry| entry.usage.tokens.counts().cache_read;
            tokens_cache_write Number "unnest($13)" |entry| entry.usage.tokens.counts().cache_write;
            tokens_reasoning Number "unnest($14)" |entry| entry.usage.tokens.counts().reasoning;
            cost_nanos Number "unnest($15)" |entry| entry.cost.get();
            cost_source Number "unnest($16::smallint[])" |entry| codec::cost_source_code(entry.cost_source);
            reported_cost_nanos OptNumber "unnest($17)" |entry| entry.usage.cost.map(Nanos::get);
            computed_cost_nanos OptNumber "unnest($18)" |entry| entry.computed_cost.map(Nanos::get);
            price_version OptNumber "unnest($19)" |entry| entry.price_version;
            usage_status Number "unnest($20::smallint[])" |entry| codec::usage_status_code(entry.usage.usage_status);
            latency_ms OptNumber "unnest($21)" |entry| entry.usage.latency_ms;
            policy_result Number "unnest($22::smallint[])" |entry| codec::policy_code(entry.usage.policy_result);
            error_code OptText "unnest($23)" |entry| entry.usage.error_code.as_deref();
            error_message OptText "unnest($24)" |entry| entry.usage.error_message.as_deref();
            metadata OptText "unnest($25)" |entry| entry.usage.metadata.as_deref();
            occurred_at Number "unnest($26)" |entry| entry.occurred_at.micros();
            created_at Number "unnest($27)" |entry| entry.created_at.micros();
            response_model OptText "unnest($28)" |entry| entry.usage.response_model.as_deref();
            region OptText "unnest($29)" |entry| entry.usage.region.as_deref();
            provider_request_id OptText "unnest($30)" |entry| entry.usage.provider_request_id.as_deref();
            service_tier OptText "unnest($31)" |entry| entry.usage.service_tier.as_deref();
            tokens_cache_write_long Number "unnest($32)" |entry| entry.usage.tokens.counts().cache_write_long;
            tokens_audio_in Number "unnest($33)" |entry| entry.usage.tokens.counts().audio_in;
            tokens_image_in Number "unnest($34)" |entry| entry.usage.tokens.counts().image_in;
            tokens_audio_out Number "unnest($35)" |entry| entry.usage.tokens.counts().audio_out;
            tokens_image_out Number "unnest($36)" |entry| entry.usage.tokens.counts().image_out;
            units OwnText "unnest($37)" |entry| entry.usage.units.json();
            tags OwnText "unnest($38)" |entry| entry.usage.tags.json();
            source Number "unnest($39::smallint[])" |entry| codec::source_code(entry.usage.source);
            key_id OptNumber "unnest($40)" |entry| entry.usage.key_id.map(KeyId::number);
            account_key_id OptNumber "unnest($41)" |entry| entry.account_key_id.map(KeyId::number);
            limits_version Number "unnest($42)" |entry| entry.limits_version;
        }
    };
}
pub(crate) use entry_columns;

/// `entry_id, integration_id, ...`.
macro_rules! entry_names {
    ($before:literal $first:ident $_kind:ident $_array:literal $_value:expr; $($name:ident $kind:ident $array:literal $value:expr;)*) => {
        concat!($before, stringify!($first) $(, ", ", $before, stringify!($name))*)
    };
    ($($columns:tt)*) => { $crate::rows::entry_columns::entry_names!("" $($columns)*) };
}
pub(crate) use entry_names;

/// `?, ?, ...`: SQLite numbers the values itself.
macro_rules! entry_marks {
    ($first:ident $_kind:ident $_array:literal $_value:expr; $($name:ident $kind:ident $array:literal $value:expr;)*) => {
        concat!("?" $(, ", ", $crate::rows::rollup_columns::mark!($name))*)
    };
}
pub(crate) use entry_marks;

/// `unnest($2), unnest($3), ...`.
macro_rules! entry_arrays {
    ($first:ident $_kind:ident $of_first:literal $_value:expr; $($name:ident $kind:ident $array:literal $value:expr;)*) => {
        concat!($of_first $(, ", ", $array)*)
    };
}
pub(crate) use entry_arrays;

/// The sum of the bytes of all texts of an entry.
macro_rules! entry_text_bytes {
    ($($name:ident $kind:ident $array:literal $value:expr;)*) => {
        concat!("0" $(, $crate::rows::entry_columns::text_bytes!($kind $name))*)
    };
}
pub(crate) use entry_text_bytes;

macro_rules! text_bytes {
    (Text $name:ident) => {
        concat!(" + octet_length(", stringify!($name), ")")
    };
    (OwnText $name:ident) => {
        $crate::rows::entry_columns::text_bytes!(OptText $name)
    };
    (OptText $name:ident) => {
        concat!(" + coalesce(octet_length(", stringify!($name), "), 0)")
    };
    ($kind:ident $name:ident) => {
        ""
    };
}
pub(crate) use text_bytes;

/// The value of a column for an entry.
pub(crate) enum EntryValue {
    Number(fn(&Entry<'_>) -> i64),
    OptNumber(fn(&Entry<'_>) -> Option<i64>),
    Text(for<'e> fn(&'e Entry<'_>) -> &'e str),
    OptText(for<'e> fn(&'e Entry<'_>) -> Option<&'e str>),
    OwnText(fn(&Entry<'_>) -> Option<String>),
}

macro_rules! define_columns {
    ($($name:ident $kind:ident $array:literal $value:expr;)*) => {
        /// The values of the columns, except the tenant's, in their order.
        pub(crate) const ENTRY_VALUES: &[EntryValue] = &[$(EntryValue::$kind($value)),*];

        /// The position of each column in [`entry_names`].
        #[derive(Clone, Copy)]
        #[expect(non_camel_case_types, reason = "the columns have these names")]
        #[expect(dead_code, reason = "not every column is read by its position")]
        pub(crate) enum EntryColumn { $($name),* }
    };
}
use define_columns;

entry_columns!(define_columns);
