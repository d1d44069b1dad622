//! PgBouncer in transaction mode, in front of a cluster.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use super::cluster::Cluster;
use super::programs;
use super::supervisor::Supervisor;
use super::temporary;
use super::url::Url;
use crate::waiting::within;

const START_MAX: Duration = Duration::from_secs(20);

/// A pooler that assigns a server connection to a client for one transaction at a time.
///
/// It accepts the owner and the application's role of the cluster's databases. Dropping it stops
/// it.
pub struct Bouncer {
    process: Child,
    pid_file: PathBuf,
    host: String,
    _supervisor: Supervisor,
}

impl Bouncer {
    /// Starts one with at most `pool_size` connections per role and database.
    pub fn start(cluster: &Cluster, pool_size: u32) -> Self {
        // Another program can take the port before pgbouncer does.
        for _ in 0..20 {
            match Self::start_on(temporary::free_port(), cluster, pool_size) {
                Ok(bouncer) => return bouncer,
                Err(log) if log.contains("Address already in use") => {}
                Err(log) => panic!("pgbouncer does not start:\n{log}"),
            }
        }
        panic!("every port is taken");
    }

    /// The same database through this pooler.
    pub fn through(&self, url: &str) -> String {
        Url::parse(url).with_host(&self.host).to_string()
    }

    /// Starts one on a port.
    ///
    /// # Errors
    /// The log, if it does not start.
    fn start_on(port: u16, cluster: &Cluster, pool_size: u32) -> Result<Self, String> {
        let folder = temporary::folder();
        let file = |name: &str| folder.join(name);
        let supervisor = Supervisor::start(&folder, &file("pid"), "TERM");
        let settings = settings(port, cluster, pool_size, &file("users"), &file("pid"));
        let log = File::create(file("log")).expect("a log");
        std::fs::write(file("settings"), settings).expect("a file of settings");
        std::fs::write(file("users"), users(cluster)).expect("a file of users");
        programs::chown(&folder);
        for name in ["settings", "users"] {
            programs::chown(&file(name));
        }
        let mut command = programs::unprivileged(&programs::bouncer(), &folder);
        command.arg(file("settings")).stdout(Stdio::null()).stderr(log);
        let mut process = command.spawn().expect("pgbouncer");
        let up = within(START_MAX, || {
            let ended = process.try_wait().expect("the state of a child").is_some();
            let is_up = temporary::read(&file("log")).contains("process up");
            (ended || is_up).then_some(is_up && !ended)
        });
        let host = format!("127.0.0.1:{port}");
        let bouncer = Self { process, pid_file: file("pid"), host, _supervisor: supervisor };
        if up == Some(true) { Ok(bouncer) } else { Err(temporary::read(&file("log"))) }
    }
}

impl Drop for Bouncer {
    fn drop(&mut self) {
        // Before the supervisor, which would wait for a zombie that only this process can reap.
        let _ = self.process.kill();
        let _ = self.process.wait();
        // Another process may get this pid.
        let _ = std::fs::remove_file(&self.pid_file);
    }
}

fn settings(port: u16, cluster: &Cluster, pool_size: u32, users: &Path, pid: &Path) -> String {
    let server = cluster.admin().host();
    let (host, server_port) = server.rsplit_once(':').expect("a host and a port");
    format!(
        "[databases]\n\
         * = host={host} port={server_port}\n\
         [pgbouncer]\n\
         listen_addr = 127.0.0.1\n\
         listen_port = {port}\n\
         unix_socket_dir =\n\
         auth_type = trust\n\
         auth_file = {}\n\
         pidfile = {}\n\
         pool_mode = transaction\n\
         server_login_retry = 1\n\
         default_pool_size = {pool_size}\n\
         max_client_conn = 1000\n",
        users.display(),
        pid.display()
    )
}

/// The roles that may connect. The passwords are for a server that requires them.
fn users(cluster: &Cluster) -> String {
    let roles = cluster.roles();
    let line = |role: &str| format!("\"{role}\" \"{}\"\n", roles.password);
    [&roles.owner, &roles.application].map(|role| line(role)).concat()
}
