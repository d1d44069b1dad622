//! The operator's commands, through a running server and on a data folder without one, with the
//! same output and exit codes.

#![expect(clippy::unwrap_used, reason = "a test that cannot be arranged has failed")]

mod audit;
mod exports;
mod foreign_text;
mod private_files;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

const BURSAR: &str = env!("CARGO_BIN_EXE_bursar");
/// The timeout of a start, which takes a fraction of a second.
const START_MAX: Duration = Duration::from_secs(30);

/// A data folder, and its server if one runs.
struct World {
    folder: TempDir,
    server: Option<Child>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop();
    }
}

impl World {
    /// A data folder without a server.
    fn without_server() -> Self {
        let mut world = Self::with_server();
        world.stop();
        world
    }

    /// A data folder with a server.
    fn with_server() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut world = Self { folder, server: None };
        world.start();
        world
    }

    fn start(&mut self) {
        let serve = self.command(&["serve", "--listen", "127.0.0.1:0"]);
        self.start_with(serve);
    }

    /// Starts a server with this command and a new log file.
    fn start_with(&mut self, mut serve: Command) {
        let log = std::fs::File::create(self.folder.path().join("log")).unwrap();
        self.server = Some(serve.stdout(Stdio::null()).stderr(log).spawn().unwrap());
        let since = Instant::now();
        while !self.data().join("server-address").exists() {
            assert!(since.elapsed() < START_MAX, "the server does not start");
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    fn stop(&mut self) {
        let Some(mut child) = self.server.take() else { return };
        let id = child.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &id]).status();
        let _ = child.wait();
    }

    /// The log of the server.
    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn url(&self) -> String {
        std::fs::read_to_string(self.data().join("server-address")).unwrap().trim().to_owned()
    }

    /// The binary with the folder, without the environment of the test.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(BURSAR);
        command.env_clear().stdin(Stdio::null()).current_dir(self.folder.path());
        command.env("BURSAR_DATA_DIR", "data").args(arguments);
        command
    }

    /// The output of a command that succeeds.
    #[track_caller]
    fn run(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        let blamed = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {blamed}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The output of a command as JSON.
    #[track_caller]
    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.run(&[arguments, &["--json"]].concat())).unwrap()
    }

    /// Asserts that a command fails with this code and these words, and prints no output.
    #[track_caller]
    fn check_failed(&self, arguments: &[&str], code: i32, words: &[&str]) {
        check_failed(&self.command(arguments).output().unwrap(), code, words);
    }
}

#[track_caller]
fn check_failed(output: &Output, code: i32, words: &[&str]) {
    let blamed = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{blamed}");
    assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
    for word in words {
        assert!(blamed.contains(word), "{word:?} is not in {blamed:?}");
    }
    assert!(!blamed.contains("panicked"), "{blamed}");
}

fn text(value: &Value, field: &str) -> String {
    value.get(field).and_then(Value::as_str).unwrap().to_owned()
}

fn first(list: &Value) -> &Value {
    list.as_array().and_then(|rows| rows.first()).unwrap()
}

const CREATE: &[&str] = &[
    "integration",
    "create",
    "main",
    "--tenant=acme",
    "--provider=openai",
    "--budget-cents=10000",
    "--token-limit=5",
    "--rate-limit=60",
    "--default-model=gpt-4o",
    "--credential-ref=env://CUS_CRED_ACME",
    "--config-json=@config.json",
    "--cost-basis=computed",
    "--enable",
];

/// Creates, changes and deletes a tenant, an integration and their keys.
#[track_caller]
fn check_lifecycle(world: &World) {
    let config = r#"{"base_url":"https://api.openai.com/v1"}"#;
    std::fs::write(world.folder.path().join("config.json"), config).unwrap();
    let tenant = world.json(&["tenant", "create", "acme"]);
    assert_eq!(world.json(&["tenant", "show", "acme"]), tenant);
    assert_eq!(world.json(&["tenant", "show", &text(&tenant, "id")]), tenant);

    let made = world.json(CREATE);
    for (field, expected) in [
        ("status", "enabled"),
        ("default_model", "gpt-4o"),
        ("credential_scheme", "env"),
        ("base_url_origin", "https://api.openai.com:443"),
        ("cost_basis", "computed"),
    ] {
        assert_eq!(text(&made, field), expected, "{made}");
    }
    let integration = |arguments: &[&str]| {
        world.json(&[&["integration"], arguments, &["--tenant", "acme"]].concat())
    };
    let limits = integration(&["limits", "main"]);
    assert_eq!(limits.get("budget_limit_cents"), Some(&10_000.into()));
    assert_eq!(limits.get("token_limit_month"), Some(&5.into()));
    assert_eq!(limits.get("rate_limit_rpm"), Some(&60.into()));
    assert_eq!(text(&integration(&["limits", "main", "--period=2026-01"]), "period"), "2026-01");
    assert_eq!(text(&integration(&["disable", "main"]), "status"), "disabled");
    assert_eq!(text(&integration(&["enable", "main"]), "status"), "enabled");
    let changed = integration(&["update", "main", "--name=other", "--clear=default-model"]);
    assert_eq!(text(&changed, "name"), "other");
    assert_eq!(changed.get("default_model"), Some(&Value::Null));
    assert_eq!(integration(&["show", &text(&made, "id")]), changed);

    let key = integration(&["key", "create", "other", "--name=sdk"]);
    assert_eq!(text(first(&integration(&["key", "list", "other"])), "id"), text(&key, "id"));
    let key = integration(&["key", "rotate", "other", &text(&key, "id"), "--overlap-seconds=0"]);
    assert_eq!(text(&key, "name"), "sdk");
    let revoked = integration(&["key", "revoke", "other", &text(&key, "id")]);
    assert!(revoked.get("revoked_at").unwrap().is_string());
    assert_eq!(integration(&["list"]).as_array().map(Vec::len), Some(1));
    assert_eq!(text(&integration(&["delete", "other", "--yes"]), "name"), "other");
    assert_eq!(integration(&["list"]).as_array().map(Vec::len), Some(0));

    let create = ["key", "create", "--tenant=acme", "--name=k", "--scope=telemetry:*,keys:write"];
    let key = world.json(&create);
    assert_eq!(key.get("scopes"), Some(&serde_json::json!(["telemetry:*", "keys:write"])));
    assert_eq!(text(first(&world.json(&["key", "list", "--tenant=acme"])), "id"), text(&key, "id"));
    let key = world.json(&["key", "rotate", "--tenant=acme", &text(&key, "id")]);
    assert_eq!(key.get("scopes"), Some(&serde_json::json!(["telemetry:*", "keys:write"])));
    let revoked = world.json(&["key", "revoke", "--tenant=acme", &text(&key, "id")]);
    assert!(revoked.get("revoked_at").unwrap().is_string());

    world.json(&["tenant", "create", "short-lived"]);
    assert_eq!(text(&world.json(&["tenant", "rename", "short-lived", "lived"]), "name"), "lived");
    for (command, state) in [
        (&["suspend", "lived"][..], "SUSPENDED"),
        (&["resume", "lived"], "ACTIVE"),
        (&["terminate", "lived", "--yes"], "TERMINATED"),
        (&["archive", "lived"], "ARCHIVED"),
    ] {
        let tenant = world.json(&[&["tenant"], command].concat());
        assert_eq!(text(&tenant, "lifecycle_state"), state);
    }
}

#[test]
fn commands_manage_everything_through_a_running_server() {
    check_lifecycle(&World::with_server());
}

#[test]
fn commands_manage_everything_without_a_server_and_the_next_server_knows_it() {
    let mut world = World::without_server();
    check_lifecycle(&world);
    world.start();
    assert_eq!(text(first(&world.json(&["tenant", "list"])), "name"), "acme");
    world.check_failed(&["tenant", "resume", "lived"], 1, &["ARCHIVED", "(INVALID_STATE)"]);
    world.check_failed(&["tenant", "terminate", "acme"], 2, &["--yes"]);
}

#[track_caller]
fn check_mistakes(world: &World) {
    for name in ["acme", "twin", "twin"] {
        world.run(&["tenant", "create", name]);
    }
    world.run(&["integration", "create", "main", "--tenant=acme", "--provider=openai"]);
    let nobody = "00000000-0000-8000-8000-000000000000";
    let mistakes: &[(&[&str], i32, &[&str])] = &[
        (&["tenant", "create", ""], 1, &["name must", "(INVALID_FIELD)"]),
        (&["tenant", "show", "nobody"], 1, &["no tenant has the id or name \"nobody\""]),
        (&["tenant", "show", nobody], 1, &["No tenant has this id.", "(TENANT_NOT_FOUND)"]),
        (&["tenant", "show", "twin"], 1, &["2 tenants have the name \"twin\"", ", "]),
        (&["tenant", "create"], 2, &["<NAME>"]),
        (&["key", "list"], 1, &["a tenant is required: give --tenant"]),
        (&["key", "list", "--tenant", nobody], 1, &["(TENANT_NOT_FOUND)"]),
        (&["key", "create", "--tenant=acme", "--name=k"], 2, &["--scope"]),
        (&["key", "create", "--tenant=acme", "--name=k", "--scope=x"], 1, &["scopes must each"]),
        (&["key", "revoke", "--tenant=acme", nobody], 1, &["(KEY_NOT_FOUND)"]),
        (&["key", "revoke", "--tenant=acme", "../tenants"], 1, &["is not an id"]),
        (&["key", "rotate", "--tenant=acme", nobody], 1, &["(KEY_NOT_FOUND)"]),
        (
            &["integration", "create", "main", "--tenant=acme", "--provider=openai"],
            1,
            &["(NAME_TAKEN)"],
        ),
        (&["integration", "show", "--tenant=acme", nobody], 1, &["(INTEGRATION_NOT_FOUND)"]),
        (&["integration", "show", "--tenant=acme", "x"], 1, &["no integration has the id or name"]),
        (&["integration", "update", "--tenant=acme", "main"], 1, &["(NOTHING_TO_CHANGE)"]),
        (&["integration", "delete", "--tenant=acme", "main"], 2, &["--yes"]),
        (
            &["integration", "update", "--tenant=acme", "main", "--config-json={"],
            1,
            &["--config-json is not JSON"],
        ),
        (&["integration", "limits", "--tenant=acme", "main", "--period=soon"], 1, &["a month"]),
        (&["integration", "show", "--tenant=twin", "main"], 1, &["2 tenants have the name"]),
    ];
    for (arguments, code, words) in mistakes {
        world.check_failed(arguments, *code, words);
    }
    assert_eq!(world.json(&["integration", "list", "--tenant=acme"]).as_array().unwrap().len(), 1);
}

#[test]
fn mistakes_get_the_same_messages_with_and_without_a_server() {
    check_mistakes(&World::with_server());
    check_mistakes(&World::without_server());
}

#[test]
fn a_new_key_is_alone_on_the_last_line() {
    let world = World::with_server();
    world.run(&["tenant", "create", "acme"]);
    let create = ["key", "create", "--tenant=acme", "--name=all", "--scope=*"];
    let stdout = world.run(&create);
    let key = stdout.lines().last().unwrap();
    assert!(key.starts_with("bur_"), "{stdout}");
    assert_eq!(stdout.matches(key).count(), 1, "{stdout}");
    // The key alone suffices, because it names its tenant.
    let list = |key: &str| {
        let mut list = world.command(&["integration", "list", "--url", &world.url()]);
        list.env("BURSAR_API_KEY", key).output().unwrap()
    };
    assert_eq!(String::from_utf8(list(key).stdout).unwrap(), "0 integrations\n");
    let wrong = list(&format!("{key}x"));
    check_failed(&wrong, 1, &["(UNAUTHENTICATED)", "BURSAR_API_KEY"]);
    assert!(!String::from_utf8_lossy(&wrong.stderr).contains(key), "the key is shown");
}

#[test]
fn a_table_is_aligned_and_has_the_rows_of_all_pages() {
    let world = World::with_server();
    // One row more than a page.
    for number in 0..101 {
        world.run(&["tenant", "create", &format!("tenant {number}")]);
    }
    let table = world.run(&["tenant", "list"]);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 103, "{table}");
    assert!(lines[0].starts_with("ID ") && lines[102] == "101 tenants", "{table}");
    let name_at = lines[0].find("NAME").unwrap();
    assert!(
        lines[1..102].iter().all(|line| line.get(name_at..).unwrap().starts_with("tenant ")),
        "{table}"
    );
    assert_eq!(world.json(&["tenant", "list"]).as_array().unwrap().len(), 101);
}

#[test]
fn commands_without_a_server_and_a_folder_fail_and_create_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let world = World { folder, server: None };
    world.check_failed(
        &["tenant", "list"],
        1,
        &["the database data/bursar.db does not exist", "bursar serve"],
    );
    world.check_failed(&["db", "backup", "copy"], 1, &["cannot open data/bursar.db"]);
    world.check_failed(&["health", "--url=http://127.0.0.1:1"], 1, &["is not ready"]);
    world.check_failed(&["tenant", "list", "--url=http://127.0.0.1:1"], 1, &["operator-token"]);
    world.check_failed(
        &["tenant", "list", "--url=http://bursar.invalid"],
        1,
        &["a credential for"],
    );
    assert!(!world.data().exists());
}

#[test]
fn a_missing_operator_token_is_reported_and_not_created() {
    let world = World::with_server();
    let token = world.data().join("operator-token");
    std::fs::remove_file(&token).unwrap();
    world.check_failed(&["tenant", "list"], 1, &["data/operator-token does not exist"]);
    std::fs::create_dir(&token).unwrap();
    world.check_failed(&["tenant", "list"], 1, &["cannot use data/operator-token"]);
    std::fs::remove_dir(&token).unwrap();
    std::fs::write(&token, "another token than the server's").unwrap();
    world.check_failed(&["tenant", "list"], 1, &["(UNAUTHENTICATED)", "data/operator-token"]);
}

#[test]
fn db_status_shows_the_schema_and_db_migrate_has_nothing_to_do() {
    let world = World { folder: tempfile::tempdir().unwrap(), server: None };
    let status = world.json(&["db", "status"]);
    assert_eq!(status.get("schema"), Some(&0.into()), "{status}");
    assert!(world.run(&["db", "migrate"]).contains("nothing to do"));
    assert!(!world.data().exists(), "the command creates no folder");

    let world = World::with_server();
    let status = world.json(&["db", "status"]);
    assert_eq!(status.get("schema"), status.get("schema_known"), "{status}");
    assert_eq!(status.get("is_usable"), Some(&true.into()), "{status}");
    std::fs::write(world.folder.path().join("text"), "no database".repeat(100)).unwrap();
    let other = ["db", "status", "--database=sqlite:text"];
    world.check_failed(&other, 1, &["cannot use text", "not a database"]);
}

#[test]
fn a_lost_secret_key_is_not_replaced_by_a_new_one() {
    let world = World::without_server();
    let key = world.data().join("secret-key");
    std::fs::remove_file(&key).unwrap();
    for arguments in [&["tenant", "list"][..], &["serve", "--listen=127.0.0.1:0"]] {
        world.check_failed(arguments, 1, &["data/secret-key is missing", "BURSAR_SECRET_KEY"]);
    }
    assert!(!key.exists());
}

#[test]
fn the_health_command_tells_whether_a_server_is_ready() {
    let mut world = World::with_server();
    assert_eq!(world.run(&["health"]), format!("{} is ready\n", world.url()));
    world.stop();
    let mut health = world.command(&["health"]);
    let output = health.env("BURSAR_LISTEN", "127.0.0.1:1").output().unwrap();
    check_failed(&output, 1, &["http://127.0.0.1:1 is not ready"]);
}

#[test]
fn config_check_shows_the_settings_without_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let world = World { folder, server: None };
    let file = "log = 'debug'\n[server]\ndrain_seconds = 3\n";
    std::fs::write(world.folder.path().join("bursar.toml"), file).unwrap();
    let check = ["--config=bursar.toml", "config", "check"];
    let mut command = world.command(&check);
    let secret = "an operator token of some length";
    let output = command.env("BURSAR_OPERATOR_TOKEN", secret).output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    for line in [
        "operator_token = (set)  # BURSAR_OPERATOR_TOKEN",
        "secret_key = (nothing)  # default",
        "log = debug  # file",
        "server.drain_seconds = 3  # file",
        "data_dir = data  # BURSAR_DATA_DIR",
    ] {
        assert!(stdout.lines().any(|found| found == line), "{line:?} is not in\n{stdout}");
    }
    assert!(!stdout.contains(secret), "{stdout}");
    let mut command = world.command(&["config", "check"]);
    let url = "postgres://role:hidden-password@db:5432/bursar?sslmode=require";
    let output = command.env("BURSAR_DATABASE", url).output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(stdout.contains("database = postgres://db:5432/bursar  # BURSAR_DATABASE"), "{stdout}");
    assert!(!stdout.contains("hidden"), "{stdout}");
    std::fs::write(world.folder.path().join("bursar.toml"), "lisen = 1").unwrap();
    world.check_failed(&check, 1, &["lisen is not a setting"]);
}

#[test]
fn a_backup_without_its_secret_key_is_not_restored() {
    let mut world = World::with_server();
    world.run(&["tenant", "create", "acme"]);
    world.run(&["db", "backup", "copy", "--with-secret-key", "--verify"]);
    world.check_failed(&["db", "backup", "copy"], 1, &["copy already exists; add --force"]);
    world.stop();
    let mode = |name: &str| {
        use std::os::unix::fs::PermissionsExt;
        world.folder.path().join(name).metadata().unwrap().permissions().mode() & 0o777
    };
    assert_eq!([mode("copy"), mode("copy.secret-key")], [0o600; 2]);

    let restore = |data: &str, more: &[&str]| {
        let mut restore = world.command(&[&["db", "restore", "copy"], more].concat());
        restore.env("BURSAR_DATA_DIR", data).output().unwrap()
    };
    check_failed(&restore("new", &[]), 1, &["new/secret-key does not exist", "--secret-key FILE"]);
    assert!(!world.folder.path().join("new/bursar.db").exists());
    let other = world.folder.path().join("other");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("secret-key"), "another secret key of 32 bytes or more").unwrap();
    check_failed(&restore("other", &[]), 1, &["belongs to another secret key"]);
    check_failed(&restore("other", &["--secret-key=copy.secret-key"]), 1, &["add --force"]);
    assert_eq!(names(&other), ["bursar.db.lock", "secret-key"]);

    for (data, more) in [("new", &[][..]), ("other", &["--force"])] {
        let output = restore(data, &[&["--secret-key=copy.secret-key"], more].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mut list = world.command(&["tenant", "list"]);
        let list = list.env("BURSAR_DATA_DIR", data).output().unwrap();
        assert!(String::from_utf8_lossy(&list.stdout).contains("acme"), "{list:?}");
        let mut verify = world.command(&["audit", "verify"]);
        let verified = verify.env("BURSAR_DATA_DIR", data).output().unwrap();
        let stdout = String::from_utf8_lossy(&verified.stdout);
        assert!(stdout.ends_with("1 rows of 1 tenants: 0 differences\n"), "{verified:?}");
    }
    assert!(names(&other).iter().any(|name| name.starts_with("secret-key.before-restore-")));
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn completion_scripts_are_valid() {
    let world = World { folder: tempfile::tempdir().unwrap(), server: None };
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = world.run(&["completions", shell]);
        assert!(script.contains("integration") && script.contains("backup"), "{shell}");
    }
    std::fs::write(world.folder.path().join("bursar.bash"), world.run(&["completions", "bash"]))
        .unwrap();
    let mut bash = Command::new("bash");
    let read = bash.args(["-n", "bursar.bash"]).current_dir(world.folder.path()).output().unwrap();
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    world.check_failed(&["completions", "cmd"], 2, &["invalid value 'cmd'"]);
}
