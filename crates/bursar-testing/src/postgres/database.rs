//! A database for one test, with an owner and a role for the application.

use std::sync::{Mutex, PoisonError};

use super::cluster::Cluster;
use super::session;
use super::temporary;
use super::url::Url;

/// Migrates an empty database, and grants the application's role its rights.
pub type Migrate = fn(owner_url: &str, application: &str);

/// The same encoding and collation for every test database, whatever the server's default.
const TEMPLATE0: &str = "template template0 encoding 'UTF8' lc_collate 'C' lc_ctype 'C'";

/// An empty or a migrated database. Dropping it drops it on the server, with its connections.
pub struct Database {
    name: String,
    admin: Url,
    server_url: String,
    owner_url: String,
    application_url: String,
    application: String,
    more_roles: Mutex<Vec<String>>,
}

impl Database {
    /// An empty database.
    pub fn new(cluster: &Cluster) -> Self {
        Self::create(cluster, temporary::name("database"), TEMPLATE0)
    }

    /// An empty database with an encoding other than UTF-8.
    pub fn encoded(cluster: &Cluster, encoding: &str) -> Self {
        Self::create(cluster, temporary::name("database"), &TEMPLATE0.replace("UTF8", encoding))
    }

    /// A copy of a template that the first call for a cluster migrates.
    ///
    /// All calls of a process must pass the same `migrate`.
    pub fn migrated(cluster: &Cluster, migrate: Migrate) -> Self {
        let template = cluster.template.get_or_init(|| {
            let template = Self::new(cluster);
            session::on_own_thread(|| migrate(&template.owner_url, &template.application));
            let name = template.name.clone();
            // A template with connections cannot be copied.
            cluster.run(&format!("alter database {name} is_template true allow_connections false"));
            // The template lives as long as the cluster.
            std::mem::forget(template);
            name
        });
        Self::create(cluster, temporary::name("clone"), &format!("template {template}"))
    }

    fn create(cluster: &Cluster, name: String, options: &str) -> Self {
        let roles = cluster.roles();
        let (owner, application) = (&roles.owner, &roles.application);
        cluster.run(&format!("create database {name} owner {owner} {options}"));
        let admin = cluster.admin().with_database(&name);
        Self {
            owner_url: admin.with_login(owner, &roles.password).to_string(),
            application_url: admin.with_login(application, &roles.password).to_string(),
            application: application.clone(),
            server_url: cluster.admin().to_string(),
            admin,
            name,
            more_roles: Mutex::new(Vec::new()),
        }
    }

    /// The URL of the database's owner, which is not a superuser.
    pub fn owner_url(&self) -> &str {
        &self.owner_url
    }

    /// The URL of the application's role: it owns nothing, and row level security applies to it.
    pub fn app_url(&self) -> &str {
        &self.application_url
    }

    /// The name of the application's role.
    pub fn app_role(&self) -> &str {
        &self.application
    }

    /// The URL of a superuser.
    pub fn admin_url(&self) -> String {
        self.admin.to_string()
    }

    /// Creates another member of the application's role, with attributes such as `bypassrls`, and
    /// returns its URL. It is dropped with the database.
    pub fn create_role(&self, attributes: &str) -> String {
        let (role, password) = (temporary::name("role"), temporary::secret());
        let application = &self.application;
        self.run(&format!(
            "create role {role} login {attributes} password '{password}' in role {application}"
        ));
        let url = self.admin.with_login(&role, &password).to_string();
        self.more_roles.lock().unwrap_or_else(PoisonError::into_inner).push(role);
        url
    }

    /// Runs statements as a superuser, and returns their rows.
    #[track_caller]
    pub fn run(&self, sql: &str) -> Vec<session::Row> {
        let answer = session::ask(&self.admin_url(), sql);
        answer.unwrap_or_else(|error| panic!("{sql}: {error:?}"))
    }

    /// The backends of its connections, except those of the superuser.
    #[track_caller]
    pub fn backends(&self) -> Vec<i32> {
        self.processes("select pid")
    }

    /// Terminates these connections, like an administrator or a failover. Returns how many.
    #[track_caller]
    pub fn terminate_backends(&self) -> usize {
        self.processes("select pid, pg_terminate_backend(pid)").len()
    }

    #[track_caller]
    fn processes(&self, select: &str) -> Vec<i32> {
        let name = &self.name;
        // From another database: an earlier connection to this one may still be closing.
        let sql = format!(
            "{select} from pg_stat_activity where datname = '{name}' and usename <> current_user"
        );
        let rows = session::ask(&self.server_url, &sql);
        let rows = rows.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        let first = |row: session::Row| row.into_iter().next().flatten()?.parse().ok();
        rows.into_iter().filter_map(first).collect()
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let roles = self.more_roles.lock().unwrap_or_else(PoisonError::into_inner);
        let drops = roles.iter().map(|role| format!("drop role if exists {role}"));
        let name = &self.name;
        let database = format!("drop database if exists {name} with (force)");
        for sql in std::iter::once(database).chain(drops) {
            // The server may be stopped.
            let _ = session::ask(&self.server_url, &sql);
        }
    }
}
