//! The server of an attack, with an attacking and an honest tenant.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use bursar_store::PostgresStore;
use bursar_testing::postgres::cluster::Cluster;
use bursar_testing::postgres::database::Database;
use bursar_testing::process::folder::Folder;
use bursar_testing::process::http::{Answer, Http};
use bursar_testing::process::server::Server;
use bursar_testing::process::tenant::Tenant;
use serde_json::json;

use crate::hostile::attack::{Attack, Client, Log};
use crate::hostile::request;
use crate::hostile::running_clients::{RunningClients, Tally};

const OPERATOR_TOKEN: &str = "bur_operator_of_every_server_of_this_family";
const SECRET_KEY: &str = "one secret key of thirty-two bytes or more";
/// Records of the honest tenant, so that its history has a page.
const HONEST_RECORDS: usize = 100;
/// The timeout of a preparation.
const PREPARED_WITHIN: Duration = Duration::from_secs(120);

/// The database of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Store {
    Sqlite,
    Postgres,
}

/// A server with an attacking and an honest tenant.
pub(crate) struct Scene {
    // Before what it uses, because fields are dropped in their order.
    server: Server,
    pub(crate) folder: Folder,
    _database: Option<Database>,
    pub(crate) attacker: Tenant,
    pub(crate) honest: Tenant,
}

impl Scene {
    #[track_caller]
    pub(crate) fn new(attack: &Attack) -> Self {
        let mut folder = Folder::new();
        let database = (attack.store == Store::Postgres).then(|| database(&mut folder));
        for (name, value) in attack.settings {
            folder.set(name, *value);
        }
        let server = match attack.log {
            Log::File => Server::start(&folder),
            Log::StuckPipe => {
                folder.set("BURSAR_LOG", "info");
                let mut command = folder.serve();
                command.stderr(Stdio::piped());
                Server::start_with(&folder, command)
            }
        };
        let tenant = || {
            let mut tenant = Tenant::new(&folder, &server);
            tenant.add_integration(&server, 0);
            tenant
        };
        let (attacker, honest) = (tenant(), tenant());
        let scene = Self { server, folder, _database: database, attacker, honest };
        // A first record ends the onboarding, after which the thresholds apply in full.
        scene.store_records(&scene.attacker, 1);
        scene.store_records(&scene.honest, HONEST_RECORDS);
        scene
    }

    #[track_caller]
    fn store_records(&self, tenant: &Tenant, count: usize) {
        let first = tenant.integrations.first().expect("an integration");
        let record = |at| request::record(first, &format!("first-{at}"), "gpt-4o", "");
        let records: Vec<String> = (0..count).map(record).collect();
        let body = request::batch(&records);
        let stored = tenant.client(&self.server).post_text(request::BATCH, &body);
        assert_eq!(stored.expect("an answer").status, 200);
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address().parse().expect("an address")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// The size of the data folder, without an external database.
    pub(crate) fn disk_bytes(&self) -> u64 {
        let files = std::fs::read_dir(self.folder.data()).expect("a folder");
        files.filter_map(|file| file.ok()?.metadata().ok()).map(|file| file.len()).sum()
    }

    /// The attacker's first integration.
    pub(crate) fn target(&self) -> String {
        self.attacker.integrations.first().expect("an integration").clone()
    }

    /// A client with the attacker's key.
    pub(crate) fn attacker_client(&self) -> Http {
        self.attacker.client(&self.server)
    }

    pub(crate) fn operator_bearer(&self) -> String {
        self.folder.operator_bearer()
    }

    /// Creates another tenant with an integration.
    pub(crate) fn add_tenant(&self) -> Tenant {
        let mut tenant = Tenant::new(&self.folder, &self.server);
        tenant.add_integration(&self.server, 0);
        tenant
    }

    /// Creates an enabled integration of the attacker with a budget; 0 means no limit.
    pub(crate) fn add_enabled(&mut self, budget_limit_cents: u64) -> String {
        self.attacker.add_integration(&self.server, budget_limit_cents)
    }

    /// Creates integrations of the attacker. Records need no enabled integration.
    #[track_caller]
    pub(crate) fn add_integrations(&mut self, count: usize) {
        let mut http = self.attacker_client();
        for number in 0..count {
            let create = json!({ "name": format!("more {number}"), "provider_type": "openai" });
            let id = created(&http.post("/api/v1/integrations", &create).expect("an answer"));
            self.attacker.integrations.push(id);
        }
    }

    /// Runs clients until they have no requests left.
    #[track_caller]
    pub(crate) fn run_to_end(&self, clients: Vec<Client>) -> Tally {
        let tally = RunningClients::start(clients, self.address()).finish(PREPARED_WITHIN);
        let is_unexpected = |status: &u16| !matches!(status, 200 | 201 | 503);
        assert_eq!(tally.answers.keys().find(|status| is_unexpected(status)), None, "{tally:?}");
        tally
    }

    /// Terminates the server and asserts that it exits with 0.
    #[track_caller]
    pub(crate) fn close(self) {
        self.server.stop();
    }
}

/// The id of a created object.
#[track_caller]
fn created(answer: &Answer) -> String {
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.data("id").as_str().expect("an id").to_owned()
}

/// Creates a database on the shared cluster and sets a folder up for it.
fn database(folder: &mut Folder) -> Database {
    fn migrate(owner_url: &str, app_role: &str) {
        PostgresStore::migrate(owner_url, app_role).expect("migrated");
    }
    let database = Database::migrated(Cluster::shared(), migrate);
    std::fs::create_dir(folder.data()).expect("a folder");
    // For the clients of the tests; the server itself reads the setting.
    std::fs::write(folder.file("operator-token"), OPERATOR_TOKEN).expect("a file");
    folder.set("BURSAR_DATABASE", database.app_url());
    folder.set("BURSAR_SECRET_KEY", SECRET_KEY);
    folder.set("BURSAR_OPERATOR_TOKEN", OPERATOR_TOKEN);
    database
}

/// The secret of a created key.
#[track_caller]
pub(crate) fn secret(answer: &Answer) -> String {
    answer.data("secret").as_str().map(str::to_owned).expect("a secret")
}
