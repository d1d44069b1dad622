//! The period of a request, in days or instants.

use bursar_core::{Day, Timestamp};
use utoipa::openapi::path::Parameter;

use crate::wire::error::ApiError;
use crate::wire::params::Query;
use crate::wire::scalars::{Date, Id, InstantOrDate};
use crate::wire::schema::query;
use crate::wire::timestamps;

/// The default number of days.
const DAYS_DEFAULT: i32 = 30;

/// Reads `start_date` and `end_date`, both inclusive.
///
/// The default is the last 30 days up to today, or `days_max` if that is less.
///
/// # Errors
/// 422 on the wrong parameter, or for more than `days_max` days.
pub(crate) fn read_days(
    today: Day,
    query: &mut Query,
    days_max: i32,
) -> Result<(Day, Day), ApiError> {
    let first = query.read("start_date", timestamps::parse_day)?;
    let last = query.read("end_date", timestamps::parse_day)?;
    let last = last.unwrap_or(today);
    let days = DAYS_DEFAULT.min(days_max);
    let first = first.unwrap_or_else(|| Day::from_number(last.number() - days + 1));
    if first > last {
        return Err(ApiError::field("start_date", "must not be after end_date"));
    }
    if last.number() - first.number() >= days_max {
        let problem =
            format!("must be at most {days_max} days before end_date, both days included");
        return Err(ApiError::field("start_date", &problem));
    }
    Ok((first, last))
}

/// Reads `start` and `end`: instants, or days.
///
/// A day as `start` means its beginning, as `end` its end. The end is exclusive.
///
/// # Errors
/// 422 on the parameter.
pub(crate) fn read_instants(
    query: &mut Query,
) -> Result<(Option<Timestamp>, Option<Timestamp>), ApiError> {
    let next = |day: Day| Day::from_number(day.number() + 1).start();
    let end =
        |text: &str| timestamps::parse_day(text).map(next).or_else(|_| timestamps::parse(text));
    Ok((query.read("start", timestamps::parse_start)?, query.read("end", end)?))
}

/// The integration and days that [`read_days`] reads, for the OpenAPI document.
///
/// `last` describes `end_date`.
pub(crate) fn day_params(last: &str) -> Vec<Parameter> {
    vec![
        query::<Id>("integration_id", "Only usage of this integration."),
        query::<Date>("start_date", "The first day. Default: 29 days before the last."),
        query::<Date>("end_date", last),
    ]
}

/// The instants that [`read_instants`] reads, for the OpenAPI document.
pub(crate) fn instant_params() -> [Parameter; 2] {
    [
        query::<InstantOrDate>("start", "The start: an instant or a day, which is included."),
        query::<InstantOrDate>(
            "end",
            "The end: an instant, which is excluded, or a day, which is included.",
        ),
    ]
}
