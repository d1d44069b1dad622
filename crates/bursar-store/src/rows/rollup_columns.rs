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

/// Applies a macro to the figures of a rollup, in the order of the columns: the figures that reports
/// show, the buckets of the latency histogram, and further figures. Reports read many rollups, so
/// they read only the first columns.
///
/// Each figure has the way in which two rollups merge it ([`Merge`]), and its parameter in
/// PostgreSQL's `insert`, after the tenant and the key. With [`figure_names`], [`report_names`],
/// [`figure_marks`], [`figure_arrays`] or [`figure_merges`] the result is a literal for a statement.
/// A second argument is a prefix for each name.
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
                /// Calls whose cost is unknown; the wire calls them unpriced.
                cost_unknown Sum "$12",
                tokens_in Sum "$13",
                tokens_out Sum "$14",
                cost_nanos Sum "$15",
                /// Calls whose latency is known.
                latency_calls Sum "$16",
                latency_sum_ms Sum "$17",
            }
            {
                latency_00 "$18",
                latency_01 "$19",
                latency_02 "$20",
                latency_03 "$21",
                latency_04 "$22",
                latency_05 "$23",
                latency_06 "$24",
                latency_07 "$25",
                latency_08 "$26",
                latency_09 "$27",
                latency_10 "$28",
                latency_11 "$29",
                latency_12 "$30",
                latency_13 "$31",
                latency_14 "$32",
                latency_15 "$33",
            }
            {
                /// The largest latency of a call; 0 if none is known.
                latency_max_ms Largest "$34",
                /// Calls by how far their token figures can be relied on.
                status_final Sum "$35",
                status_partial Sum "$36",
                status_estimated Sum "$37",
                status_missing Sum "$38",
                /// Calls by the source of their cost, with `cost_unknown`.
                cost_reported Sum "$39",
                cost_computed Sum "$40",
                cost_held Sum "$41",
                tokens_cache_read Sum "$42",
                tokens_cache_write Sum "$43",
                tokens_cache_write_long Sum "$44",
                tokens_audio_in Sum "$45",
                tokens_image_in Sum "$46",
                tokens_reasoning Sum "$47",
                tokens_audio_out Sum "$48",
                tokens_image_out Sum "$49",
            }
        }
    };
}
pub(crate) use rollup_figures;

/// `calls, succeeded, ...`.
macro_rules! figure_names {
    ($before:literal { $first:ident $how:ident $at:literal, $($(#[$doc:meta])* $name:ident $merge:ident $place:literal,)* } { $($bucket:ident $of:literal,)* } { $($(#[$note:meta])* $more:ident $merge_more:ident $place_more:literal,)* }) => {
        concat!($before, stringify!($first) $(, ", ", $before, stringify!($name))* $(, ", ", $before, stringify!($bucket))* $(, ", ", $before, stringify!($more))*)
    };
    ($($figures:tt)*) => { $crate::rows::rollup_columns::figure_names!("" $($figures)*) };
}
pub(crate) use figure_names;

/// `calls, succeeded, ...` without the further figures.
macro_rules! report_names {
    ($before:literal { $first:ident $how:ident $at:literal, $($(#[$doc:meta])* $name:ident $merge:ident $place:literal,)* } { $($bucket:ident $of:literal,)* } { $($(#[$note:meta])* $more:ident $merge_more:ident $place_more:literal,)* }) => {
        concat!($before, stringify!($first) $(, ", ", $before, stringify!($name))* $(, ", ", $before, stringify!($bucket))*)
    };
    ($($figures:tt)*) => { $crate::rows::rollup_columns::report_names!("" $($figures)*) };
}
pub(crate) use report_names;

/// `?, ?, ...`: SQLite numbers the values itself.
macro_rules! figure_marks {
    ({ $first:ident $how:ident $at:literal, $($(#[$doc:meta])* $name:ident $merge:ident $place:literal,)* } { $($bucket:ident $of:literal,)* } { $($(#[$note:meta])* $more:ident $merge_more:ident $place_more:literal,)* }) => {
        concat!("?" $(, ", ", $crate::rows::rollup_columns::mark!($name))* $(, ", ", $crate::rows::rollup_columns::mark!($bucket))* $(, ", ", $crate::rows::rollup_columns::mark!($more))*)
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
    ({ $first:ident $how:ident $at:literal, $($(#[$doc:meta])* $name:ident $merge:ident $place:literal,)* } { $($bucket:ident $of:literal,)* } { $($(#[$note:meta])* $more:ident $merge_more:ident $place_more:literal,)* }) => {
        concat!("unnest(", $at, ")" $(, ", unnest(", $place, ")")* $(, ", unnest(", $of, ")")* $(, ", unnest(", $place_more, ")")*)
    };
}
pub(crate) use figure_arrays;

/// `calls = rollups.calls + excluded.calls, ...`.
macro_rules! figure_merges {
    ({ $first:ident $how:ident $at:literal, $($(#[$doc:meta])* $name:ident $merge:ident $place:literal,)* } { $($bucket:ident $of:literal,)* } { $($(#[$note:meta])* $more:ident $merge_more:ident $place_more:literal,)* }) => {
        concat!(
            $crate::rows::rollup_columns::merged!($how $first)
            $(, ", ", $crate::rows::rollup_columns::merged!($merge $name))*
            $(, ", ", $crate::rows::rollup_columns::merged!(Sum $bucket))*
            $(, ", ", $crate::rows::rollup_columns::merged!($merge_more $more))*
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
    ({ $($(#[$doc:meta])* $name:ident $merge:ident $place:literal,)* } { $($bucket:ident $of:literal,)* } { $($(#[$note:meta])* $more:ident $merge_more:ident $place_more:literal,)* }) => {
        /// The names of the columns.
        const NAMES: [&str; FIGURES] =
            [$(stringify!($name),)* $(stringify!($bucket),)* $(stringify!($more)),*];

        /// How the figures are merged.
        const MERGES: [Merge; FIGURES] =
            [$(Merge::$merge,)* $(bucket_merge!($bucket),)* $(Merge::$merge_more),*];

        /// The number of figures of a rollup.
        pub(crate) const FIGURES: usize =
            [$(stringify!($name),)* $(stringify!($bucket),)* $(stringify!($more)),*].len();

        /// The number of figures that reports read.
        const REPORTED: usize = [$(stringify!($name),)* $(stringify!($bucket)),*].len();

        /// The figures of a rollup. Every figure is exact; averages are computed when it is shown.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Rollup {
            $($(#[$doc])* pub $name: i64,)*
            /// Calls by latency, in buckets with the bounds [`LATENCY_BOUNDS_MS`].
            pub latency_buckets: [i64; LATENCY_BUCKETS],
            $($(#[$note])* pub $more: i64,)*
        }

        impl Rollup {
            /// The figures in the order of the columns.
            pub(crate) const fn figures(&self) -> [i64; FIGURES] {
                let Self { $($name,)* latency_buckets: [$($bucket),*], $($more,)* } = *self;
                [$($name,)* $($bucket,)* $($more),*]
            }

            const fn from_figures([$($name,)* $($bucket,)* $($more),*]: [i64; FIGURES]) -> Self {
                Self { $($name,)* latency_buckets: [$($bucket),*], $($more,)* }
            }
        }
    };
}
use define_rollup;

/// The buckets of the histogram are sums.
macro_rules! bucket_merge {
    ($bucket:ident) => {
        Merge::Sum
    };
}

rollup_figures!(define_rollup);

impl Rollup {
    /// Reads all figures from column `at` on.
    pub(crate) fn read(row: &impl Columns, at: usize) -> Result<Self, StoreError> {
        Self::read_first(FIGURES, row, at)
    }

    /// Reads the figures that reports show; the others are zero.
    pub(crate) fn read_reported(row: &impl Columns, at: usize) -> Result<Self, StoreError> {
        Self::read_first(REPORTED, row, at)
    }

    fn read_first(count: usize, row: &impl Columns, at: usize) -> Result<Self, StoreError> {
        let mut figures = [0; FIGURES];
        for (figure, at) in figures.iter_mut().take(count).zip(at..) {
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
        let figures = merged.iter_mut().zip(more.figures()).zip(MERGES.into_iter().zip(NAMES));
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
