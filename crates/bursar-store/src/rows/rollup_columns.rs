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
/// Each figure has the way in which two rollups merge it ([`Merge`]), and its parameter in
/// PostgreSQL's `insert`, after the tenant and the key. With [`figure_names`], [`figure_marks`],
/// [`figure_arrays`] or [`figure_merges`] the result is a literal for a statement. A second argument
/// is a prefix for each name.
macro_rules! rollup_figures {
    ($apply:ident $(, $before:literal)?) => {
        $crate::rows::rollup_columns::$apply! {
            $($before)?
            {
                calls Sum "$8",
                /// Calls that neither failed nor were blocked.
                succeeded Sum "$9",
                errors Sum "$10",
                blocked Sum "$11",
                /// Calls by how far their token figures can be relied on.
                status_final Sum "$12",
                status_partial Sum "$13",
                status_estimated Sum "$14",
                status_missing Sum "$15",
                /// Calls by the source of their cost.
                cost_reported Sum "$16",
                cost_computed Sum "$17",
                cost_held Sum "$18",
                /// Calls whose cost is unknown; the wire calls them unpriced.
                cost_unknown Sum "$19",
                tokens_in Sum "$20",
                tokens_out Sum "$21",
                tokens_cache_read Sum "$22",
                tokens_cache_write Sum "$23",
                tokens_cache_write_long Sum "$24",
                tokens_audio_in Sum "$25",
                tokens_image_in Sum "$26",
                tokens_reasoning Sum "$27",
                tokens_audio_out Sum "$28",
                tokens_image_out Sum "$29",
                cost_nanos Sum "$30",
                /// Calls whose latency is known.
                latency_calls Sum "$31",
                latency_sum_ms Sum "$32",
                /// The largest latency of a call; 0 if none is known.
                latency_max_ms Largest "$33",
            }
            {
                latency_00 "$34",
                latency_01 "$35",
                latency_02 "$36",
                latency_03 "$37",
                latency_04 "$38",
                latency_05 "$39",
                latency_06 "$40",
                latency_07 "$41",
                latency_08 "$42",
                latency_09 "$43",
                latency_10 "$44",
                latency_11 "$45",
                latency_12 "$46",
                latency_13 "$47",
                latency_14 "$48",
                latency_15 "$49",
            }
        }
    };
}
pub(crate) use rollup_figures;

/// `calls, succeeded, ...`.
macro_rules! figure_names {
    ($before:literal { $($(#[$doc:meta])* $name:ident $merge:ident $place:literal,)* } { $first:ident $at:literal, $($bucket:ident $of:literal,)* }) => {
        concat!($($before, stringify!($name), ", ",)* $before, stringify!($first) $(, ", ", $before, stringify!($bucket))*)
    };
    ($($figures:tt)*) => { $crate::rows::rollup_columns::figure_names!("" $($figures)*) };
}
pub(crate) use figure_names;

/// `?, ?, ...`: SQLite numbers the values itself.
macro_rules! figure_marks {
    ({ $($(#[$doc:meta])* $name:ident $merge:ident $place:literal,)* } { $first:ident $at:literal, $($bucket:ident $of:literal,)* }) => {
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

/// `unnest($8), unnest($9), ...`.
macro_rules! figure_arrays {
    ({ $($(#[$doc:meta])* $name:ident $merge:ident $place:literal,)* } { $first:ident $at:literal, $($bucket:ident $of:literal,)* }) => {
        concat!($("unnest(", $place, "), ",)* "unnest(", $at, ")" $(, ", unnest(", $of, ")")*)
    };
}
pub(crate) use figure_arrays;

/// `calls = rollups.calls + excluded.calls, ...`.
macro_rules! figure_merges {
    ({ $($(#[$doc:meta])* $name:ident $merge:ident $place:literal,)* } { $first:ident $at:literal, $($bucket:ident $of:literal,)* }) => {
        concat!(
            $($crate::rows::rollup_columns::merged!($merge $name), ", ",)*
            $crate::rows::rollup_columns::merged!(Sum $first)
            $(, ", ", $crate::rows::rollup_columns::merged!(Sum $bucket))*
        )
    };
}
pub(crate) use figure_merges;

macro_rules! merged {
    (Sum $name:ident) => {
        concat!(
            stringify!($name),
            " = rollups.",
            stringify!($name),
            " + excluded.",
            stringify!($name)
        )
    };
    // The databases have different functions for the greater of two values.
    (Largest $name:ident) => {
        concat!(
            stringify!($name),
            " = case when excluded.",
            stringify!($name),
            " > rollups.",
            stringify!($name),
            " then excluded.",
            stringify!($name),
            " else rollups.",
            stringify!($name),
            " end"
        )
    };
}
pub(crate) use merged;

/// How two rollups merge a figure.
#[derive(Clone, Copy)]
enum Merge {
    Sum,
    Largest,
}

macro_rules! define_rollup {
    ({ $($(#[$doc:meta])* $name:ident $merge:ident $place:literal,)* } { $($bucket:ident $of:literal,)* }) => {
        /// The names of the columns.
        const NAMES: [&str; FIGURES] = [$(stringify!($name),)* $(stringify!($bucket)),*];

        /// How figures are merged, except the buckets of the histogram, which are sums.
        const MERGES: &[Merge] = &[$(Merge::$merge),*];

        /// The number of figures of a rollup.
        pub(crate) const FIGURES: usize = [$(stringify!($name),)* $(stringify!($bucket)),*].len();

        /// The figures of a rollup. Every figure is exact; averages are computed when it is shown.
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
        let mut merged = self.figures();
        let merges = MERGES.iter().chain(&[Merge::Sum; LATENCY_BUCKETS]);
        let figures = merged.iter_mut().zip(more.figures()).zip(merges.zip(NAMES));
        for ((figure, more), (merge, name)) in figures {
            match merge {
                Merge::Sum => checked_sum::add(figure, more, name)?,
                Merge::Largest => *figure = more.max(*figure),
            }
        }
        *self = Self::from_figures(merged);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_latency_is_kept_and_other_figures_add_up() {
        let of = |latency_max_ms| Rollup { calls: 1, latency_max_ms, ..Rollup::default() };
        let mut merged = of(700);
        for latency_ms in [0, 900, 300] {
            merged.add(&of(latency_ms)).expect("small sums");
        }
        assert_eq!((merged.calls, merged.latency_max_ms), (4, 900));
    }
}
