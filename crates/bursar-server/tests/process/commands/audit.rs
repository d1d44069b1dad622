//! The commands of the audit log.

use serde_json::Value;

use super::{World, text};

/// Verifies and exports the audit logs of two tenants, whose changes came from this address.
#[track_caller]
fn check_audit(world: &World, address: Option<&str>) {
    let tenant = text(&world.json(&["tenant", "create", "acme"]), "id");
    world.run(&["tenant", "create", "other"]);
    world.run(&["key", "create", "--tenant=acme", "--name=k", "--scope=*"]);
    assert_eq!(world.run(&["audit", "verify"]), "4 rows of 2 tenants: 0 differences\n");
    let only = world.run(&["audit", "verify", "--tenant", &tenant]);
    assert_eq!(only, "3 rows of 1 tenants: 0 differences\n");

    let lines = world.run(&["audit", "export", "--tenant=acme"]);
    let rows: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let actions: Vec<String> = rows.iter().map(|row| text(row, "action")).collect();
    assert_eq!(actions, ["tenant.create", "tenant.onboarding", "api_key.create"]);
    for row in &rows {
        assert_eq!(row.get("address").unwrap().as_str(), address, "{row}");
    }
    world.run(&["audit", "export", "--tenant=acme", "--output=log.ndjson"]);
    world.check_failed(
        &["audit", "export", "--tenant=acme", "--output=log.ndjson"],
        1,
        &["log.ndjson already exists", "--force"],
    );
    let file = world.folder.path().join("log.ndjson");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), lines);
    let stdout = world.run(&["audit", "verify", "--file=log.ndjson"]);
    let hash = text(rows.last().unwrap(), "hash");
    assert_eq!(
        stdout,
        format!(
            "3 rows of 1 tenants: 0 differences\nThe last row is number 3, with the hash {hash}\n"
        )
    );

    std::fs::write(&file, lines.replace("\"name\":\"k\"", "\"name\":\"l\"")).unwrap();
    let output = world.command(&["audit", "verify", "--file=log.ndjson"]).output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stdout}");
    assert!(
        stdout.contains("is not as it was written") && stdout.contains("1 differences"),
        "{stdout}"
    );
    check_unchained(world, &lines);
    std::fs::write(&file, "id,action\n").unwrap();
    world.check_failed(&["audit", "verify", "--file=log.ndjson"], 1, &["is not an exported audit"]);
    world.check_failed(&["audit", "verify", "--tenant=acme"], 1, &["--tenant must be a UUID"]);
}

/// Verifies an export whose last row is not chained.
#[track_caller]
fn check_unchained(world: &World, lines: &str) {
    let (before, last) = lines.trim_end().rsplit_once('\n').unwrap();
    let mut row: Value = serde_json::from_str(last).unwrap();
    for field in ["sequence", "prev_hash", "hash"] {
        *row.get_mut(field).unwrap() = Value::Null;
    }
    std::fs::write(world.folder.path().join("log.ndjson"), format!("{before}\n{row}\n")).unwrap();
    let output = world.command(&["audit", "verify", "--file=log.ndjson"]).output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stdout}");
    assert!(stdout.contains("line 3: the row is in no chain"), "{stdout}");
}

#[test]
fn the_audit_log_is_checked_and_exported_beside_a_server() {
    check_audit(&World::with_server(), Some("127.0.0.1"));
}

#[test]
fn the_audit_log_is_checked_and_exported_without_a_server() {
    let world = World::without_server();
    check_audit(&world, None);
    // An edit of the file itself: a word is replaced by another of its length.
    let database = world.data().join("bursar.db");
    let mut bytes = std::fs::read(&database).unwrap();
    let at = bytes.windows(7).position(|seven| seven == b"founder").unwrap();
    bytes.splice(at..at + 7, *b"machine");
    std::fs::write(&database, bytes).unwrap();
    let output = world.command(&["audit", "verify"]).output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stdout}");
    assert!(stdout.contains("is not as it was written"), "{stdout}");
    assert!(stdout.contains("4 rows of 2 tenants: 1 differences"), "{stdout}");
    std::fs::write(world.data().join("secret-key"), "another secret key of 32 bytes or more")
        .unwrap();
    world.check_failed(&["audit", "verify"], 1, &["belongs to another secret key"]);
    std::fs::remove_file(world.data().join("secret-key")).unwrap();
    world.check_failed(&["audit", "verify"], 1, &["data/secret-key does not exist"]);
}
