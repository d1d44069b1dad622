//! Concurrent changes on several nodes make one chain in the audit log of a tenant.

use bursar_testing::waiting::scale;
use serde_json::json;

use crate::nodes::support::Site;
use crate::nodes::support::fleet::Fleet;

const NODES: usize = 3;
const CLIENTS: usize = 12;

#[test]
fn concurrent_changes_on_three_nodes_make_one_audit_chain_and_an_edit_is_found() {
    let site = Site::new();
    let fleet = Fleet::start(&site, NODES);
    let tenant = fleet.tenant(&[1_000]);
    let rows = || site.database.run("select count(*), max(sequence) from audit");
    let count = |rows: Vec<Vec<Option<String>>>| -> Vec<usize> {
        let cells = rows.into_iter().flatten().flatten();
        cells.map(|cell| cell.parse().expect("a number")).collect()
    };
    let before = count(rows());
    let keys = scale(5, 50);
    fleet.run_concurrently(&tenant, CLIENTS, |_, http| {
        for _ in 0..keys {
            let draft = json!({ "name": "k", "scopes": ["telemetry:read"] });
            let made = http.post("/api/v1/keys", &draft).expect("an answer");
            assert_eq!(made.status, 201, "{made:?}");
            let id = made.data("id").as_str().expect("an id").to_owned();
            let revoked = http.delete(&format!("/api/v1/keys/{id}")).expect("an answer");
            assert_eq!(revoked.status, 200, "{revoked:?}");
        }
    });
    let changes = CLIENTS * keys * 2;
    let expected: Vec<usize> = before.iter().map(|before| before + changes).collect();
    let after = count(rows());
    assert_eq!(after, expected);
    assert_eq!(after.first(), after.last(), "the numbers have a gap");
    let node = &fleet.node(1).folder;
    let stdout = node.run(&["audit", "verify"]);
    assert!(stdout.ends_with("of 1 tenants: 0 differences\n"), "{stdout}");

    site.database.run("update audit set detail = '{}' where sequence = 9");
    let output = node.command(&["audit", "verify"]).output().expect("the binary");
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{stdout}");
    assert!(stdout.contains("row 9 (") && stdout.contains("1 differences"), "{stdout}");
    assert!(stdout.contains(&format!("{} rows", after.first().expect("a count"))), "{stdout}");
    fleet.stop();
}
