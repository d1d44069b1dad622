//! Several nodes over one database, and many clients that ask all of them at the same moment.

use std::cell::OnceCell;
use std::sync::Barrier;
use std::time::Duration;

use bursar_testing::process::folder::Folder;
use bursar_testing::process::http::Http;
use bursar_testing::process::server::Server;
use bursar_testing::process::tenant::Tenant;
use bursar_testing::waiting::within;

use super::Site;

/// How long a node may take to hear that the clock was confirmed on another.
const HEARD_MAX: Duration = Duration::from_secs(10);

/// Nodes that live, all with one clock, which begins in the middle of a month.
pub(crate) struct Fleet {
    pub(crate) nodes: Vec<Node>,
}

/// One of them.
pub(crate) struct Node {
    pub(crate) folder: Folder,
    pub(crate) server: Server,
}

impl Fleet {
    /// Starts so many nodes.
    pub(crate) fn start(site: &Site, count: usize) -> Self {
        Self::by(site, site.database.app_url(), count)
    }

    /// The same by another way to the database.
    pub(crate) fn by(site: &Site, url: &str, count: usize) -> Self {
        let clock = OnceCell::new();
        Self::prepared(site, url, count, |_, folder| {
            let clock = clock.get_or_init(|| folder.clock.path().to_string_lossy().into_owned());
            folder.set("BURSAR_TEST_CLOCK_FILE", clock);
        })
    }

    /// The same, each prepared by its number before it starts.
    pub(crate) fn prepared(
        site: &Site,
        url: &str,
        count: usize,
        prepare: impl Fn(usize, &mut Folder),
    ) -> Self {
        let start = |number| {
            let mut folder = site.node_by(url);
            prepare(number, &mut folder);
            Node { server: Server::start(&folder), folder }
        };
        Self { nodes: (0..count).map(start).collect() }
    }

    /// The node of a number, which may be larger than there are nodes.
    pub(crate) fn node(&self, number: usize) -> &Node {
        self.nodes.get(number % self.nodes.len()).expect("a node")
    }

    pub(crate) fn server(&self, number: usize) -> &Server {
        &self.node(number).server
    }

    /// Sets the clock of all of them, which stands in the place of the database's, to an instant, and
    /// says that it is right.
    #[track_caller]
    pub(crate) fn show(&self, second: u64) {
        let first = self.node(0);
        first.folder.clock.show(second);
        first.server.confirm_clock(&first.folder);
        let is_heard = |node: &Node| {
            let operator = format!("Bearer {}", node.folder.operator_token());
            let mut http = Http::new(node.server.address(), &[("Authorization", &operator)]);
            let clock = http.get("/fdr/clock").expect("an answer");
            (clock.data("state") == "steady").then_some(())
        };
        for node in &self.nodes {
            assert!(within(HEARD_MAX, || is_heard(node)).is_some(), "a node has another time");
        }
    }

    /// A tenant with integrations, each with a budget.
    pub(crate) fn tenant(&self, budgets_cents: &[u64]) -> Tenant {
        let mut tenant = Tenant::new(&self.node(0).folder, self.server(0));
        for budget_cents in budgets_cents {
            tenant.add_integration(self.server(0), *budget_cents);
        }
        tenant
    }

    /// Lets many clients, spread over all nodes, do something at the same moment; what they came
    /// to, in the order of their numbers.
    pub(crate) fn at_once<T: Send>(
        &self,
        tenant: &Tenant,
        clients: usize,
        ask: impl Fn(usize, &mut Http) -> T + Sync,
    ) -> Vec<T> {
        let start = Barrier::new(clients);
        let ask = |client: usize| {
            let mut http = tenant.client(self.server(client));
            // The connection is made, and the key is known, before the start.
            assert_eq!(http.get("/api/v1/integrations").expect("an answer").status, 200);
            start.wait();
            ask(client, &mut http)
        };
        std::thread::scope(|scope| {
            let ask = &ask;
            let threads: Vec<_> =
                (0..clients).map(|client| scope.spawn(move || ask(client))).collect();
            let ended = threads.into_iter().map(|thread| thread.join());
            ended
                .map(|told| told.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        })
    }

    /// Claims that a second count of the whole database finds what is stored, and that the audit log
    /// is whole.
    #[track_caller]
    pub(crate) fn check_verified(&self) {
        for noun in ["db", "audit"] {
            let told = self.node(0).folder.run(&[noun, "verify"]);
            assert!(told.ends_with(" 0 differences\n"), "{told}");
        }
    }

    /// Kills a node, and starts it anew; somewhere else, so far as its clients are concerned.
    pub(crate) fn kill_and_start(&mut self, number: usize) {
        let Node { folder, server } = self.nodes.remove(number);
        server.kill();
        let server = Server::start(&folder);
        self.nodes.insert(number, Node { folder, server });
    }

    /// Asks all of them to end, and expects that they do so in good order.
    #[track_caller]
    pub(crate) fn stop(self) {
        for node in self.nodes {
            node.server.stop();
        }
    }
}
