//! Lost replies to commits that have succeeded.

use std::time::Duration;

use bursar_testing::postgres::proxy::Proxy;
use bursar_testing::process::bodies::record;
use bursar_testing::process::books::Books;
use bursar_testing::process::writer::{Writer, check_acknowledged};
use bursar_testing::waiting::scale;

use crate::nodes::support::fleet::Fleet;
use crate::nodes::support::load::{Addresses, write_while};
use crate::nodes::support::{Site, reservation};

const SEED: u64 = 20_261_121;
const NODES: usize = 2;
const WRITERS: usize = 8;
/// More than the writers can spend.
const BUDGET_CENTS: u64 = 1_000_000_000_000;
/// Steps of the writers between two lost replies.
const STEPS: usize = 10;
/// The timeout of the next commit.
const COMMIT_MAX: Duration = Duration::from_secs(10);
const RECORDS: &str = "/api/v1/telemetry/llm-usage";
const RESERVATIONS: &str = "/api/v1/enforcement/reservations";

#[test]
fn requests_repeated_after_a_lost_commit_reply_are_counted_once() {
    let site = Site::new();
    let proxy = Proxy::start(site.database.app_url());
    let fleet = Fleet::with_url(&site, &proxy.through(site.database.app_url()), NODES);
    let tenant = fleet.tenant(&[BUDGET_CENTS, BUDGET_CENTS]);
    let mut writers = Writer::several(&tenant, WRITERS, SEED);

    let losses = scale(15, 200);
    let (_, outcomes) = write_while(&tenant, &Addresses::of(&fleet), &mut writers, |progress| {
        for loss in 1..=losses {
            proxy.lose_next_commit();
            assert_eq!(proxy.wait_for_lost(loss, COMMIT_MAX), loss, "no commit passed the proxy");
            progress.wait_for(STEPS);
        }
    });
    let acknowledged = check_acknowledged(&writers, &Books::read(fleet.server(0), &tenant));
    check_acknowledged(&writers, &Books::read(fleet.server(1), &tenant));
    fleet.check_verified();
    println!("{losses} replies lost, {acknowledged} records acknowledged, {outcomes:?}");
    assert!(outcomes.unavailable > 0, "no writer was affected by a lost reply: {outcomes:?}");
    assert_eq!(outcomes.lost, 0, "every client is answered: {outcomes:?}");
    fleet.stop();
}

#[test]
fn a_call_whose_commit_is_in_doubt_is_known_to_every_node() {
    let site = Site::new();
    let proxy = Proxy::start(site.database.app_url());
    let fleet = Fleet::with_url(&site, &proxy.through(site.database.app_url()), NODES);
    let tenant = fleet.tenant(&[100]);
    let integration = tenant.integrations.first().expect("an integration");
    let (mut sent, mut doubts) = (0, 0);
    let rounds = scale(10, 50);
    for round in 0..rounds {
        let call_id = format!("call-{round}");
        let held = reservation(integration, &call_id, 10);
        let used = record(integration, &call_id, 1);
        for (path, body) in [(RESERVATIONS, &held), (RECORDS, &used)] {
            proxy.lose_next_commit();
            let mut refused = 0;
            let answer = loop {
                sent += 1;
                let mut http = tenant.client(fleet.server(sent));
                let answer = http.post(path, body).expect("an answer");
                if answer.status != 503 {
                    break answer;
                }
                refused += 1;
                assert!(refused < 20, "nothing but 503: {answer:?}");
            };
            assert!(answer.is_success(), "{answer:?}");
            doubts += usize::from(answer.data("status") == "duplicate");
            assert!(refused > 0 || answer.data("status") != "duplicate", "{answer:?}");
        }
    }
    println!("{doubts} of {rounds} records were in doubt and stored");
    assert!(doubts > 0, "no record was affected by a lost reply");
    let Books { entries, holds } = Books::read(fleet.server(0), &tenant);
    assert_eq!((entries.len(), holds.len()), (rounds, 0));
    fleet.check_verified();
    fleet.stop();
}
