//! The figures of a rollup, declared once for the type, its columns and the text of statements.

#![warn(clippy::arithmetic_side_effects)]

use crate::checked_sum;
use crate::error::StoreError;
use crate::rows::columns::Columns;

/// The number of buckets of the latency histogram.
pub const LATENCY_BUCKETS: usize = 16;

/// The upper bounds of the buckets in milliseconds, inclusive; the last bucket has none.
pub const LATENCY_BOUNDS_MS: [i64; LATENCY_BUCKETS - 1] =
    [50, 100, 200, 300, 500, 750, 1_000, 1_500, 2_000, 3_000, 5_000, 8_000, 12_000, 20_000, 40_000];

/// Applies a macro to the figures of a rollup, in the order of the columns, and then to the buckets
/// of the latency histogram.
///
/// Each figure has its parameter in PostgreSQL's `insert`, after the tenant and the key. With
/// [`figure_names`], [`figure_marks`], [`figure_arrays`] or [`figure_additions`] the result is a
/// literal for a statement. A second argument is a prefix for each name.
macro_rules! rollup_figures {
    ($apply:ident $(, $before:literal)?) => {
        $crate::rows::rollup_columns::$apply! {
            $($before)?
            {
                calls "$7",
                /// Calls that neither failed nor were blocked.
                succeeded "$8",
                errors "$9",
                blocked "$10",
                /// Calls whose cost is unknown.
                unpriced "$11",
                tokens_in "$12",
                tokens_out "$13",
                tokens_cache_read "$14",
                tokens_cache_write "$15",
                tokens_reasoning "$16",
                cost_nanos "$17",
                /// Calls whose latency is known.
                latency_calls "$18",
                latency_sum_ms "$19",
            }
            {
                latency_00 "$20",
                latency_01 "$21",
                latency_02 "$22",
                latency_03 "$23",
                latency_04 "$24",
                latency_05 "$25",
                latency_06 "$26",
                latency_07 "$27",
                latency_08 "$28",
                latency_09 "$29",
                latency_10 "$30",
                latency_11 "$31",
                latency_12 "$32",
                latency_13 "$33",
                latency_14 "$34",
                latency_15 "$35",
            }
        }
    };
}
pub(crate) use rollup_figures;

/// `calls, succeeded, ...`.
macro_rules! figure_names {
    ($before:literal { $($(#[$doc:meta])* $name:ident $place:literal,)* } { $first:ident $at:literal, $($bucket:ident $of:literal,)* }) => {
        concat!($($before, stringify!($name), ", ",)* $before, stringify!($first) $(, ", ", $before, stringify!($bucket))*)
    };
    ($($figures:tt)*) => { $crate::rows::rollup_columns::figure_names!("" $($figures)*) };
}
pub(crate) use figure_names;

/// `?, ?, ...`: SQLite numbers the values itself.
macro_rules! figure_marks {
    ({ $($(#[$doc:meta])* $name:ident $place:literal,)* } { $first:ident $at:literal, $($bucket:ident $of:literal,)* }) => {
        concat!($($crate::rows::rollup_columns::mark!($name), ", ",)* "?" $(, ", ", $crate::rows::rollup_columns::mark!($bucket))*)
    };
}
pub(crate) use figure_marks;

macro_rules! mark {
    ($name:ident) => {
        "?"
    };
}
pub(crate) use mark;

/// `unnest($7), unnest($8), ...`.
macro_rules! figure_arrays {
    ({ $($(#[$doc:meta])* $name:ident $place:literal,)* } { $first:ident $at:literal, $($bucket:ident $of:literal,)* }) => {
        concat!($("unnest(", $place, "), ",)* "unnest(", $at, ")" $(, ", unnest(", $of, ")")*)
    };
}
pub(crate) use figure_arrays;

/// `calls = rollups.calls + excluded.calls, ...`.
macro_rules! figure_additions {
    ({ $($(#[$doc:meta])* $name:ident $place:literal,)* } { $first:ident $at:literal, $($bucket:ident $of:literal,)* }) => {
        concat!(
            $($crate::rows::rollup_columns::addition!($name), ", ",)*
            $crate::rows::rollup_columns::addition!($first)
            $(, ", ", $crate::rows::rollup_columns::addition!($bucket))*
        )
    };
}
pub(crate) use figure_additions;

macro_rules! addition {
    ($name:ident) => {
        concat!(
            stringify!($name),
            " = rollups.",
            stringify!($name),
            " + excluded.",
            stringify!($name)
        )
    };
}
pub(crate) use addition;

macro_rules! define_rollup {
    ({ $($(#[$doc:meta])* $name:ident $place:literal,)* } { $($bucket:ident $of:literal,)* }) => {
        /// The names of the columns.
        const NAMES: [&str; FIGURES] = [$(stringify!($name),)* $(stringify!($bucket)),*];

        /// The number of figures of a rollup.
        pub(crate) const FIGURES: usize = [$(stringify!($name),)* $(stringify!($bucket)),*].len();

        /// The sums of a rollup. Every figure is exact; averages are computed when it is shown.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Rollup {
            $($(#[$doc])* pub $name: i64,)*
            /// Calls by latency, in buckets with the bounds [`LATENCY_BOUNDS_MS`].
            pub latency_buckets: [i64; LATENCY_BUCKETS],
        }

        impl Rollup {
            /// The figures in the order of the columns.
            pub(crate) const fn figures(&self) -> [i64; FIGURES] {
                let Self { $($name,)* latency_buckets: [$($bucket),*] } = *self;
                [$($name,)* $($bucket),*]
            }

            const fn from_figures([$($name,)* $($bucket),*]: [i64; FIGURES]) -> Self {
                Self { $($name,)* latency_buckets: [$($bucket),*] }
            }
        }
    };
}
use define_rollup;

rollup_figures!(define_rollup);

impl Rollup {
    /// Reads the figures from column `at` on.
    pub(crate) fn read(row: &impl Columns, at: usize) -> Result<Self, StoreError> {
        let mut figures = [0; FIGURES];
        for (figure, at) in figures.iter_mut().zip(at..) {
            *figure = row.int(at)?;
        }
        Ok(Self::from_figures(figures))
    }

    /// Adds the figures of another rollup.
    ///
    /// # Errors
    /// [`StoreError::TotalsOverflow`]; the rollup then stays unchanged.
    pub(crate) fn add(&mut self, more: &Self) -> Result<(), StoreError> {
        let mut sums = self.figures();
        for ((sum, more), name) in sums.iter_mut().zip(more.figures()).zip(NAMES) {
            checked_sum::add(sum, more, name)?;
        }
        *self = Self::from_figures(sums);
        Ok(())
    }
}
