//! Usage records: record, sum up, list and export them.

pub(crate) mod export_format;
pub(crate) mod history;
pub mod ignored_fields;
pub(crate) mod ingest;
pub(crate) mod record_view;
pub(crate) mod series;
pub(crate) mod summaries;
mod tags_and_units;
pub mod usage_record;

use crate::api::route::Routes;

pub(crate) fn routes() -> Routes {
    ingest::routes().with(summaries::routes()).with(history::routes()).with(series::routes())
}
