//! Load clients. They repeat refused requests at once, so that the acknowledged requests have the
//! same mix with and without overload.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bursar_testing::process::tenant::Tenant;
use rustix::process::setpriority_process;
use tokio::net::TcpSocket;
use tokio::sync::{Barrier, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::connection::{Connection, Response};
use crate::overload::plan::{Mix, Plan, Step};

/// Source addresses, so that the limit for one address does not apply.
const ADDRESSES: usize = 8;
/// The server has priority on the machine over the load generator.
pub(crate) const NICENESS: i32 = 5;
/// Unexpected responses of a client that are kept.
const UNEXPECTED_MAX: usize = 3;
/// The timeout of connecting all clients.
const CONNECTED_WITHIN: Duration = Duration::from_secs(30);

/// The server and the tenants of the load; each client belongs to one of them.
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) tenants: Vec<Tenant>,
}

/// The rate of requests.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pace {
    /// The next request after the last response.
    Closed,
    /// This many records and reservations a second, of all clients together, independent of
    /// responses.
    Open(f64),
}

/// Clients with the same mix and pace. Their numbers are in their call ids.
pub(crate) struct Crowd {
    pub(crate) mix: Mix,
    pub(crate) numbers: Range<usize>,
    pub(crate) pace: Pace,
}

/// A client with its progress and counts.
pub(crate) struct LoadClient {
    pub(crate) number: usize,
    pub(crate) mix: Mix,
    pub(crate) tenant: usize,
    pub(crate) plan: Plan,
    /// Whether the current step may be stored although it was not acknowledged.
    pub(crate) in_doubt: bool,
    pub(crate) tally: Tally,
    request: Vec<u8>,
}

/// Counts of requests.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Records and reservations that were sent, acknowledged and refused.
    pub(crate) sent: u64,
    pub(crate) acknowledged: u64,
    pub(crate) refused: u64,
    /// Responses.
    pub(crate) answers: u64,
    pub(crate) settlements: Kind,
    pub(crate) admissions: Kind,
    /// Responses that no client should get.
    pub(crate) unexpected: Vec<String>,
}

/// Counts and latencies of one kind of request.
#[derive(Debug, Default)]
pub(crate) struct Kind {
    pub(crate) answers: u64,
    pub(crate) refused: u64,
    pub(crate) took: Vec<Duration>,
}

impl Kind {
    fn count(&mut self, is_refused: bool, took: Duration) {
        self.answers += 1;
        self.refused += u64::from(is_refused);
        if !is_refused {
            self.took.push(took);
        }
    }

    fn merge(&mut self, other: &Self) {
        self.answers += other.answers;
        self.refused += other.refused;
        self.took.extend_from_slice(&other.took);
    }

    /// The fraction of responses that are no refusals.
    pub(crate) fn success(&self) -> f64 {
        (self.answers - self.refused) as f64 / self.answers.max(1) as f64
    }
}

impl Tally {
    /// The sum over clients.
    pub(crate) fn of(clients: &[LoadClient]) -> Self {
        let mut sum = Self::default();
        for LoadClient { tally, .. } in clients {
            sum.sent += tally.sent;
            sum.acknowledged += tally.acknowledged;
            sum.refused += tally.refused;
            sum.answers += tally.answers;
            sum.settlements.merge(&tally.settlements);
            sum.admissions.merge(&tally.admissions);
            sum.unexpected.extend_from_slice(&tally.unexpected);
        }
        sum.settlements.took.sort_unstable();
        sum.admissions.took.sort_unstable();
        sum
    }
}

/// Runs clients for a time, all on one thread.
pub(crate) fn run_load(target: &Arc<Target>, crowd: Crowd, time: Duration) -> Vec<LoadClient> {
    let target = Arc::clone(target);
    let thread = std::thread::spawn(move || {
        setpriority_process(None, NICENESS).expect("a lower priority");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(run_clients(&target, crowd, time))
    });
    thread.join().expect("no client panicked")
}

async fn run_clients(target: &Arc<Target>, crowd: Crowd, time: Duration) -> Vec<LoadClient> {
    let Crowd { mix, numbers, pace } = crowd;
    let every_item = match pace {
        Pace::Closed => None,
        Pace::Open(items_a_second) => {
            Some(Duration::from_secs_f64(numbers.len() as f64 / items_a_second))
        }
    };
    let (start, started) = watch::channel(None);
    let connected = Arc::new(Barrier::new(numbers.len() + 1));
    let (stop, end) = watch::channel(false);
    let mut clients = JoinSet::new();
    for number in numbers {
        let (target, mut started, mut end) = (Arc::clone(target), started.clone(), end.clone());
        let mut client = LoadClient::new(mix, number, target.tenants.len());
        let connected = Arc::clone(&connected);
        clients.spawn(async move {
            let mut connection = client.connect(target.address).await;
            connected.wait().await;
            let _ = started.wait_for(Option::is_some).await;
            let began = started.borrow().unwrap_or_else(Instant::now);
            tokio::select! {
                _ = end.wait_for(|ended| *ended) => {}
                () = client.send_requests(&target, &mut connection, began, every_item) => {}
            }
            client
        });
    }
    drop(started);
    // All clients connect before the time starts.
    timeout(CONNECTED_WITHIN, connected.wait()).await.expect("a server that accepts connections");
    start.send_replace(Some(Instant::now()));
    tokio::time::sleep(time).await;
    stop.send_replace(true);
    clients.join_all().await
}

impl LoadClient {
    fn new(mix: Mix, number: usize, tenants: usize) -> Self {
        Self {
            number,
            mix,
            tenant: number % tenants,
            plan: Plan::new(mix, number),
            in_doubt: false,
            tally: Tally::default(),
            request: Vec::new(),
        }
    }

    async fn connect(&self, address: SocketAddr) -> Connection {
        let from = Ipv4Addr::new(127, 0, 0, 2 + (self.number % ADDRESSES) as u8);
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind((from, 0).into()).expect("an address of this machine");
        let stream = socket.connect(address).await.expect("a server that accepts");
        stream.set_nodelay(true).expect("set");
        Connection::new(stream)
    }

    /// Sends requests, each at its time or after the previous response.
    async fn send_requests(
        &mut self,
        target: &Target,
        connection: &mut Connection,
        began: Instant,
        every_item: Option<Duration>,
    ) {
        let mut due = began;
        loop {
            tokio::time::sleep_until(due.into()).await;
            let step = self.plan.current_step();
            if let Some(every_item) = every_item {
                due += every_item * step.items() as u32;
            }
            if self.request.is_empty() {
                let tenant = target.tenants.get(self.tenant).expect("one of the tenants");
                let integration = tenant.integrations.first().expect("one");
                self.request = self.plan.request(&tenant.bearer, integration);
            }
            let sent_at = Instant::now();
            self.in_doubt = true;
            let sent = connection.send(&self.request).await;
            self.tally.sent += if sent.is_ok() { step.items() } else { 0 };
            match connection.response().await {
                Ok(answer) => self.count(step, &answer, sent_at.elapsed()),
                Err(error) => {
                    self.add_unexpected(format!("no response to {step:?}: {error} ({sent:?})"));
                    *connection = self.connect(target.address).await;
                }
            }
        }
    }

    fn count(&mut self, step: Step, answer: &Response, took: Duration) {
        self.tally.answers += 1;
        let is_refused = match answer.status {
            200 | 201 if answer.contains(&acknowledgement(step)) => false,
            503 if answer.is_overloaded() => true,
            _ => {
                self.add_unexpected(format!("{step:?} got {answer:?}"));
                return;
            }
        };
        match step {
            Step::Settle { .. } => self.tally.settlements.count(is_refused, took),
            Step::Reserve { .. } => self.tally.admissions.count(is_refused, took),
            Step::Batch { .. } | Step::Record { .. } => {}
        }
        self.in_doubt = false;
        if is_refused {
            self.tally.refused += step.items();
            return;
        }
        self.tally.acknowledged += step.items();
        self.plan.advance();
        self.request.clear();
    }

    fn add_unexpected(&mut self, what: String) {
        if self.tally.unexpected.len() < UNEXPECTED_MAX {
            self.tally.unexpected.push(what);
        }
    }
}

/// The text in the response that acknowledges a step.
fn acknowledgement(step: Step) -> String {
    match step {
        Step::Batch { calls, .. } => {
            format!("\"accepted\":{calls},\"duplicates\":0,\"conflicts\":0,\"errors\":0")
        }
        Step::Record { .. } | Step::Settle { .. } => "\"status\":\"accepted\"".to_owned(),
        Step::Reserve { .. } => "\"result\":\"allowed\"".to_owned(),
    }
}
