//! The command `bursar usage import`: its output and what it stores.

#![expect(clippy::unwrap_used, reason = "a test that cannot be arranged has failed")]
#![expect(clippy::panic, reason = "a server that does not start fails the test")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

const BURSAR: &str = env!("CARGO_BIN_EXE_bursar");
/// The timeout of a start, which takes a fraction of a second.
const START_MAX: Duration = Duration::from_secs(30);

/// The binary, without the environment of the test.
fn bursar() -> Command {
    let mut command = Command::new(BURSAR);
    command.env_clear().stdin(Stdio::null());
    command
}

/// A running server, which is killed when it is dropped.
struct Server {
    child: Child,
    url: String,
    token: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        // The process may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn start(folder: &Path) -> Self {
        Self::start_with(folder, &[])
    }

    fn start_with(folder: &Path, settings: &[(&str, &str)]) -> Self {
        let mut serve = bursar();
        serve.envs(settings.iter().copied());
        serve.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(folder);
        let child = serve.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let since = Instant::now();
        let url = loop {
            if let Ok(url) = std::fs::read_to_string(folder.join("server-address")) {
                break url.trim().to_owned();
            }
            assert!(since.elapsed() < START_MAX, "the server does not start");
            std::thread::park_timeout(Duration::from_millis(5));
        };
        let token = std::fs::read_to_string(folder.join("operator-token")).unwrap();
        Self { child, url, token: token.trim().to_owned() }
    }

    /// Terminates the server and waits for its exit.
    fn stop(mut self) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        assert!(self.child.wait().unwrap().success());
    }

    fn request(&self, tenant: &str, method: &str, path: &str, body: &Value) -> Value {
        let mut request = axum::http::Request::builder()
            .method(method)
            .uri(format!("{}/api/v1{path}", self.url))
            .header("authorization", format!("Bearer {}", self.token))
            .header("content-type", "application/json");
        if !tenant.is_empty() {
            request = request.header("x-tenant-id", tenant);
        }
        let mut answer = ureq::run(request.body(body.to_string()).unwrap()).unwrap();
        let text = answer.body_mut().read_to_string().unwrap();
        let Value::Object(mut envelope) = serde_json::from_str(&text).unwrap() else {
            panic!("no envelope: {text}");
        };
        envelope.remove("data").unwrap()
    }

    fn get(&self, tenant: &str, path: &str) -> Value {
        let mut answer = ureq::get(format!("{}/api/v1{path}", self.url))
            .header("authorization", format!("Bearer {}", self.token))
            .header("x-tenant-id", tenant)
            .call()
            .unwrap();
        let text = answer.body_mut().read_to_string().unwrap();
        let mut envelope: Value = serde_json::from_str(&text).unwrap();
        envelope.get_mut("data").unwrap().take()
    }
}

/// A data folder with a tenant and an integration, and a folder of files to import.
struct World {
    folder: TempDir,
    tenant: String,
    integration: String,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start(&folder.path().join("data"));
        let text = |value: Value| value.as_str().map(str::to_owned).unwrap();
        let id = |mut made: Value| text(made.get_mut("id").unwrap().take());
        let tenant = id(server.request("", "POST", "/tenants", &json!({ "name": "t" })));
        let create = json!({ "name": "i", "provider_type": "openai" });
        let integration = id(server.request(&tenant, "POST", "/integrations", &create));
        server.stop();
        Self { folder, tenant, integration }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(name), text).unwrap();
    }

    /// Runs an import of a file into the data folder, or into the server that runs on it.
    fn import(&self, file: &str, more: &[&str]) -> Output {
        self.import_with(file, more, &[])
    }

    fn import_with(&self, file: &str, more: &[&str], settings: &[(&str, &str)]) -> Output {
        let mut import = bursar();
        import.envs(settings.iter().copied());
        import.current_dir(self.folder.path()).args(["usage", "import", file]);
        import.args(["--data-dir", "data", "--tenant", &self.tenant]);
        import.args(["--integration", &self.integration]).args(more).output().unwrap()
    }

    /// Calls, tokens and dollars of 2023, as a server shows them.
    fn sums(&self, server: &Server) -> Value {
        let path = "/telemetry/usage-summary?start_date=2023-01-01&end_date=2023-12-31";
        let summary = server.get(&self.tenant, path);
        let field = |name: &str| summary.get(name).unwrap().clone();
        json!([field("total_calls"), field("total_tokens_in"), field("total_cost_usd")])
    }

    /// Calls, tokens and dollars of 2023, read by a server that is started for this.
    fn sums_without_server(&self) -> Value {
        let server = Server::start(&self.data());
        let sums = self.sums(&server);
        server.stop();
        sums
    }
}

/// Asserts the exit status and the output of an import.
#[track_caller]
fn check(output: &Output, success: bool, tally: &str, refusals: &[&str]) {
    let stdout = String::from_utf8_lossy(&output.stdout);
    let blamed = String::from_utf8_lossy(&output.stderr);
    assert_eq!(stdout.trim(), tally, "{blamed}");
    assert_eq!(output.status.success(), success, "{blamed}");
    let rows: Vec<&str> = blamed.lines().collect();
    assert_eq!(rows.len(), refusals.len(), "{blamed}");
    for (row, refusal) in rows.iter().zip(refusals) {
        assert!(row.starts_with(refusal), "{row}");
    }
}

/// Rows with other column names, some of them invalid.
const CSV: &str = "\u{feff}TIMESTAMP,ContextTokens,GeneratedTokens,Cents,Note\n\
     2023-11-16 18:17:03.9799600,800,200,1.25,first\n\
     2023-11-16 18:17:04,10,1,,\"quoted, with\na line\"\n\
     2023-11-16 18:17:05,-5,1,1,negative\n\
     2023-11-16 18:17:06,many,1,1,no number\n\
     2023-11-16 25:00:00,1,1,1,no time\n\
     2023-11-16 18:17:07,1,1\n\
     2023-11-16T19:17:08+01:00,90,9,0.0000001,zone\n\
     2023-11-16 18:17:09,1,1.0,0.00000005,finer than a nano-dollar\n";
const CSV_OPTIONS: &[&str] = &[
    "--map=occurred_at=TIMESTAMP",
    "--map=tokens_in=ContextTokens",
    "--map=tokens_out=GeneratedTokens",
    "--map=cost_cents=Cents",
    "--set=provider=openai",
    "--set=model=gpt-4o",
    "--time-zone=UTC",
];
const CSV_REFUSALS: &[&str] = &[
    "row 3: tokens_in must not be negative",
    "row 4: tokens_in must be a number",
    "row 5: occurred_at must be a time",
    "row 6: is not valid CSV",
];

#[test]
fn importing_csv_into_a_data_folder_twice_stores_each_row_once() {
    let world = World::new();
    world.write("calls.csv", CSV);
    let expected = json!([4, 901, "0.012500002"]);
    for tally in ["4 accepted, 0 duplicates, 4 refused", "0 accepted, 4 duplicates, 4 refused"] {
        check(&world.import("calls.csv", CSV_OPTIONS), false, tally, CSV_REFUSALS);
        assert_eq!(world.sums_without_server(), expected);
    }
}

#[test]
fn importing_csv_through_a_server_twice_stores_each_row_once() {
    let world = World::new();
    world.write("calls.csv", CSV);
    let server = Server::start(&world.data());
    let expected = json!([4, 901, "0.012500002"]);
    for tally in ["4 accepted, 0 duplicates, 4 refused", "0 accepted, 4 duplicates, 4 refused"] {
        check(&world.import("calls.csv", CSV_OPTIONS), false, tally, CSV_REFUSALS);
        assert_eq!(world.sums(&server), expected);
    }
    let history = server.get(&world.tenant, "/telemetry/usage-history?limit=1000");
    let instants: Vec<&Value> =
        history.as_array().unwrap().iter().filter_map(|row| row.get("occurred_at")).collect();
    assert_eq!(
        instants,
        [
            "2023-11-16T18:17:09Z",
            "2023-11-16T18:17:08Z",
            "2023-11-16T18:17:04Z",
            "2023-11-16T18:17:03.979960Z",
        ]
    );
}

#[test]
fn a_server_knows_the_records_imported_into_its_folder() {
    let world = World::new();
    world.write("calls.csv", CSV);
    let tally = "4 accepted, 0 duplicates, 4 refused";
    check(&world.import("calls.csv", CSV_OPTIONS), false, tally, CSV_REFUSALS);
    let server = Server::start(&world.data());
    let tally = "0 accepted, 4 duplicates, 4 refused";
    check(&world.import("calls.csv", CSV_OPTIONS), false, tally, CSV_REFUSALS);
    assert_eq!(world.sums(&server), json!([4, 901, "0.012500002"]));
}

/// A line of NDJSON.
fn line(call_id: Option<&str>, tokens_in: i64) -> String {
    let mut line = json!({
        "provider": "openai", "model": "gpt-4o", "tokens_in": tokens_in, "tokens_out": 1,
        "cost_cents": 0.5, "occurred_at": "2023-05-01T12:00:00Z", "unknown": { "a": [] },
        "metadata": { "source": "log" }, "session_id": null,
    });
    if let (Some(call_id), Some(fields)) = (call_id, line.as_object_mut()) {
        fields.insert("call_id".to_owned(), call_id.into());
    }
    format!("{line}\n")
}

#[test]
fn importing_a_grown_ndjson_file_adds_only_the_new_lines() {
    let world = World::new();
    let mut text = line(Some("a"), 1) + &line(None, 2) + "\n" + &line(None, 2);
    world.write("calls.ndjson", &text);
    check(&world.import("calls.ndjson", &[]), true, "3 accepted, 0 duplicates, 0 refused", &[]);
    text += &line(Some("b"), 10);
    world.write("calls.ndjson", &text);
    let server = Server::start(&world.data());
    for tally in ["1 accepted, 3 duplicates, 0 refused", "0 accepted, 4 duplicates, 0 refused"] {
        check(&world.import("calls.ndjson", &[]), true, tally, &[]);
        assert_eq!(world.sums(&server), json!([4, 15, "0.02"]));
    }
}

/// One traffic request a second, so that each further batch has to wait.
const ONE_A_SECOND: (&str, &str) = ("BURSAR_PROTECTION_TRAFFIC_PER_SECOND", "1");

/// This many lines of NDJSON, and a tenant after onboarding, whose rate is limited.
fn many_lines(count: usize) -> (World, String) {
    let world = World::new();
    world.write("first.ndjson", &line(Some("first"), 1));
    check(&world.import("first.ndjson", &[]), true, "1 accepted, 0 duplicates, 0 refused", &[]);
    let lines = (0..count).map(|number| line(Some(&format!("call {number}")), 1)).collect();
    (world, lines)
}

#[test]
fn an_import_over_the_rate_waits_and_drops_nothing() {
    let (world, lines) = many_lines(2_100);
    world.write("calls.ndjson", &lines);
    let tally = "2100 accepted, 0 duplicates, 0 refused";
    check(&world.import_with("calls.ndjson", &[], &[ONE_A_SECOND]), true, tally, &[]);
    let server = Server::start_with(&world.data(), &[ONE_A_SECOND]);
    let tally = "0 accepted, 2100 duplicates, 0 refused";
    check(&world.import("calls.ndjson", &[]), true, tally, &[]);
    assert_eq!(world.sums(&server), json!([2_101, 2_101, "10.505"]));
}

#[test]
fn an_import_resends_the_throttled_records_of_a_batch() {
    let (world, lines) = many_lines(3);
    world.write("calls.ndjson", &lines);
    let server = Server::start_with(&world.data(), &[ONE_A_SECOND]);
    let hold = json!({
        "integration_id": world.integration, "call_id": "call 1", "estimated_cost_cents": 1,
        "estimated_tokens": 1,
    });
    server.request(&world.tenant, "POST", "/enforcement/reservations", &hold);
    check(&world.import("calls.ndjson", &[]), true, "3 accepted, 0 duplicates, 0 refused", &[]);
    assert_eq!(world.sums(&server), json!([4, 4, "0.02"]));
}

#[test]
fn invalid_lines_are_refused_by_their_row_number() {
    let world = World::new();
    let text = [
        "not json\n",
        &line(Some("a"), 1),
        "\n",
        "[1]\n",
        &line(Some("a"), 2),
        &line(Some("b"), -1),
        "{\"tokens_in\":1,\"tokens_out\":1}\n",
        &line(Some("c"), 1),
    ]
    .concat();
    world.write("calls.jsonl", &text);
    let refusals = [
        "row 1: is not a JSON object",
        "row 4: is not a JSON object",
        "row 5: ",
        "row 6: tokens_in must not be negative",
        "row 7: provider is required",
    ];
    let server = Server::start(&world.data());
    for tally in ["2 accepted, 0 duplicates, 5 refused", "0 accepted, 2 duplicates, 5 refused"] {
        check(&world.import("calls.jsonl", &[]), false, tally, &refusals);
        assert_eq!(world.sums(&server), json!([2, 2, "0.01"]));
    }
}

#[test]
fn a_file_without_a_valid_row_stores_nothing() {
    let world = World::new();
    world.write("calls.ndjson", &(line(Some("a"), -1) + &line(Some("b"), -2)));
    world.write("empty.csv", "provider,model,tokens_in,tokens_out\n");
    let refusals = ["row 1: tokens_in", "row 2: tokens_in"];
    let tally = "0 accepted, 0 duplicates, 2 refused";
    check(&world.import("calls.ndjson", &[]), false, tally, &refusals);
    let nothing = "0 accepted, 0 duplicates, 0 refused";
    check(&world.import("empty.csv", &[]), true, nothing, &[]);
    let server = Server::start(&world.data());
    check(&world.import("calls.ndjson", &[]), false, tally, &refusals);
    assert_eq!(world.sums(&server), json!([0, 0, "0"]));
}

#[test]
fn an_import_needs_only_an_api_key_and_an_address() {
    let world = World::new();
    world.write("calls.json", &line(Some("a"), 1));
    let server = Server::start(&world.data());
    let create = json!({ "name": "k", "scopes": ["telemetry:write"] });
    let made = server.request(&world.tenant, "POST", "/keys", &create);
    let key = made.get("secret").and_then(Value::as_str).unwrap();
    let mut import = bursar();
    import.current_dir(world.folder.path()).args(["usage", "import", "calls.json"]);
    import.args(["--url", &server.url, "--integration", &world.integration]);
    let output = import.env("BURSAR_API_KEY", key).output().unwrap();
    check(&output, true, "1 accepted, 0 duplicates, 0 refused", &[]);
    assert_eq!(world.sums(&server), json!([1, 1, "0.005"]));
}

/// Asserts that an import did not start, for this reason.
#[track_caller]
fn check_failed(output: &Output, reason: &str) {
    let blamed = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{blamed}");
    assert!(output.stdout.is_empty(), "{blamed}");
    assert!(blamed.contains(reason), "{blamed}");
}

#[test]
fn an_import_with_wrong_arguments_names_them_and_stores_nothing() {
    let world = World::new();
    world.write("calls.csv", CSV);
    world.write("calls.txt", CSV);
    let with = |more: &[&str]| world.import("calls.csv", &[CSV_OPTIONS, more].concat());
    check_failed(&world.import("missing.csv", &[]), "cannot read missing.csv");
    check_failed(&world.import("calls.txt", &[]), "--format");
    check_failed(&with(&["--map=agent_id=Agent"]), "no column Agent");
    check_failed(&with(&["--map=tokens_in=Cents"]), "tokens_in is given twice");
    check_failed(&with(&["--set=tokens=1"]), "tokens is not a field");
    check_failed(&with(&["--set=latency_ms=slow"]), "latency_ms must be a number");
    check_failed(&with(&["--set=provider=azure"]), "provider is given twice");
    let unknown = ["usage", "import", "calls.csv", "--data-dir", "data"];
    let import = |more: &[&str]| {
        let mut import = bursar();
        import.current_dir(world.folder.path()).args(unknown).args(more).output().unwrap()
    };
    check_failed(&import(&[]), "a tenant is required: give --tenant");
    check_failed(&import(&["--tenant", "nobody"]), "no tenant has the id or name \"nobody\"");
    check_failed(
        &import(&["--tenant", &world.integration]),
        "No tenant has this id. (TENANT_NOT_FOUND)",
    );
    assert_eq!(world.sums_without_server(), json!([0, 0, "0"]));
}

#[test]
fn an_unclosed_quote_fails_the_import_without_filling_memory() {
    let world = World::new();
    let text = format!("call_id,model\na,\"{}", "b,c\n".repeat(1_000_000));
    world.write("open.csv", &text);
    check_failed(&world.import("open.csv", &[]), "a row has more than 1 MiB");
}

#[test]
fn a_time_with_an_impossible_offset_is_not_read_as_local_time() {
    let world = World::new();
    let row = |at: &str| format!("{at},p,m,1,1\n");
    let text = "occurred_at,provider,model,tokens_in,tokens_out\n".to_owned()
        + &row("2023-10-29T02:30:00+25:00")
        + &row("2023-10-29 02:30:00[Europe/Berlin]")
        + &row("1960-10-29T02:30:00+01:00")
        + &row("2023-10-29 02:30:00.123456789123+01:00")
        + &row("2023-10-29 02:30:00.123456789123");
    world.write("calls.csv", &text);
    let refused = [
        "row 1: occurred_at must have an offset from UTC between -23:59 and +23:59",
        "row 2: occurred_at must have an offset from UTC, not only the name of a zone",
        "row 3: occurred_at must be in the years 1970 to 9999",
    ];
    let tally = "2 accepted, 0 duplicates, 3 refused";
    check(&world.import("calls.csv", &["--time-zone=UTC"]), false, tally, &refused);
}

#[test]
fn a_time_without_an_offset_needs_a_time_zone() {
    let world = World::new();
    let text = "occurred_at,provider,model,tokens_in,tokens_out\n2023-10-29 02:30:00,p,m,1,1\n";
    world.write("calls.csv", text);
    let refused = "0 accepted, 0 duplicates, 1 refused";
    let none = ["row 1: occurred_at has no time zone"];
    check(&world.import("calls.csv", &[]), false, refused, &none);
    // This hour occurred twice in Berlin, so it is ambiguous.
    let twice = ["row 1: occurred_at does not exist, or exists twice, in this time zone"];
    check(&world.import("calls.csv", &["--time-zone=Europe/Berlin"]), false, refused, &twice);
    let accepted = "1 accepted, 0 duplicates, 0 refused";
    check(&world.import("calls.csv", &["--time-zone=America/New_York"]), true, accepted, &[]);
    let server = Server::start(&world.data());
    let history = server.get(&world.tenant, "/telemetry/usage-history");
    let occurred_at = history.pointer("/0/occurred_at").unwrap();
    assert_eq!(occurred_at, "2023-10-29T06:30:00Z");
}
