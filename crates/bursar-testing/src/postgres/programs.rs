//! The programs of PostgreSQL, installed if they are missing, and the account that runs them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{LazyLock, Mutex, PoisonError};

/// Debian's folder of server versions.
const VERSIONS: &str = "/usr/lib/postgresql";
/// Drop-ins for the cluster that Debian creates when it installs a server.
const CREATECLUSTER: &str = "/etc/postgresql-common/createcluster.d";

static POSTGRES: LazyLock<Option<PathBuf>> =
    LazyLock::new(|| find_postgres().or_else(install_postgres));

static BOUNCER: LazyLock<Option<PathBuf>> =
    LazyLock::new(|| find_bouncer().or_else(install_bouncer));

static ACCOUNT: LazyLock<Option<Account>> = LazyLock::new(|| {
    if id(&["-u"]) != Some(0) {
        return None;
    }
    let found = ["postgres", "nobody"]
        .into_iter()
        .find_map(|name| Some(Account { uid: id(&["-u", name])?, gid: id(&["-g", name])? }));
    Some(found.expect("PostgreSQL does not run as root, and there is no user postgres or nobody"))
});

/// The path of a program of PostgreSQL's server.
pub(super) fn postgres(name: &str) -> PathBuf {
    let Some(folder) = POSTGRES.as_ref() else {
        panic!(
            "these tests need PostgreSQL 14 or newer: install the server's programs (Debian: \
             apt-get install postgresql), put initdb and pg_ctl on the PATH, or set \
             BURSAR_TEST_POSTGRES_URL to a role that may create databases and roles. As root on \
             Debian the tests install the package, which failed here."
        )
    };
    folder.join(name)
}

/// The path of the pooler.
pub(super) fn bouncer() -> PathBuf {
    let Some(program) = BOUNCER.as_ref() else {
        panic!(
            "these tests need pgbouncer: install it (Debian: apt-get install pgbouncer) and put \
             it on the PATH. As root on Debian the tests install it, which failed here."
        )
    };
    program.clone()
}

/// The account that runs the programs.
#[derive(Clone, Copy)]
struct Account {
    uid: u32,
    gid: u32,
}

/// A command in a folder, without the privileges of root.
pub(super) fn unprivileged(program: &Path, folder: &Path) -> Command {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new(program);
    command.current_dir(folder).stdin(Stdio::null()).env("LC_ALL", "C");
    // The developer's libpq settings must not apply.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PG") {
            command.env_remove(name);
        }
    }
    if let Some(Account { uid, gid }) = *ACCOUNT {
        command.uid(uid).gid(gid);
    }
    command
}

/// Gives a file or folder to the account that runs the programs.
pub(super) fn chown(path: &Path) {
    if let Some(Account { uid, gid }) = *ACCOUNT {
        std::os::unix::fs::chown(path, Some(uid), Some(gid)).expect("a folder of that user");
    }
}

/// A number from `id`; `None` if there is no such user.
fn id(arguments: &[&str]) -> Option<u32> {
    let output = Command::new("id").args(arguments).stdin(Stdio::null()).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}

fn find_postgres() -> Option<PathBuf> {
    let has_all = |folder: &PathBuf| {
        ["initdb", "pg_ctl", "postgres"].iter().all(|name| folder.join(name).is_file())
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).find(has_all);
    on_path
        .or_else(|| versions().into_iter().find(has_all))
        .or_else(|| configured().filter(has_all))
}

/// The `bin` folders of Debian's packages, the newest version first.
fn versions() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(VERSIONS).into_iter().flatten().flatten();
    let mut versions: Vec<(u32, PathBuf)> = entries
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    versions.sort();
    versions.into_iter().rev().map(|(_, folder)| folder).collect()
}

/// The folder that `pg_config` names.
fn configured() -> Option<PathBuf> {
    let output = Command::new("pg_config").arg("--bindir").stdin(Stdio::null()).output().ok()?;
    Some(PathBuf::from(String::from_utf8(output.stdout).ok()?.trim()))
}

fn find_bouncer() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    folders.map(|folder| folder.join("pgbouncer")).find(|program| program.is_file())
}

/// Installs the server without creating, and so without starting, a system cluster.
fn install_postgres() -> Option<PathBuf> {
    let drop_in = Path::new(CREATECLUSTER).join("bursar-tests.conf");
    let had_folder = Path::new(CREATECLUSTER).is_dir();
    if may_install() {
        std::fs::create_dir_all(CREATECLUSTER).ok()?;
        std::fs::write(&drop_in, "create_main_cluster = false\n").ok()?;
        install("postgresql");
        // The package may have removed them.
        let _ = std::fs::remove_file(&drop_in);
        if !had_folder {
            let _ = std::fs::remove_dir(CREATECLUSTER);
        }
    }
    find_postgres()
}

/// Installs the pooler and stops the service that its package may start.
fn install_bouncer() -> Option<PathBuf> {
    if may_install() && install("pgbouncer") {
        run("update-rc.d", &["pgbouncer", "disable"]);
        run("service", &["pgbouncer", "stop"]);
    }
    find_bouncer()
}

/// Whether this is root on Debian or a derivative.
fn may_install() -> bool {
    ACCOUNT.is_some() && Path::new("/etc/debian_version").is_file()
}

/// Installs a package, after `apt-get update` if the first try fails.
fn install(package: &str) -> bool {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let wanted =
        ["-o", "DPkg::Lock::Timeout=120", "install", "-y", "--no-install-recommends", package];
    run("apt-get", &wanted) || (run("apt-get", &["update"]) && run("apt-get", &wanted))
}

/// Whether a command succeeds. It prints the reason of a failure.
fn run(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
    match command.output() {
        Ok(output) if output.status.success() => true,
        Ok(output) => {
            eprintln!("{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
            false
        }
        Err(error) => {
            eprintln!("{program}: {error}");
            false
        }
    }
}
