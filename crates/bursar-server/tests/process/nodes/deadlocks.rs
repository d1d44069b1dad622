//! A deadlock with a session that takes locks in another order.

use std::time::Duration;

use bursar_testing::postgres::session;
use bursar_testing::process::bodies::record;
use bursar_testing::process::books::{Books, integer};
use bursar_testing::waiting::within;
use serde_json::json;

use crate::nodes::support::Site;
use crate::nodes::support::fleet::Fleet;

const BATCHES: &str = "/api/v1/telemetry/llm-usage/batch";
const WAITING_WITHIN: Duration = Duration::from_secs(10);
const WAITING: &str = "select count(*) from pg_stat_activity \
     where datname = current_database() and wait_event_type = 'Lock'";
const DEADLOCKS: &str = "select deadlocks from pg_stat_database where datname = current_database()";

#[test]
fn a_group_that_loses_a_deadlock_is_written_once() {
    let site = Site::new();
    // The group checks for a deadlock once, so the lock that closes the cycle must be requested
    // before; and it waits five seconds for a lock at most. Half of that leaves a slow machine as
    // much time before the check as after it.
    let name = site.database.app_url().rsplit('/').next().expect("a name").to_owned();
    site.database.run(&format!("alter database {name} set deadlock_timeout = '2500ms'"));
    let fleet = Fleet::start(&site, 1);
    let tenant = fleet.tenant(&[1_000, 1_000]);
    let ids = "select integration_id from integrations order by tenant_id, integration_id";
    let ids: Vec<String> = site.database.run(ids).into_iter().flatten().flatten().collect();
    let [first, second] = ids.try_into().expect("two integrations");
    let lock =
        |id: &str| format!("select from integrations where integration_id = {id} for update");
    let count = |sql: &str| site.database.run(sql).into_iter().flatten().flatten().next();
    let records = tenant.integrations.iter().zip(["a", "b"]);
    let records: Vec<_> = records.map(|(id, call_id)| record(id, call_id, 1)).collect();

    let answer = std::thread::scope(|scope| {
        let sends = || tenant.client(fleet.server(0)).post(BATCHES, &json!({ "records": records }));
        session::block_on(async {
            let other = session::connect(&site.database.admin_url()).await.expect("a connection");
            // The group must detect the deadlock first, because the session that does is ended.
            let begin = format!("set deadlock_timeout = '30s'; begin; {}", lock(&second));
            other.batch_execute(&begin).await.expect("a lock");
            let sent = scope.spawn(sends);
            let waits = within(WAITING_WITHIN, || (count(WAITING)? != "0").then_some(()));
            assert!(waits.is_some(), "the group does not wait for the lock");
            other.batch_execute(&lock(&first)).await.expect("the other lock");
            other.batch_execute("commit").await.expect("the end");
            sent.join().expect("a client").expect("an answer")
        })
    });
    assert_eq!(integer(answer.body.get("data").expect("data"), "accepted"), 2, "{answer:?}");
    // One or more: the repeated group may take the lock before the other session, and lose again.
    let counted = within(WAITING_WITHIN, || (count(DEADLOCKS)? != "0").then_some(()));
    assert!(counted.is_some(), "there was no deadlock");
    assert_eq!(Books::read(fleet.server(0), &tenant).entries.len(), 2);
    fleet.check_verified();
    fleet.stop();
}
