//! Usage records: record, sum up, list and export them.

pub mod export_format;
pub mod history;
pub mod ingest;
pub mod record_view;
pub mod series;
pub mod summaries;

use crate::api::route::Routes;

pub fn routes() -> Routes {
    ingest::routes().with(summaries::routes()).with(history::routes()).with(series::routes())
}
