//! A database of a test's own, with an owner and a role for the application.

use std::sync::{Mutex, PoisonError};

use super::cluster::Cluster;
use super::place;
use super::session;
use super::url::Url;

/// Brings an empty database up to date, and gives the application's role what it needs.
pub type Migrate = fn(owner_url: &str, application: &str);

/// Sorts and compares as every other test database does, whatever the server's default.
const PLAIN: &str = "template template0 encoding 'UTF8' lc_collate 'C' lc_ctype 'C'";

/// An empty or a migrated database. Dropping it drops it on the server, with whoever is connected.
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
    /// An empty one.
    pub fn new(cluster: &Cluster) -> Self {
        Self::create(cluster, place::name("database"), PLAIN)
    }

    /// An empty one whose texts are stored in another encoding than UTF-8.
    pub fn encoded(cluster: &Cluster, encoding: &str) -> Self {
        Self::create(cluster, place::name("database"), &PLAIN.replace("UTF8", encoding))
    }

    /// A copy of one that was migrated once in this process.
    ///
    /// Only the first call of a cluster migrates; it is for one program with one schema.
    pub fn migrated(cluster: &Cluster, migrate: Migrate) -> Self {
        let template = cluster.template.get_or_init(|| {
            let template = Self::new(cluster);
            session::apart(|| migrate(&template.owner_url, &template.application));
            let name = template.name.clone();
            // Nobody can connect any more, so that nobody stands in the way of a copy.
            cluster.run(&format!("alter database {name} is_template true allow_connections false"));
            // It stays as long as the cluster.
            std::mem::forget(template);
            name
        });
        Self::create(cluster, place::name("clone"), &format!("template {template}"))
    }

    fn create(cluster: &Cluster, name: String, made_of: &str) -> Self {
        let roles = cluster.roles();
        let (owner, application) = (&roles.owner, &roles.application);
        cluster.run(&format!("create database {name} owner {owner} {made_of}"));
        let admin = cluster.admin().to(&name);
        Self {
            owner_url: admin.of(owner, &roles.password).to_string(),
            application_url: admin.of(application, &roles.password).to_string(),
            application: application.clone(),
            server_url: cluster.admin().to_string(),
            admin,
            name,
            more_roles: Mutex::new(Vec::new()),
        }
    }

    /// Where the owner of the database comes in. It is no superuser.
    pub fn owner_url(&self) -> &str {
        &self.owner_url
    }

    /// Where the application's role comes in: it owns nothing, and row level security binds it.
    pub fn app_url(&self) -> &str {
        &self.application_url
    }

    /// The name of the application's role.
    pub fn app_role(&self) -> &str {
        &self.application
    }

    /// Where a superuser comes in.
    pub fn admin_url(&self) -> String {
        self.admin.to_string()
    }

    /// Another role with these attributes, as `bypassrls`, that is a member of the application's,
    /// and where it comes in. It goes with the database.
    pub fn role(&self, attributes: &str) -> String {
        let (role, password) = (place::name("role"), place::secret());
        let application = &self.application;
        self.run(&format!(
            "create role {role} login {attributes} password '{password}' in role {application}"
        ));
        let url = self.admin.of(&role, &password).to_string();
        self.more_roles.lock().unwrap_or_else(PoisonError::into_inner).push(role);
        url
    }

    /// Runs statements as a superuser, and answers their rows.
    #[track_caller]
    pub fn run(&self, sql: &str) -> Vec<session::Row> {
        let answer = session::ask(&self.admin_url(), sql);
        answer.unwrap_or_else(|error| panic!("{sql}: {error:?}"))
    }

    /// The processes that serve connections to it, but those of a superuser.
    #[track_caller]
    pub fn backends(&self) -> Vec<i32> {
        self.processes("select pid")
    }

    /// Ends these connections, as an administrator or a failover does, and answers how many.
    #[track_caller]
    pub fn terminate_backends(&self) -> usize {
        self.processes("select pid, pg_terminate_backend(pid)").len()
    }

    #[track_caller]
    fn processes(&self, select: &str) -> Vec<i32> {
        let name = &self.name;
        // A connection that asked here before may take a moment to go.
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
            // A server that is stopped takes everything with it.
            let _ = session::ask(&self.server_url, &sql);
        }
    }
}
