//! A PostgreSQL server in a temporary folder, or the server that the environment names.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::OnceLock;

use super::programs;
use super::session;
use super::supervisor::Supervisor;
use super::temporary;
use super::url::Url;

/// The URL of an existing server, with a role that may create databases and roles.
const URL_VARIABLE: &str = "BURSAR_TEST_POSTGRES_URL";
/// Databases and roles of an earlier run on such a server are dropped at this age. No run takes
/// that long.
const STALE_AFTER_SECONDS: u64 = 3_600;
const SUPERUSER: &str = "postgres";
/// As durable as Bursar requires, and small.
const SETTINGS: [(&str, &str); 10] = [
    ("fsync", "on"),
    ("full_page_writes", "on"),
    ("synchronous_commit", "on"),
    ("listen_addresses", "127.0.0.1"),
    ("max_connections", "200"),
    ("shared_buffers", "128MB"),
    ("timezone", "UTC"),
    ("log_timezone", "UTC"),
    ("log_statement", "none"),
    ("log_line_prefix", "%m [%p] %q%u@%d "),
];
/// For a cluster in memory.
const SMALL_WAL: [(&str, &str); 2] = [("min_wal_size", "64MB"), ("max_wal_size", "256MB")];

static SHARED: OnceLock<Cluster> = OnceLock::new();

/// How a server is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Aborts all transactions, and shuts down cleanly.
    Fast,
    /// Like a crash: the next start recovers from the WAL.
    Immediate,
}

/// A server and its databases.
pub struct Cluster {
    admin: Url,
    own: Option<OwnServer>,
    roles: OnceLock<Roles>,
    pub(super) template: OnceLock<String>,
}

/// A server that this process started. Dropping it stops the server.
struct OwnServer {
    folder: PathBuf,
    port: u16,
    /// Additional environment variables of its processes.
    environment: Vec<(String, String)>,
    _supervisor: Supervisor,
}

/// The two roles that all databases of a cluster share, because a template's objects have one
/// owner.
pub(super) struct Roles {
    pub(super) owner: String,
    pub(super) application: String,
    pub(super) password: String,
}

impl Cluster {
    /// The cluster that all tests of this process share. Tests must not stop it.
    ///
    /// It is the server that `BURSAR_TEST_POSTGRES_URL` names, or else one whose files are in
    /// memory if possible.
    pub fn shared() -> &'static Self {
        SHARED.get_or_init(|| {
            let named = std::env::var(URL_VARIABLE).ok().filter(|url| !url.is_empty());
            let Some(url) = named else {
                return Self::of_own(OwnServer::create(
                    temporary::memory_folder(),
                    &SMALL_WAL,
                    &[],
                ));
            };
            let cluster = Self::of(Url::parse(&url), None);
            cluster.drop_stale();
            cluster
        })
    }

    /// A new cluster on disk, which a test may stop and start.
    pub fn new() -> Self {
        Self::with_settings(&[])
    }

    /// The same with additional settings, which override the usual ones.
    pub fn with_settings(settings: &[(&str, &str)]) -> Self {
        Self::with_environment(settings, &[])
    }

    /// The same with variables in the environment of its processes.
    pub fn with_environment(settings: &[(&str, &str)], environment: &[(&str, &str)]) -> Self {
        Self::of_own(OwnServer::create(temporary::folder(), settings, environment))
    }

    fn of_own(own: OwnServer) -> Self {
        let host = format!("127.0.0.1:{}", own.port);
        let admin = Url::parse(&format!("postgres://{SUPERUSER}@{host}/postgres"));
        Self::of(admin, Some(own))
    }

    fn of(admin: Url, own: Option<OwnServer>) -> Self {
        Self { admin, own, roles: OnceLock::new(), template: OnceLock::new() }
    }

    /// The URL of a superuser.
    pub fn admin(&self) -> &Url {
        &self.admin
    }

    /// Runs statements as the superuser, each in its own transaction.
    #[track_caller]
    pub fn run(&self, sql: &str) -> Vec<session::Row> {
        let answer = session::ask(&self.admin.to_string(), sql);
        answer.unwrap_or_else(|error| panic!("{sql}: {error:?}"))
    }

    /// Stops the server and waits until it has stopped.
    ///
    /// # Panics
    /// On a server that this process did not start.
    #[track_caller]
    pub fn stop(&self, mode: Mode) {
        self.own().stop(mode);
    }

    /// Starts a stopped server on the same port, and waits until it accepts connections.
    ///
    /// # Panics
    /// On a server that this process did not start.
    #[track_caller]
    pub fn start(&self) {
        let own = self.own();
        if let Err(log) = own.start() {
            panic!("PostgreSQL does not start again: {log}");
        }
    }

    /// Restarts the server as a standby, which is read-only.
    ///
    /// # Panics
    /// On a server that this process did not start.
    #[track_caller]
    pub fn restart_as_standby(&self) {
        self.stop(Mode::Fast);
        let signal = data(&self.own().folder).join("standby.signal");
        std::fs::write(&signal, "").expect("a file in the cluster");
        programs::chown(&signal);
        self.start();
    }

    /// The pid of the server, which is not a child of this process.
    ///
    /// # Panics
    /// On a server that this process did not start, or that is stopped.
    #[track_caller]
    pub fn pid(&self) -> u32 {
        let text = temporary::read(&pid_file(&self.own().folder));
        let first = text.lines().next().and_then(|line| line.trim().parse().ok());
        first.expect("a running server")
    }

    #[track_caller]
    fn own(&self) -> &OwnServer {
        self.own.as_ref().expect("a test must not stop the server that the environment names")
    }

    /// The roles of its databases, created on first use.
    pub(super) fn roles(&self) -> &Roles {
        self.roles.get_or_init(|| {
            let (owner, application) = (temporary::name("owner"), temporary::name("application"));
            let password = temporary::secret();
            let attributes = "login nosuperuser nobypassrls nocreatedb nocreaterole";
            for role in [&owner, &application] {
                self.run(&format!("create role {role} {attributes} password '{password}'"));
                // Without superuser one can create databases only for roles that one is a member
                // of.
                self.run(&format!("grant {role} to current_user"));
            }
            Roles { owner, application, password }
        })
    }

    /// Drops the databases and roles that earlier runs left: templates and their roles.
    fn drop_stale(&self) {
        let stale = |name: &str| {
            let rest = name.strip_prefix(temporary::PREFIX)?;
            let second: u64 = rest.split('_').next()?.parse().ok()?;
            (second + STALE_AFTER_SECONDS < temporary::unix_second()).then(|| name.to_owned())
        };
        let names = |sql: &str| -> Vec<String> {
            let rows = self.run(sql);
            rows.into_iter().flatten().flatten().filter_map(|name| stale(&name)).collect()
        };
        let admin = self.admin.to_string();
        for name in names("select datname from pg_database") {
            // Another process may drop it at the same time.
            let _ = session::ask(&admin, &format!("alter database {name} is_template false"));
            let _ = session::ask(&admin, &format!("drop database if exists {name} with (force)"));
        }
        for name in names("select rolname from pg_roles") {
            let _ = session::ask(&admin, &format!("drop role if exists {name}"));
        }
    }
}

impl OwnServer {
    fn create(folder: PathBuf, settings: &[(&str, &str)], environment: &[(&str, &str)]) -> Self {
        // SIGQUIT: an immediate shutdown, because the data is not needed.
        let supervisor = Supervisor::start(&folder, &pid_file(&folder), "QUIT");
        programs::chown(&folder);
        initialize(&folder, settings);
        let environment = environment.iter();
        let environment = environment.map(|&(name, value)| (name.to_owned(), value.to_owned()));
        let environment = environment.collect();
        let mut own = Self { folder, port: 0, environment, _supervisor: supervisor };
        // Another program can take the port before PostgreSQL does.
        for _ in 0..20 {
            own.port = temporary::free_port();
            match own.start() {
                Ok(()) => return own,
                Err(log) if log.contains("could not bind") => {
                    let _ = std::fs::remove_file(log_file(&own.folder));
                }
                Err(log) => panic!("PostgreSQL does not start: {log}"),
            }
        }
        panic!("every port is taken: {}", temporary::read(&log_file(&own.folder)));
    }

    /// Starts it on its port.
    ///
    /// # Errors
    /// The log, if it does not start.
    fn start(&self) -> Result<(), String> {
        let port = format!("-p {}", self.port);
        let log = log_file(&self.folder);
        let mut command = programs::unprivileged(&programs::postgres("pg_ctl"), &self.folder);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.args(["start", "-w", "-t", "60", "-o", &port, "-D"]).arg(data(&self.folder));
        let output = command.arg("-l").arg(&log).output().expect("pg_ctl");
        if output.status.success() {
            return Ok(());
        }
        Err(format!("{}\n{}", text(&output), temporary::read(&log)))
    }

    #[track_caller]
    fn stop(&self, mode: Mode) {
        let mode = match mode {
            Mode::Fast => "fast",
            Mode::Immediate => "immediate",
        };
        let mut command = programs::unprivileged(&programs::postgres("pg_ctl"), &self.folder);
        command.args(["stop", "-w", "-t", "60", "-m", mode, "-D"]).arg(data(&self.folder));
        let output = command.output().expect("pg_ctl");
        assert!(output.status.success(), "PostgreSQL does not stop: {}", text(&output));
    }
}

/// Creates the data folder of a new cluster.
fn initialize(folder: &Path, settings: &[(&str, &str)]) {
    let mut command = programs::unprivileged(&programs::postgres("initdb"), folder);
    // Not synced: the data need not survive the machine.
    command.args(["--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C", "--username"]);
    let output = command.arg(SUPERUSER).arg("-D").arg(data(folder)).output().expect("initdb");
    assert!(output.status.success(), "initdb: {}", text(&output));
    let file = data(folder).join("postgresql.conf");
    let mut lines = std::fs::read_to_string(&file).expect("the settings of the cluster");
    let socket = folder.to_str().expect("a path that is a text");
    let sockets = [("unix_socket_directories", socket)];
    for (name, value) in SETTINGS.iter().chain(&sockets).chain(settings) {
        // The last line with a name wins.
        lines.push_str(&format!("{name} = '{value}'\n"));
    }
    std::fs::write(&file, lines).expect("the settings of the cluster");
}

fn data(folder: &Path) -> PathBuf {
    folder.join("data")
}

fn log_file(folder: &Path) -> PathBuf {
    folder.join("log")
}

fn pid_file(folder: &Path) -> PathBuf {
    data(folder).join("postmaster.pid")
}

/// The output of a command.
fn text(output: &Output) -> String {
    let (out, error) = (&output.stdout, &output.stderr);
    format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(error))
}
