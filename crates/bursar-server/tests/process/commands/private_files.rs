//! The permissions of the files that the binary writes.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use super::{BURSAR, World};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Runs a command with the umask 0.
#[track_caller]
fn run_unmasked(world: &World, arguments: &[&str]) {
    let mut command = Command::new("sh");
    command.env_clear().env("BURSAR_DATA_DIR", "data").current_dir(world.folder.path());
    command.args(["-c", "umask 000; exec \"$0\" \"$@\"", BURSAR]).args(arguments);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn files_are_private_whatever_the_umask() {
    let world = World::with_server();
    run_unmasked(&world, &["tenant", "create", "acme"]);
    run_unmasked(&world, &["usage", "export", "--tenant=acme", "--output=usage.csv"]);
    run_unmasked(&world, &["audit", "export", "--tenant=acme", "--output=audit.ndjson"]);
    run_unmasked(&world, &["db", "backup", "store.db", "--with-secret-key"]);
    // An existing file is replaced, not overwritten with its mode.
    set_mode(&world.folder.path().join("usage.csv"), 0o644);
    run_unmasked(&world, &["usage", "export", "--tenant=acme", "--output=usage.csv", "--force"]);
    run_unmasked(
        &world,
        &["db", "restore", "store.db", "--data-dir=other", "--secret-key=store.db.secret-key"],
    );
    let folder = |name: &str| {
        let found = fs::read_dir(world.folder.path().join(name)).unwrap();
        found.map(|file| file.unwrap().path()).collect::<Vec<_>>()
    };
    let files = [folder("."), folder("data"), folder("other")].concat();
    for name in ["usage.csv", "audit.ndjson", "store.db", "store.db.secret-key", "bursar.db.lock"] {
        assert!(files.iter().any(|file| file.ends_with(name)), "{name} is not in {files:?}");
    }
    for file in files.into_iter().filter(|file| !file.ends_with("log")) {
        let expected = if file.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode(&file), expected, "{}", file.display());
    }
}

#[test]
fn a_new_data_folder_is_private_without_a_umask() {
    let mut world = World::without_server();
    fs::remove_dir_all(world.data()).unwrap();
    let mut serve = Command::new("sh");
    serve.env_clear().env("BURSAR_DATA_DIR", "data").current_dir(world.folder.path());
    serve.args(["-c", "umask 000; exec \"$0\" dev --listen 127.0.0.1:0", BURSAR]);
    world.start_with(serve);
    assert_eq!(mode(&world.data()), 0o700);
    for file in fs::read_dir(world.data()).unwrap() {
        let path = file.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
    assert!(world.data().join("dev.json").exists());
    assert!(!world.log().contains("chmod"), "{}", world.log());
}

#[test]
fn a_readable_data_folder_is_a_warning_with_the_chmod_that_fixes_it() {
    let mut world = World::without_server();
    set_mode(&world.data(), 0o755);
    for name in ["bursar.db", "secret-key", "operator-token"] {
        set_mode(&world.data().join(name), 0o640);
    }
    world.start();
    let expected = "chmod go-rwx data data/operator-token data/secret-key data/bursar.db";
    let log = world.log();
    assert_eq!(log.lines().filter(|line| line.contains("chmod")).count(), 1, "{log}");
    assert!(log.contains("WARN") && log.contains(expected), "{log}");
    // The command ends the warning.
    let command = log.split("command=").nth(1).unwrap().lines().next().unwrap();
    let mut sh = Command::new("sh");
    sh.args(["-c", command]).current_dir(world.folder.path());
    assert!(sh.status().unwrap().success(), "{command}");
    world.stop();
    world.start();
    assert!(!world.log().contains("chmod"), "{}", world.log());
}

#[test]
fn an_operator_token_in_another_form_is_accepted_with_a_warning() {
    let mut world = World::without_server();
    let made = fs::read_to_string(world.data().join("operator-token")).unwrap();
    assert!(made.starts_with("bur_operator_"), "another form");
    world.start();
    assert!(
        !world.log().contains("the operator's token does not have the form"),
        "{}",
        world.log()
    );
    world.stop();
    fs::write(world.data().join("operator-token"), "a word that nobody knows\n").unwrap();
    world.start();
    let log = world.log();
    let warned =
        log.lines().filter(|line| line.contains("the operator's token does not have the form"));
    assert_eq!(warned.count(), 1, "{log}");
    assert!(log.contains("bur_operator_$(openssl rand -hex 24)"), "{log}");
    assert!(!log.contains("nobody knows"), "{log}");
    assert_eq!(world.run(&["tenant", "list"]), "0 tenants\n");
}
