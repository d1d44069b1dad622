//! Several nodes over one database, and concurrent clients on all of them.

use std::cell::OnceCell;
use std::sync::Barrier;
use std::time::Duration;

use bursar_testing::process::folder::Folder;
use bursar_testing::process::http::Http;
use bursar_testing::process::server::Server;
use bursar_testing::process::tenant::Tenant;
use bursar_testing::waiting::within;

use super::Site;

/// The maximal time until a node follows a clock that was confirmed on another.
const FOLLOWED_MAX: Duration = Duration::from_secs(10);

/// Running nodes with one clock, which starts in the middle of a month.
pub(crate) struct Fleet {
    pub(crate) nodes: Vec<Node>,
}

pub(crate) struct Node {
    pub(crate) folder: Folder,
    pub(crate) server: Server,
}

impl Fleet {
    /// Starts this many nodes.
    pub(crate) fn start(site: &Site, count: usize) -> Self {
        Self::with_settings(site, site.database.app_url(), count, &[])
    }

    /// Starts nodes with another URL of the database.
    pub(crate) fn with_url(site: &Site, url: &str, count: usize) -> Self {
        Self::with_settings(site, url, count, &[])
    }

    /// Starts nodes with these variables of their environment.
    pub(crate) fn with_settings(
        site: &Site,
        url: &str,
        count: usize,
        settings: &[(&'static str, &str)],
    ) -> Self {
        let clock = OnceCell::new();
        Self::prepared(site, url, count, |_, folder| {
            settings.iter().for_each(|(name, value)| folder.set(name, *value));
            let clock = clock.get_or_init(|| folder.clock.path().to_string_lossy().into_owned());
            folder.set("BURSAR_TEST_CLOCK_FILE", clock);
        })
    }

    /// Starts nodes whose settings a function prepares by their number.
    pub(crate) fn prepared(
        site: &Site,
        url: &str,
        count: usize,
        prepare: impl Fn(usize, &mut Folder),
    ) -> Self {
        let start = |number| {
            let mut folder = site.node_with_url(url);
            prepare(number, &mut folder);
            Node { server: Server::start(&folder), folder }
        };
        Self { nodes: (0..count).map(start).collect() }
    }

    /// A node by its number, modulo the number of nodes.
    pub(crate) fn node(&self, number: usize) -> &Node {
        self.nodes.get(number % self.nodes.len()).expect("a node")
    }

    pub(crate) fn server(&self, number: usize) -> &Server {
        &self.node(number).server
    }

    /// Sets the clock that the nodes use instead of the database's, and confirms it.
    #[track_caller]
    pub(crate) fn set_clock(&self, second: u64) {
        let first = self.node(0);
        first.folder.clock.set(second);
        first.server.confirm_clock(&first.folder);
        let is_followed = |node: &Node| {
            let clock = node.server.operator(&node.folder).get("/fdr/clock").expect("an answer");
            (clock.data("state") == "steady").then_some(())
        };
        for node in &self.nodes {
            assert!(
                within(FOLLOWED_MAX, || is_followed(node)).is_some(),
                "a node has not followed the clock"
            );
        }
    }

    /// A tenant with an integration for each budget.
    pub(crate) fn tenant(&self, budgets_cents: &[u64]) -> Tenant {
        let mut tenant = Tenant::new(&self.node(0).folder, self.server(0));
        for budget_cents in budgets_cents {
            tenant.add_integration(self.server(0), *budget_cents);
        }
        tenant
    }

    /// Runs a function concurrently in many clients, spread over all nodes; returns the results by
    /// client.
    pub(crate) fn run_concurrently<T: Send>(
        &self,
        tenant: &Tenant,
        clients: usize,
        run: impl Fn(usize, &mut Http) -> T + Sync,
    ) -> Vec<T> {
        let start = Barrier::new(clients);
        let run = |client: usize| {
            let mut http = tenant.client(self.server(client));
            // Connects and authenticates before the start.
            assert_eq!(http.get("/api/v1/integrations").expect("an answer").status, 200);
            start.wait();
            run(client, &mut http)
        };
        std::thread::scope(|scope| {
            let run = &run;
            let threads: Vec<_> =
                (0..clients).map(|client| scope.spawn(move || run(client))).collect();
            let ended = threads.into_iter().map(|thread| thread.join());
            ended
                .map(|result| result.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        })
    }

    /// Asserts that the stored totals and the audit log verify.
    #[track_caller]
    pub(crate) fn check_verified(&self) {
        for noun in ["db", "audit"] {
            let output = self.node(0).folder.run(&[noun, "verify"]);
            assert!(output.ends_with(" 0 differences\n"), "{output}");
        }
    }

    /// Kills and restarts a node, which then has another address.
    pub(crate) fn kill_and_restart(&mut self, number: usize) {
        let Node { folder, server } = self.nodes.remove(number);
        server.kill();
        let server = Server::start(&folder);
        self.nodes.insert(number, Node { folder, server });
    }

    /// Terminates all nodes and asserts that they exit with 0.
    #[track_caller]
    pub(crate) fn stop(self) {
        for node in self.nodes {
            node.server.stop();
        }
    }
}
