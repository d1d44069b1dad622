//! The dashboard, the alerts and the metrics agree, and promtool accepts them.

#![expect(clippy::unwrap_used, reason = "a test that cannot be arranged has failed")]
#![expect(clippy::indexing_slicing, reason = "a field that is not there fails the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use bursar_server::observe::metrics::{METRICS, MetricKind};
use serde_json::{Value, json};

use crate::support::{TestApp, record, reservation, with};

/// The path of a file in the folder `deploy`.
fn deployed(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy").join(name)
}

fn text(name: &str) -> String {
    std::fs::read_to_string(deployed(name)).unwrap()
}

/// The path of promtool, which is downloaded once if it is not installed. Without it the tests
/// fail, so that no check is skipped silently.
fn promtool() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| {
        let installed = PathBuf::from("promtool");
        if runs(Command::new(&installed).arg("--version")) {
            return installed;
        }
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("prometheus");
        let fetched = folder.join("usr/bin/promtool");
        if !runs(Command::new(&fetched).arg("--version")) {
            fetch(&folder);
        }
        assert!(
            runs(Command::new(&fetched).arg("--version")),
            "these tests need promtool: install it (apt-get install prometheus), or run them where \
             apt-get can fetch it"
        );
        fetched
    })
}

/// Downloads Debian's package and unpacks it into a folder without installing it.
fn fetch(folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    let download =
        || runs(Command::new("apt-get").args(["download", "prometheus"]).current_dir(folder));
    // The package lists may be missing; updating them needs root and may fail.
    if !download() && runs(Command::new("apt-get").arg("update")) {
        download();
    }
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            runs(Command::new("dpkg").arg("-x").arg(&path).arg(folder));
            std::fs::remove_file(&path).unwrap();
        }
    }
}

/// Whether a command runs and succeeds.
fn runs(command: &mut Command) -> bool {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Asserts that promtool accepts the input.
#[track_caller]
fn check(arguments: &[&str], input: &str) {
    let mut command = Command::new(promtool());
    command.args(arguments).current_dir(deployed("prometheus"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    let (output, failed) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{arguments:?}: {status}\n{output}\n{failed}");
}

/// The metrics of a server on which every measured event has happened.
async fn scrape() -> String {
    let app = TestApp::new();
    let tenant = app.tenant("t").await;
    let limits = json!({ "budget_limit_cents": 100, "token_limit_month": 100_000 });
    let id = tenant.integration("i", limits).await;
    let founder = tenant.founder();
    let failed = json!({
        "tokens_cache_read": 3, "tokens_cache_write": 2, "tokens_reasoning": 1,
        "error_code": "timeout",
    });
    let unpriced = json!({ "policy_result": "blocked", "cost_cents": null });
    let reserve = reservation(&id, "a");
    founder.post("/enforcement/reservations").json(&reserve).await.is(201);
    for record in [with(record(&id, "a"), failed), with(record(&id, "b"), unpriced)] {
        founder.post("/telemetry/llm-usage").json(&record).await.is(201);
    }
    founder.get("/no/such/route").await.is(404);
    app.read_store_stats().await;
    let answer = app.founder().root("/metrics").await;
    assert_eq!(answer.status.as_u16(), 200, "{}", answer.body);
    answer.body
}

#[test]
fn the_alert_rules_pass_their_tests() {
    check(&["check", "rules", "alerts.yml"], "");
    check(&["test", "rules", "alerts_test.yml"], "");
}

#[test]
fn every_alert_is_tested_and_documented() {
    let tests = text("prometheus/alerts_test.yml");
    let documents = text("../docs/operating.md");
    let alerts = text("prometheus/alerts.yml");
    let names: Vec<&str> =
        alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(names.len() >= 12, "{names:?}");
    assert_eq!(documents.matches("| `Bursar").count(), names.len(), "alerts in the documents");
    for name in names {
        assert!(documents.contains(&format!("| `{name}` |")), "docs/operating.md lacks {name}");
        let alert = format!("alertname: {name}\n");
        let expected = tests.split(&alert).skip(1).filter(|rest| {
            let until_next = rest.split("alertname:").next().unwrap_or_default();
            until_next.contains("exp_labels")
        });
        assert!(expected.count() > 0, "no test in alerts_test.yml expects {name}");
    }
}

#[test]
fn the_example_scrape_configuration_is_valid() {
    check(&["check", "config", "--syntax-only", "prometheus.yml"], "");
}

#[tokio::test]
async fn the_metrics_are_well_formed() {
    check(&["check", "metrics"], &scrape().await);
}

#[tokio::test]
async fn the_metrics_are_those_of_the_table() {
    let scraped = scrape().await;
    let types: BTreeMap<&str, &str> =
        scraped.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    let table: BTreeMap<&str, &str> =
        METRICS.iter().map(|metric| (metric.name, metric.kind.as_str())).collect();
    assert_eq!(types, table);
    for metric in METRICS {
        let help = format!("# HELP {} {}\n", metric.name, metric.help);
        assert!(scraped.contains(&help), "{help}");
        for label in metric.labels {
            let named =
                |line: &str| line.starts_with(metric.name) && line.contains(&format!("{label}=\""));
            assert!(scraped.lines().any(named), "{} has no label {label}", metric.name);
        }
    }
}

/// The words of a text that look like names of metrics.
fn names(text: &str) -> BTreeSet<&str> {
    let is_part = |part: char| part.is_ascii_alphanumeric() || part == '_';
    text.split(|part: char| !is_part(part))
        .filter(|word| word.starts_with("bursar_") || word.starts_with("process_"))
        .collect()
}

/// Whether a name is that of a metric or of a series of a histogram.
fn is_metric(name: &str) -> bool {
    METRICS.iter().any(|metric| match metric.kind {
        MetricKind::Counter | MetricKind::Gauge => metric.name == name,
        MetricKind::Histogram => ["_bucket", "_sum", "_count"]
            .iter()
            .any(|part| name.strip_suffix(part) == Some(metric.name)),
    })
}

/// The labels that an expression groups by.
fn grouped_by(expression: &str) -> BTreeSet<&str> {
    let lists = expression.split(" by (").skip(1);
    let lists = lists.filter_map(|rest| rest.split(')').next());
    lists.flat_map(|list| list.split(',').map(str::trim)).collect()
}

#[track_caller]
fn check_names(source: &str, text: &str) {
    let known: BTreeSet<&str> = METRICS
        .iter()
        .flat_map(|metric| metric.labels)
        .copied()
        // Prometheus adds the job and the instance.
        .chain(["instance", "job", "le"])
        .collect();
    let found = names(text);
    assert!(!found.is_empty(), "{source} names no metric");
    for name in found {
        assert!(is_metric(name), "{source} names {name}, which is no metric");
    }
    for label in grouped_by(text) {
        assert!(known.contains(label), "{source} groups by {label}, which is no label");
    }
}

#[test]
fn alerts_and_dashboard_name_only_existing_metrics() {
    check_names("alerts.yml", &text("prometheus/alerts.yml"));
    check_names("alerts_test.yml", &text("prometheus/alerts_test.yml"));
    check_names("bursar.json", &text("grafana/bursar.json"));
}

fn dashboard() -> Value {
    serde_json::from_str(&text("grafana/bursar.json")).unwrap()
}

/// Every expression of the dashboard, with its variables replaced by values.
fn expressions(dashboard: &Value) -> Vec<String> {
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let annotations = dashboard["annotations"]["list"].as_array().unwrap().iter();
    let written = targets.chain(annotations).map(|target| target["expr"].as_str().unwrap());
    let filled = written.map(|written| {
        written
            .replace("$__rate_interval", "5m")
            .replace("$__range", "6h")
            .replace("$tenant_id", ".*")
    });
    filled.collect()
}

#[test]
fn the_queries_of_the_dashboard_are_valid() {
    let expressions = expressions(&dashboard());
    assert!(expressions.len() >= 30, "only {} queries", expressions.len());
    let rules: Vec<Value> = expressions
        .iter()
        .enumerate()
        .map(|(at, expression)| json!({ "record": format!("query_{at}"), "expr": expression }))
        .collect();
    for expression in &expressions {
        assert!(!expression.contains('$'), "a variable without a value: {expression}");
    }
    // JSON is valid YAML.
    let rules = json!({ "groups": [{ "name": "dashboard", "rules": rules }] });
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules.yml");
    std::fs::write(&file, rules.to_string()).unwrap();
    check(&["check", "rules", file.to_str().unwrap()], "");
}

#[test]
fn the_dashboard_is_complete() {
    let dashboard = dashboard();
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let variable = |name: &str| variables.iter().find(|variable| variable["name"] == name);
    assert_eq!(variable("datasource").unwrap()["type"], "datasource");
    assert!(variable("tenant_id").is_some());
    let source = json!({ "type": "prometheus", "uid": "${datasource}" });
    let mut ids = BTreeSet::new();
    let mut cells = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title} has the id of another panel");
        let place = |side: &str| panel["gridPos"][side].as_u64().unwrap();
        assert!(place("x") + place("w") <= 24, "{title} is out of the grid");
        for x in place("x")..place("x") + place("w") {
            for y in place("y")..place("y") + place("h") {
                assert!(cells.insert((x, y)), "{title} covers another panel");
            }
        }
        if panel["type"] == "row" {
            continue;
        }
        assert!(!panel["description"].as_str().unwrap().is_empty(), "{title} is not explained");
        assert_eq!(panel["datasource"], source, "{title}");
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{title} asks nothing");
        let names: BTreeSet<&str> =
            targets.iter().map(|target| target["refId"].as_str().unwrap()).collect();
        assert_eq!(names.len(), targets.len(), "{title} has two queries of one name");
        for target in targets {
            assert_eq!(target["datasource"], source, "{title}");
            assert!(!target["expr"].as_str().unwrap().is_empty(), "{title}");
        }
    }
}
