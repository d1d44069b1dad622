//! The files that ship beside the binary agree with it. The tests do not build the image or start
//! the unit; they check what both say about the binary, its settings and its version.

#![expect(clippy::unwrap_used, reason = "a test that cannot be arranged has failed")]

use std::collections::BTreeMap;
use std::process::Command;

use bursar_server::config::settings::{Config, settings};

const BURSAR: &str = env!("CARGO_BIN_EXE_bursar");
const MANIFEST: &str = include_str!("../../../../Cargo.toml");
const DOCKERFILE: &str = include_str!("../../../../Dockerfile");
const RELEASE: &str = include_str!("../../../../tools/release.sh");
const DOCKERIGNORE: &str = include_str!("../../../../.dockerignore");
const UNIT: &str = include_str!("../../../../deploy/systemd/bursar.service");
const GUIDE: &str = include_str!("../../../../docs/operating.md");
const GUARANTEES: &str = include_str!("../../../../docs/guarantees.md");
/// The documentation of the actions of the audit log.
const CONTROL: &str = concat!(
    include_str!("../../../bursar-store/src/control/change.rs"),
    include_str!("../../../bursar-store/src/control/keys.rs"),
);

/// The instructions of the Dockerfile with continuation lines joined, without comments.
fn instructions() -> Vec<(String, String)> {
    let lines = DOCKERFILE.lines().filter(|line| !line.starts_with('#'));
    let whole = lines.collect::<Vec<_>>().join("\n").replace("\\\n", " ");
    let both = whole.lines().filter_map(|line| line.split_once(' '));
    both.map(|(name, rest)| (name.to_owned(), rest.trim().to_owned())).collect()
}

fn of(name: &str) -> Vec<String> {
    instructions().into_iter().filter(|(found, _)| found == name).map(|(_, rest)| rest).collect()
}

/// The words of an instruction in exec form.
#[track_caller]
fn exec_form(text: &str) -> Vec<String> {
    let list = text.find('[').map(|at| text.get(at..).unwrap());
    serde_json::from_str(list.unwrap_or_default()).unwrap()
}

/// Asserts that the binary knows a command with its flags.
#[track_caller]
fn check_known(words: &[&str]) {
    let output = Command::new(BURSAR).args(words).arg("--help").env_clear().output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Asserts that variables are settings and have valid values.
#[track_caller]
fn check_settings(variables: &[(String, String)]) {
    assert!(!variables.is_empty());
    for (name, _) in variables {
        assert!(settings().iter().any(|setting| setting.env() == *name), "{name} is not a setting");
    }
    assert!(Config::load(None, variables.iter().cloned()).is_ok(), "{variables:?}");
}

#[test]
fn the_image_is_built_with_the_version_of_the_workspace() {
    let version = MANIFEST.split("rust-version = \"").nth(1).unwrap().split('"').next().unwrap();
    let from = of("FROM");
    let [build, symbols, image] = from.as_slice() else { panic!("{from:?}") };
    assert!(build.starts_with(&format!("rust:{version}-slim-")), "{build}");
    // Both stages need the same C library.
    assert!(build.contains("bookworm") && image.contains("debian12"), "{from:?}");
    assert_eq!(symbols, "scratch AS symbols");
    assert!(of("RUN").concat().contains("tools/release.sh /out"));
    assert!(of("COPY").contains(&"--from=build /out/bursar.debug /".to_owned()));
    assert!(RELEASE.contains("cargo build --release --locked --bin bursar"));
}

#[test]
fn the_image_runs_the_binary_as_an_unprivileged_user() {
    let binary = "/usr/local/bin/bursar";
    assert!(of("COPY").iter().any(|copy| copy.ends_with(binary)));
    let entry = exec_form(&of("ENTRYPOINT")[0]);
    assert_eq!(entry, [binary]);
    let command = exec_form(&of("CMD")[0]);
    check_known(&command.iter().map(String::as_str).collect::<Vec<_>>());
    let health = exec_form(&of("HEALTHCHECK")[0]);
    assert_eq!(health[0], binary);
    check_known(&health[1..].iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(of("STOPSIGNAL"), ["SIGTERM"]);
    assert_eq!(of("USER"), ["65532:65532"]);
}

#[test]
fn the_image_keeps_its_data_in_its_volume() {
    let pair = |text: String| {
        let (name, value) = text.split_once('=').unwrap();
        (name.to_owned(), value.to_owned())
    };
    let variables: Vec<(String, String)> = of("ENV").into_iter().map(pair).collect();
    check_settings(&variables);
    let variables: BTreeMap<String, String> = variables.into_iter().collect();
    assert_eq!(vec![variables["BURSAR_DATA_DIR"].clone()], of("VOLUME"));
    let listen = &variables["BURSAR_LISTEN"];
    assert_eq!(listen.rsplit(':').next(), of("EXPOSE").first().map(String::as_str));
    let data = of("COPY").into_iter().find(|copy| copy.ends_with(" /data")).unwrap();
    assert!(data.contains("--chown=65532:65532"), "{data}");
}

#[test]
fn the_build_context_has_everything_that_the_build_reads() {
    let ignored: Vec<&str> = DOCKERIGNORE.lines().collect();
    let members = MANIFEST.split("members = [").nth(1).unwrap().split(']').next().unwrap();
    let members = members.split(',').map(|member| member.trim().trim_matches('"'));
    for needed in members.chain([".cargo", "Cargo.toml", "Cargo.lock", "docs", "tools"]) {
        let hides = |rule: &&&str| needed.starts_with(**rule);
        assert_eq!(ignored.iter().find(hides), None, "{needed}");
    }
    for secret in ["bursar-data", "*.secret-key", ".git"] {
        assert!(ignored.contains(&secret), "{secret}");
    }
}

/// The directives of the unit in order; a name may repeat.
fn unit() -> Vec<(&'static str, &'static str)> {
    let lines = UNIT.lines().filter(|line| !line.starts_with(['#', '[']));
    lines.filter_map(|line| line.split_once('=')).collect()
}

#[track_caller]
fn unit_has(name: &str) -> &'static str {
    let found = unit().into_iter().find(|(found, _)| *found == name);
    found.unwrap_or_else(|| unreachable!("the unit lacks {name}")).1
}

#[test]
fn the_unit_starts_the_binary_with_known_settings() {
    let start: Vec<&str> = unit_has("ExecStart").split(' ').collect();
    assert_eq!(start[0], "/usr/local/bin/bursar");
    check_known(&start[1..]);
    let variables = unit().into_iter().filter(|(name, _)| *name == "Environment");
    let variables: Vec<(String, String)> = variables
        .filter_map(|(_, text)| text.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    check_settings(&variables);
    let folder = format!("/var/lib/{}", unit_has("StateDirectory"));
    assert!(variables.contains(&("BURSAR_DATA_DIR".to_owned(), folder)));
}

#[test]
fn the_unit_leaves_time_to_drain_and_files_for_every_connection() {
    let default = |key: &str| -> u64 {
        let found = settings().into_iter().find(|setting| setting.key == key).unwrap();
        found.default_text().parse().unwrap()
    };
    assert_eq!(unit_has("KillSignal"), "SIGTERM");
    let stop: u64 = unit_has("TimeoutStopSec").parse().unwrap();
    assert!(stop >= default("server.drain_seconds") + 30, "{stop}");
    let files: u64 = unit_has("LimitNOFILE").parse().unwrap();
    assert!(files >= default("server.connections_max") * 2 + 1_000, "{files}");
    assert_eq!(unit_has("Restart"), "on-failure");
}

#[test]
fn the_unit_restricts_the_server() {
    for (name, value) in [
        ("User", "bursar"),
        ("StateDirectoryMode", "0700"),
        ("UMask", "0077"),
        ("NoNewPrivileges", "yes"),
        ("CapabilityBoundingSet", ""),
        ("ProtectSystem", "strict"),
        ("ProtectHome", "yes"),
        ("PrivateTmp", "yes"),
        ("PrivateDevices", "yes"),
        ("PrivateUsers", "yes"),
        ("MemoryDenyWriteExecute", "yes"),
        ("RestrictNamespaces", "yes"),
        ("SystemCallFilter", "@system-service"),
    ] {
        assert_eq!(unit_has(name), value, "{name}");
    }
}

#[test]
fn every_command_of_the_guide_exists() {
    let is_word = |word: &&str| word.bytes().all(|letter| letter.is_ascii_lowercase());
    let mut checked = 0;
    for line in GUIDE.lines().filter(|line| line.starts_with("    ")) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let Some(at) = words.iter().rposition(|word| *word == "bursar") else { continue };
        let command: Vec<&str> =
            words.into_iter().skip(at + 1).take_while(is_word).take(2).collect();
        if !command.is_empty() {
            check_known(&command);
            checked += 1;
        }
    }
    assert!(checked >= 8, "only {checked} commands were found");
}

#[test]
fn the_guide_names_every_action_of_the_audit_log() {
    let is_word =
        |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    let is_action = |text: &&str| {
        text.split_once('.').is_some_and(|(noun, verb)| is_word(noun) && is_word(verb))
    };
    let actions: Vec<&str> = CONTROL.split('"').skip(1).step_by(2).filter(is_action).collect();
    assert!(actions.len() >= 16, "{actions:?}");
    for action in actions {
        assert!(GUIDE.contains(&format!("`{action}`")), "operating.md does not name {action}");
    }
}

#[test]
fn every_guarantee_names_tests_that_exist() {
    let crates = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    for section in GUARANTEES.split("\n## ").skip(1) {
        let (title, text) = section.split_once('\n').unwrap();
        let (_, tests) = text.split_once("\n- ").unwrap_or_else(|| panic!("{title}: no test"));
        for line in tests.split("\n- ") {
            // The list ends with the paragraph.
            let line = line.split("\n\n").next().unwrap_or_default();
            let mut names = line.split('`').skip(1).step_by(2);
            let file = names.next().unwrap_or_else(|| panic!("{title}: no file in {line}"));
            let source = std::fs::read_to_string(format!("{crates}/{file}"));
            let source = source.unwrap_or_else(|error| panic!("{title}: {file}: {error}"));
            let names: Vec<_> = names.collect();
            assert!(!names.is_empty(), "{title}: no test of {file}");
            for name in names {
                assert!(source.contains(&format!("fn {name}(")), "{title}: {file} has no {name}");
            }
        }
    }
}
