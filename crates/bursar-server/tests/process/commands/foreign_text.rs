//! Texts of clients in the output, exports and imports of commands.

use serde_json::{Value, json};

use super::{World, text};

/// Sends a request as the operator; returns the data of the response.
fn send(world: &World, tenant: &str, (method, path): (&str, &str), body: &Value) -> Value {
    send_text(world, tenant, (method, path), &body.to_string())
}

/// Sends a request with an unparsed body.
fn send_text(world: &World, tenant: &str, (method, path): (&str, &str), body: &str) -> Value {
    let token = std::fs::read_to_string(world.data().join("operator-token")).unwrap();
    let mut request = axum::http::Request::builder()
        .method(method)
        .uri(format!("{}/api/v1{path}", world.url()))
        .header("authorization", format!("Bearer {}", token.trim()))
        .header("content-type", "application/json");
    if !tenant.is_empty() {
        request = request.header("x-tenant-id", tenant);
    }
    let answered = match method {
        "GET" => ureq::run(request.body(()).unwrap()),
        _ => ureq::run(request.body(body).unwrap()),
    };
    let mut answer = answered.unwrap();
    let envelope: Value =
        serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap();
    envelope.get("data").unwrap().clone()
}

#[test]
fn names_that_look_alike_are_shown_differently_and_without_terminal_escapes() {
    let world = World::with_server();
    let names = ["prod", "pro\u{200b}d", "\u{2066}prod\u{2069}", "p\u{202e}dor", r"pro\u{200b}d"];
    for name in names {
        send(&world, "", ("POST", "/tenants"), &json!({ "name": name }));
    }
    let table = world.run(&["tenant", "list"]);
    for shown in [r"pro\u{200b}d", r"\u{2066}prod\u{2069}", r"p\u{202e}dor", r"pro\\u{200b}d"] {
        assert!(table.contains(&format!("  {shown}  ")), "{shown} is not in {table}");
    }
    let is_plain = |text: &str| text.replace('\n', "").chars().all(|c| (' '..='~').contains(&c));
    assert!(is_plain(&table), "{table:?}");
    let listed = world.run(&["tenant", "list", "--json"]);
    assert!(is_plain(&listed), "{listed:?}");
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let shown: Vec<String> =
        listed.as_array().unwrap().iter().map(|row| text(row, "name")).collect();
    assert_eq!(shown, names);
    let shown = world.run(&["tenant", "show", "p\u{202e}dor"]);
    assert!(shown.contains(r"p\u{202e}dor") && is_plain(&shown), "{shown:?}");

    let foreign = "\u{1b}[2J\u{9b}\nforged";
    for arguments in [
        &["tenant", "show", foreign][..],
        &["key", "revoke", "--tenant=prod", foreign],
        &["usage", "export", "--tenant=prod", "--output", foreign, "--start=soon"],
        &["audit", "verify", "--file", foreign],
        &["completions", foreign],
    ] {
        let output = world.command(arguments).output().unwrap();
        let blamed = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && is_plain(&blamed), "{arguments:?}: {blamed:?}");
        assert!(!blamed.lines().any(|line| line.starts_with("forged")), "{blamed}");
    }
}

/// The history of an integration, without the fields that differ on every server.
fn history(world: &World, tenant: &str) -> Vec<Value> {
    let rows = send(world, tenant, ("GET", "/telemetry/usage-history?limit=100"), &json!({}));
    let mut rows = rows.as_array().unwrap().clone();
    for row in &mut rows {
        let fields = row.as_object_mut().unwrap();
        for made in ["id", "created_at", "integration_id"] {
            fields.remove(made).unwrap();
        }
    }
    rows.sort_by_key(|row| text(row, "call_id"));
    rows
}

/// Texts with everything that CSV export escapes.
const TEXTS: &[&str] = &[
    "=1+1",
    "+1",
    "-1",
    "@a",
    "\u{ff1d}1",
    "'twas",
    "'=1",
    "''=1",
    "'\"a\"",
    "\"a\"",
    " =1 ",
    "\tb",
    "a;=1",
    "a\\nb",
    "a, \"b\"",
    "pay\u{202e}lap",
    "\u{1b}[31mred",
    "\u{9b}2J\u{7f}",
];

#[test]
fn importing_an_export_keeps_every_text() {
    let world = World::with_server();
    let tenants = ["from", "to"].map(|name| {
        let tenant = text(&send(&world, "", ("POST", "/tenants"), &json!({ "name": name })), "id");
        let create = json!({ "name": "i", "provider_type": "openai" });
        let made = send(&world, &tenant, ("POST", "/integrations"), &create);
        (tenant, text(&made, "id"))
    });
    let [(from, integration), (to, other)] = tenants;
    let records: Vec<Value> = (0..)
        .zip(TEXTS)
        .map(|(number, text)| {
            // A call id may not have control characters.
            let call_id = text.replace(char::is_control, "");
            json!({
                "integration_id": integration,
                "call_id": call_id,
                "session_id": text,
                "agent_id": text,
                "provider": text,
                "model": text,
                "tokens_in": 1,
                "tokens_out": number,
                // Whole cents, because the column has no fractions.
                "cost_cents": 2,
                "error_code": text,
                "error_message": format!("{text}\r\nand more\n"),
                "metadata": { (*text): text },
                "occurred_at": "2026-01-01T00:00:00Z",
            })
        })
        .collect();
    let sent =
        send(&world, &from, ("POST", "/telemetry/llm-usage/batch"), &json!({ "records": records }));
    assert_eq!(sent.get("accepted"), Some(&TEXTS.len().into()), "{sent}");
    for format in ["csv", "ndjson"] {
        let output = format!("--output=calls.{format}");
        world.run(&["usage", "export", "--tenant", &from, &output]);
    }
    // Unchanged, every row names an integration of another tenant.
    let file = std::fs::read_to_string(world.folder.path().join("calls.csv")).unwrap();
    std::fs::write(world.folder.path().join("calls.csv"), file.replace(&integration, &other))
        .unwrap();
    let stdout = world.run(&["usage", "import", "calls.csv", "--tenant", &to]);
    assert_eq!(stdout, format!("{} accepted, 0 duplicates, 0 refused\n", TEXTS.len()));
    assert_eq!(history(&world, &to), history(&world, &from));
    // Importing it into its own tenant changes nothing.
    for format in ["csv", "ndjson"] {
        let file = std::fs::read_to_string(world.folder.path().join(format!("calls.{format}")));
        let name = format!("again.{format}");
        let again = file.unwrap().replace(&other, &integration);
        std::fs::write(world.folder.path().join(&name), again).unwrap();
        let stdout = world.run(&["usage", "import", &name, "--tenant", &from]);
        assert_eq!(stdout, format!("0 accepted, {} duplicates, 0 refused\n", TEXTS.len()));
    }
}

#[test]
fn importing_an_export_keeps_metadata_in_any_json_notation() {
    let world = World::with_server();
    let ids = ["from", "to"].map(|name| {
        let tenant = text(&send(&world, "", ("POST", "/tenants"), &json!({ "name": name })), "id");
        let create = json!({ "name": "i", "provider_type": "openai" });
        let made = send(&world, &tenant, ("POST", "/integrations"), &create);
        (tenant, text(&made, "id"))
    });
    let [(from, integration), (to, other)] = ids;
    for (call_id, metadata) in [
        ("a", "{\n  \"a\": [\r\n    1.10,\n    12345678901234567890123\n  ]\n}"),
        ("b", "{\"a\": 1, \"\\u0061\": {\"b\": 1, \"b\": \"\u{2028}\\n\"}}"),
        ("c", "{\n}"),
    ] {
        let record = format!(
            "{{\n \"integration_id\": \"{integration}\", \"call_id\": \"{call_id}\", \
             \"provider\": \"openai\", \"model\": \"m\", \"tokens_in\": 1, \"tokens_out\": 2, \"cost_cents\": 2, \
             \"occurred_at\": \"2026-01-01T00:00:00Z\", \"metadata\": {metadata}}}"
        );
        send_text(&world, &from, ("POST", "/telemetry/llm-usage"), &record);
    }
    for (format, count) in [("ndjson", 3), ("csv", 4)] {
        let output = format!("--output=calls.{format}");
        world.run(&["usage", "export", "--tenant", &from, &output]);
        let path = world.folder.path().join(format!("calls.{format}"));
        let file = std::fs::read_to_string(&path).unwrap();
        assert_eq!(file.lines().count(), count, "{file}");
        std::fs::write(&path, file.replace(&integration, &other)).unwrap();
    }
    let stdout = world.run(&["usage", "import", "calls.ndjson", "--tenant", &to]);
    assert_eq!(stdout, "3 accepted, 0 duplicates, 0 refused\n");
    assert_eq!(history(&world, &to), history(&world, &from));
    let stdout = world.run(&["usage", "import", "calls.csv", "--tenant", &to]);
    assert_eq!(stdout, "0 accepted, 3 duplicates, 0 refused\n");
}
