//! Stored rows and their decoding, shared by all databases.

pub(crate) mod codec;
pub(crate) mod columns;
pub(crate) mod counted_tags;
pub(crate) mod decode;
pub(crate) mod entry_columns;
pub(crate) mod limit_account;
pub(crate) mod limit_row;
pub(crate) mod protection;
pub(crate) mod reservation_columns;
pub(crate) mod rollup;
pub(crate) mod rollup_columns;
pub(crate) mod rollup_labels;
pub(crate) mod row;

use decode::fact_columns;
use entry_columns::entry_columns;
use limit_row::limit_columns;
use reservation_columns::reservation_columns;
use rollup_columns::rollup_figures;

macro_rules! column_lists {
    ($($list:expr),* $(,)?) => { &[$((stringify!($list), $list)),*] };
}

/// The lists of columns in statements, each with the macro call that generates it.
///
/// Tests that read statements in the source replace the calls by the lists.
pub const COLUMN_LISTS: &[(&str, &str)] = column_lists![
    entry_columns!(entry_names),
    entry_columns!(entry_names, "e."),
    entry_columns!(entry_marks),
    entry_columns!(entry_arrays),
    entry_columns!(entry_text_bytes),
    limit_columns!(),
    reservation_columns!(entry_names),
    reservation_columns!(entry_names, "c."),
    reservation_columns!(entry_names, "r."),
    reservation_columns!(entry_marks),
    reservation_columns!(entry_arrays),
    rollup_figures!(figure_names),
    rollup_figures!(report_names),
    rollup_figures!(report_names, "r."),
    rollup_figures!(figure_marks),
    rollup_figures!(figure_arrays),
    rollup_figures!(figure_merges),
    fact_columns!(),
    fact_columns!("e."),
];
