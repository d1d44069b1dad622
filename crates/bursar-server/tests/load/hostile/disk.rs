//! The disk: the largest records at full speed, and the rows that refusals leave.

use std::time::Duration;

use bursar_testing::waiting::scale;

use crate::hostile::attack::{Attack, Client, PROTECTED};
use crate::hostile::request;
use crate::hostile::scene::{Scene, Store};

/// Nearly the maximal metadata of a record, 32 KiB.
const METADATA: usize = 32_000;
/// The maximal batches of each of the four clients, to limit the use of the disk: 50 MiB in an
/// ordinary run, 1 GiB in a long one.
fn batches_max() -> usize {
    scale(40, 80)
}

/// The largest records at full speed.
pub(crate) const STORING: Attack = Attack::new("storing", storing);
/// `STORING` with a limit of 8 MiB a day for a tenant.
pub(crate) const STORING_BOUNDED: Attack = Attack {
    name: "storing within a bound",
    settings: &[("BURSAR_LIMITS_STORED_BYTES_PER_DAY", "8388608")],
    lasts: Duration::from_secs(10),
    // The data is in the WAL and in the database.
    disk_mib_max: Some(40),
    ..STORING
};
/// `STORING` on PostgreSQL.
pub(crate) const STORING_POSTGRES: Attack = Attack {
    store: Store::Postgres,
    lasts: Duration::from_secs(10),
    ..Attack::new("storing on PostgreSQL", storing)
};
/// Refused reservations and requests beyond the rate, each of which leaves a row or a signal.
pub(crate) const REFUSED: Attack = Attack {
    settings: &PROTECTED,
    lasts: Duration::from_secs(10),
    disk_mib_max: Some(64),
    ..Attack::new("refused", refused)
};

fn storing(scene: &mut Scene) -> Vec<Client> {
    let client = |number: usize| {
        let (bearer, target) = (scene.attacker.bearer.clone(), scene.target());
        let more = format!(",\"metadata\":{{\"text\":\"{}\"}}", "x".repeat(METADATA));
        let mut sent = 0;
        Client::requests(number, move || {
            sent += 1;
            let record =
                |at| request::record(&target, &format!("{number}-{sent}-{at}"), "gpt-4o", &more);
            let records: Vec<String> = (0..scale(10, 100)).map(record).collect();
            (sent <= batches_max())
                .then(|| request::post(request::BATCH, &bearer, &request::batch(&records)))
        })
    };
    (0..4).map(client).collect()
}

fn refused(scene: &mut Scene) -> Vec<Client> {
    let target = scene.add_enabled(1);
    let bearer = &scene.attacker.bearer;
    let mut clients = Vec::new();
    for number in 0..6 {
        let (bearer, target) = (bearer.clone(), target.clone());
        let mut sent = 0;
        clients.push(Client::requests(number, move || {
            sent += 1;
            let reservation = format!(
                "{{\"integration_id\":\"{target}\",\"call_id\":\"{number}-{sent}\",\
                 \"estimated_cost_cents\":100,\"estimated_tokens\":1}}"
            );
            Some(request::post("/api/v1/enforcement/reservations", &bearer, &reservation))
        }));
    }
    for number in 6..8 {
        clients.push(Client::repeats(number, request::get("/api/v1/integrations?limit=1", bearer)));
    }
    clients
}
