//! A PostgreSQL server in a temporary folder, or the one that the environment names.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::OnceLock;

use super::place;
use super::programs;
use super::session;
use super::supervisor::Supervisor;
use super::url::Url;

/// Names a server to use instead of one's own: a role that may create databases and roles.
const URL_VARIABLE: &str = "BURSAR_TEST_POSTGRES_URL";
/// What another run left on such a server goes after this long. No run takes that long.
const STALE_AFTER_SECONDS: u64 = 3_600;
const SUPERUSER: &str = "postgres";
/// As durable as a server must be that Bursar accepts, and small.
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
/// Where the log may lie in memory.
const LITTLE_LOG: [(&str, &str); 2] = [("min_wal_size", "64MB"), ("max_wal_size", "256MB")];

static SHARED: OnceLock<Cluster> = OnceLock::new();

/// How a server is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Ends every transaction, writes everything out and stops in good order.
    Fast,
    /// As a crash: the next start recovers from the log.
    Immediate,
}

/// A server with everything in it.
pub struct Cluster {
    admin: Url,
    own: Option<Own>,
    roles: OnceLock<Roles>,
    pub(super) template: OnceLock<String>,
}

/// What there is of a server that was made here. Dropping it stops the server.
struct Own {
    folder: PathBuf,
    port: u16,
    /// What its programs find in their environment besides.
    environment: Vec<(String, String)>,
    _supervisor: Supervisor,
}

/// Two roles that databases of a cluster share: a template's objects belong to one owner.
pub(super) struct Roles {
    pub(super) owner: String,
    pub(super) application: String,
    pub(super) password: String,
}

impl Cluster {
    /// The one of this process, for tests that do nothing to the server itself.
    ///
    /// It is the server that `BURSAR_TEST_POSTGRES_URL` names, if it is set; else one that lies in
    /// memory where it can. What a disk does is for a cluster of one's own.
    pub fn shared() -> &'static Self {
        SHARED.get_or_init(|| {
            let named = std::env::var(URL_VARIABLE).ok().filter(|url| !url.is_empty());
            let Some(url) = named else {
                return Self::of_own(Own::create(place::quick_folder(), &LITTLE_LOG, &[]));
            };
            let cluster = Self::of(Url::parse(&url), None);
            cluster.drop_stale();
            cluster
        })
    }

    /// One of its own on disk, which a test may stop and start.
    pub fn new() -> Self {
        Self::with(&[])
    }

    /// The same with settings that replace or follow the usual ones.
    pub fn with(settings: &[(&str, &str)]) -> Self {
        Self::surrounded(settings, &[])
    }

    /// The same with variables in the environment of its processes.
    pub fn surrounded(settings: &[(&str, &str)], environment: &[(&str, &str)]) -> Self {
        Self::of_own(Own::create(place::folder(), settings, environment))
    }

    fn of_own(own: Own) -> Self {
        let host = format!("127.0.0.1:{}", own.port);
        let admin = Url::parse(&format!("postgres://{SUPERUSER}@{host}/postgres"));
        Self::of(admin, Some(own))
    }

    fn of(admin: Url, own: Option<Own>) -> Self {
        Self { admin, own, roles: OnceLock::new(), template: OnceLock::new() }
    }

    /// Where a role that may do everything comes in.
    pub fn admin(&self) -> &Url {
        &self.admin
    }

    /// Runs statements as that role, each in a transaction of its own.
    #[track_caller]
    pub fn run(&self, sql: &str) -> Vec<session::Row> {
        let answer = session::ask(&self.admin.to_string(), sql);
        answer.unwrap_or_else(|error| panic!("{sql}: {error:?}"))
    }

    /// Stops the server and waits for its end.
    ///
    /// # Panics
    /// On a server that was not made here.
    #[track_caller]
    pub fn stop(&self, mode: Mode) {
        self.own().stop(mode);
    }

    /// Starts a stopped server on the port it had, and waits until it answers.
    ///
    /// # Panics
    /// On a server that was not made here.
    #[track_caller]
    pub fn start(&self) {
        let own = self.own();
        if let Err(blamed) = own.start() {
            panic!("PostgreSQL does not start again: {blamed}");
        }
    }

    /// Starts a running server again as one that only follows another: it can be read, not written.
    ///
    /// # Panics
    /// On a server that was not made here.
    #[track_caller]
    pub fn follow(&self) {
        self.stop(Mode::Fast);
        let signal = data(&self.own().folder).join("standby.signal");
        std::fs::write(&signal, "").expect("a file in the cluster");
        programs::give(&signal);
        self.start();
    }

    /// The process of the server, which is not a child of this one.
    ///
    /// # Panics
    /// On a server that was not made here, or that does not run.
    #[track_caller]
    pub fn pid(&self) -> u32 {
        let text = place::read(&pid_file(&self.own().folder));
        let first = text.lines().next().and_then(|line| line.trim().parse().ok());
        first.expect("a server that runs")
    }

    #[track_caller]
    fn own(&self) -> &Own {
        self.own.as_ref().expect("a server that the environment names is not for the test to stop")
    }

    /// The roles of its databases, made when they are first asked for.
    pub(super) fn roles(&self) -> &Roles {
        self.roles.get_or_init(|| {
            let (owner, application) = (place::name("owner"), place::name("application"));
            let password = place::secret();
            let attributes = "login nosuperuser nobypassrls nocreatedb nocreaterole";
            for role in [&owner, &application] {
                self.run(&format!("create role {role} {attributes} password '{password}'"));
                // Who is no superuser makes databases only for roles that it is a member of.
                self.run(&format!("grant {role} to current_user"));
            }
            Roles { owner, application, password }
        })
    }

    /// Drops what another run could not drop: the template and the roles of its process.
    fn drop_stale(&self) {
        let stale = |name: &str| {
            let rest = name.strip_prefix(place::PREFIX)?;
            let second: u64 = rest.split('_').next()?.parse().ok()?;
            (second + STALE_AFTER_SECONDS < place::unix_second()).then(|| name.to_owned())
        };
        let names = |sql: &str| -> Vec<String> {
            let rows = self.run(sql);
            rows.into_iter().flatten().flatten().filter_map(|name| stale(&name)).collect()
        };
        let admin = self.admin.to_string();
        for name in names("select datname from pg_database") {
            // Another process may drop it at this moment.
            let _ = session::ask(&admin, &format!("alter database {name} is_template false"));
            let _ = session::ask(&admin, &format!("drop database if exists {name} with (force)"));
        }
        for name in names("select rolname from pg_roles") {
            let _ = session::ask(&admin, &format!("drop role if exists {name}"));
        }
    }
}

impl Own {
    fn create(folder: PathBuf, settings: &[(&str, &str)], environment: &[(&str, &str)]) -> Self {
        // Nothing in it is wanted any more, so it ends without writing everything out: QUIT.
        let supervisor = Supervisor::start(&folder, &pid_file(&folder), "QUIT");
        programs::give(&folder);
        initialize(&folder, settings);
        let environment = environment.iter();
        let environment = environment.map(|&(name, value)| (name.to_owned(), value.to_owned()));
        let environment = environment.collect();
        let mut own = Self { folder, port: 0, environment, _supervisor: supervisor };
        // Another program can take a port between the look at it and the start.
        for _ in 0..20 {
            own.port = place::free_port();
            match own.start() {
                Ok(()) => return own,
                Err(blamed) if blamed.contains("could not bind") => {
                    let _ = std::fs::remove_file(log(&own.folder));
                }
                Err(blamed) => panic!("PostgreSQL does not start: {blamed}"),
            }
        }
        panic!("every port is taken: {}", place::read(&log(&own.folder)));
    }

    /// Starts it on its port; else answers what it wrote to its log.
    fn start(&self) -> Result<(), String> {
        let port = format!("-p {}", self.port);
        let log = log(&self.folder);
        let mut command = programs::unprivileged(&programs::postgres("pg_ctl"), &self.folder);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.args(["start", "-w", "-t", "60", "-o", &port, "-D"]).arg(data(&self.folder));
        let output = command.arg("-l").arg(&log).output().expect("pg_ctl");
        if output.status.success() {
            return Ok(());
        }
        Err(format!("{}\n{}", text(&output), place::read(&log)))
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

/// Makes the data folder of a new cluster.
fn initialize(folder: &Path, settings: &[(&str, &str)]) {
    let mut command = programs::unprivileged(&programs::postgres("initdb"), folder);
    // Not synced: a machine that goes down takes the test with it.
    command.args(["--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C", "--username"]);
    let output = command.arg(SUPERUSER).arg("-D").arg(data(folder)).output().expect("initdb");
    assert!(output.status.success(), "initdb: {}", text(&output));
    let file = data(folder).join("postgresql.conf");
    let mut lines = std::fs::read_to_string(&file).expect("the settings of the cluster");
    let socket = folder.to_str().expect("a path that is a text");
    let sockets = [("unix_socket_directories", socket)];
    for (name, value) in SETTINGS.iter().chain(&sockets).chain(settings) {
        // The last line of a name counts.
        lines.push_str(&format!("{name} = '{value}'\n"));
    }
    std::fs::write(&file, lines).expect("the settings of the cluster");
}

fn data(folder: &Path) -> PathBuf {
    folder.join("data")
}

fn log(folder: &Path) -> PathBuf {
    folder.join("log")
}

fn pid_file(folder: &Path) -> PathBuf {
    data(folder).join("postmaster.pid")
}

/// What a command printed.
fn text(output: &Output) -> String {
    let (out, error) = (&output.stdout, &output.stderr);
    format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(error))
}
