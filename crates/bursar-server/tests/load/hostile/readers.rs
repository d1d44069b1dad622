//! Readers: sums over a year of many integrations, unread exports, breakdowns by session.

use std::time::Duration;

use bursar_testing::process::clock::MID_JUNE_2031;
use bursar_testing::waiting::scale;
use jiff::{SignedDuration, Timestamp};

use crate::hostile::attack::{Attack, Client, Hold};
use crate::hostile::request;
use crate::hostile::scene::{Scene, Store};

const AGGREGATES: usize = 30;
const SLOW_EXPORTS: usize = 5;
const SLOW_PAUSE: Duration = Duration::from_millis(100);

pub(crate) const READING: Attack = Attack {
    // 422 is the limit on the cost of one read.
    statuses: &[200, 422],
    // The page caches of all read connections fill in the first half.
    lasts: Duration::from_secs(40),
    ..Attack::new("reading", reading)
};
/// `READING` on PostgreSQL.
pub(crate) const READING_POSTGRES: Attack = Attack {
    name: "reading on PostgreSQL",
    store: Store::Postgres,
    lasts: Duration::from_secs(10),
    prepare: reading_fewer,
    ..READING
};

/// The clock of the servers at the start of a test.
fn today() -> Timestamp {
    Timestamp::from_second(i64::try_from(MID_JUNE_2031).expect("small")).expect("an instant")
}

fn days_ago(days: i64) -> Timestamp {
    today() - SignedDuration::from_hours(24 * days)
}

fn date(instant: Timestamp) -> String {
    instant.to_string().chars().take(10).collect()
}

/// A row for each day and integration: 365,000 in a long run.
fn reading(scene: &mut Scene) -> Vec<Client> {
    prepared(scene, scale((100, 30), (1_000, 365)))
}

/// Fewer rows, because inserting takes longer on PostgreSQL.
fn reading_fewer(scene: &mut Scene) -> Vec<Client> {
    prepared(scene, scale((100, 30), (300, 365)))
}

fn prepared(scene: &mut Scene, (integrations, days): (usize, i64)) -> Vec<Client> {
    scene.add_integrations(integrations);
    fill(scene, days);
    let bearer = &scene.attacker.bearer;
    let dates = format!("start_date={}&end_date={}", date(days_ago(364)), date(today()));
    let week = format!("start_date={}&end_date={}", date(days_ago(6)), date(today()));
    let paths = [
        format!("daily-aggregates?limit=1&{dates}"),
        format!("usage-summary?{dates}"),
        format!("usage-series?group_by=integration&step=day&limit=20&{dates}"),
        format!("usage-breakdown?by=session&limit=100&{week}"),
    ];
    let get = |path: &str| request::get(&format!("/api/v1/telemetry/{path}"), bearer);
    let [aggregates, others @ ..] = &paths;
    let mut clients: Vec<Client> =
        (0..AGGREGATES).map(|number| Client::repeats(number, get(aggregates))).collect();
    clients.extend(
        others
            .iter()
            .flat_map(|path| [path; 2])
            .zip(0..)
            .map(|(path, number)| Client::repeats(number, get(path))),
    );
    clients.extend((0..SLOW_EXPORTS).map(|number| {
        let first_bytes = get("export?format=csv");
        let next = b"\r\n".to_vec();
        Client::holds(number, Hold { first_bytes, next, pause: SLOW_PAUSE, reads: false })
    }));
    clients
}

/// Stores one record for each integration and day, each with its own session.
fn fill(scene: &Scene, days: i64) {
    let client = |number: usize| {
        let (bearer, integrations) =
            (scene.attacker.bearer.clone(), scene.attacker.integrations.clone());
        let mut day = number as i64;
        Client::requests(number, move || {
            let occurred_at = days_ago(day);
            let record = |integration: &String| {
                let call_id = format!("{day}-{integration}");
                let more =
                    format!(",\"occurred_at\":\"{occurred_at}\",\"session_id\":\"{call_id}\"");
                request::record(integration, &call_id, "gpt-4o", &more)
            };
            let parts = integrations.get(..1_000).unwrap_or(&integrations);
            let records: Vec<String> = parts.iter().map(record).collect();
            let is_left = day < days;
            day += 4;
            is_left.then(|| request::post(request::BATCH, &bearer, &request::batch(&records)))
        })
    };
    scene.run_to_end((0..4).map(client).collect());
}
