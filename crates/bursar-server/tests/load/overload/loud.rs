//! Loud clients: they ask again at once for whatever was refused, so that what is acknowledged has
//! the same mix whether the server is overloaded or not.

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

use crate::line::{Answer, Line};
use crate::overload::plan::{Mix, Plan, Step};

/// Addresses that connections come from, so that no cap for one address is met.
const ADDRESSES: usize = 8;
/// The generator shares the machine with the server, which goes first.
pub(crate) const NICENESS: i32 = 5;
/// Odd answers of a client that are kept to be shown.
const ODD_MAX: usize = 3;
/// In how long all clients must have a connection.
const CONNECTED_WITHIN: Duration = Duration::from_secs(30);

/// Where the load goes to: each client speaks for one of the tenants.
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) tenants: Vec<Tenant>,
}

/// How much clients ask for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pace {
    /// The next thing when the last one is answered.
    Closed,
    /// So many records and reservations a second, of all clients together, whatever is answered.
    Open(f64),
}

/// Clients of one kind; their numbers are in their call ids.
pub(crate) struct Crowd {
    pub(crate) mix: Mix,
    pub(crate) numbers: Range<usize>,
    pub(crate) pace: Pace,
}

/// A client, and what it was told.
pub(crate) struct Loud {
    pub(crate) number: usize,
    pub(crate) mix: Mix,
    pub(crate) tenant: usize,
    pub(crate) plan: Plan,
    /// Whether the step that is next may have been made.
    pub(crate) in_doubt: bool,
    pub(crate) tally: Tally,
    request: Vec<u8>,
}

/// What came of requests.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Records and reservations in requests that were sent, acknowledged and refused.
    pub(crate) sent: u64,
    pub(crate) acknowledged: u64,
    pub(crate) refused: u64,
    /// Requests that were answered.
    pub(crate) answers: u64,
    pub(crate) settlements: Kind,
    pub(crate) admissions: Kind,
    /// Answers that no client should see.
    pub(crate) odd: Vec<String>,
}

/// What came of one kind of requests.
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

    /// The part that was not refused.
    pub(crate) fn success(&self) -> f64 {
        (self.answers - self.refused) as f64 / self.answers.max(1) as f64
    }
}

impl Tally {
    /// Of all clients together.
    pub(crate) fn of(clients: &[Loud]) -> Self {
        let mut sum = Self::default();
        for Loud { tally, .. } in clients {
            sum.sent += tally.sent;
            sum.acknowledged += tally.acknowledged;
            sum.refused += tally.refused;
            sum.answers += tally.answers;
            sum.settlements.merge(&tally.settlements);
            sum.admissions.merge(&tally.admissions);
            sum.odd.extend_from_slice(&tally.odd);
        }
        sum.settlements.took.sort_unstable();
        sum.admissions.took.sort_unstable();
        sum
    }
}

/// Lets clients of these numbers loose for a time, all on one thread, and answers what they saw.
pub(crate) fn load(target: &Arc<Target>, crowd: Crowd, time: Duration) -> Vec<Loud> {
    let target = Arc::clone(target);
    let thread = std::thread::spawn(move || {
        setpriority_process(None, NICENESS).expect("a lower priority");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(let_loose(&target, crowd, time))
    });
    thread.join().expect("no loud client fails for itself")
}

async fn let_loose(target: &Arc<Target>, crowd: Crowd, time: Duration) -> Vec<Loud> {
    let Crowd { mix, numbers, pace } = crowd;
    let every_item = match pace {
        Pace::Closed => None,
        Pace::Open(items_a_second) => {
            Some(Duration::from_secs_f64(numbers.len() as f64 / items_a_second))
        }
    };
    let (says_begin, begin) = watch::channel(None);
    let connected = Arc::new(Barrier::new(numbers.len() + 1));
    let (says_end, end) = watch::channel(false);
    let mut clients = JoinSet::new();
    for number in numbers {
        let (target, mut begin, mut end) = (Arc::clone(target), begin.clone(), end.clone());
        let mut client = Loud::new(mix, number, target.tenants.len());
        let connected = Arc::clone(&connected);
        clients.spawn(async move {
            let mut line = client.connect(target.address).await;
            connected.wait().await;
            let _ = begin.wait_for(Option::is_some).await;
            let began = begin.borrow().unwrap_or_else(Instant::now);
            tokio::select! {
                _ = end.wait_for(|ended| *ended) => {}
                () = client.shout(&target, &mut line, began, every_item) => {}
            }
            client
        });
    }
    drop(begin);
    // Connections are made before the clock runs.
    timeout(CONNECTED_WITHIN, connected.wait()).await.expect("a server that takes connections");
    says_begin.send_replace(Some(Instant::now()));
    tokio::time::sleep(time).await;
    says_end.send_replace(true);
    clients.join_all().await
}

impl Loud {
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

    async fn connect(&self, address: SocketAddr) -> Line {
        let from = Ipv4Addr::new(127, 0, 0, 2 + (self.number % ADDRESSES) as u8);
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind((from, 0).into()).expect("an address of this machine");
        let stream = socket.connect(address).await.expect("a server that accepts");
        stream.set_nodelay(true).expect("set");
        Line::new(stream)
    }

    /// One request after another, at its time or as soon as the one before is answered.
    async fn shout(
        &mut self,
        target: &Target,
        line: &mut Line,
        began: Instant,
        every_item: Option<Duration>,
    ) {
        let mut due = began;
        loop {
            tokio::time::sleep_until(due.into()).await;
            let step = self.plan.step_now();
            if let Some(every_item) = every_item {
                due += every_item * step.items() as u32;
            }
            if self.request.is_empty() {
                let tenant = target.tenants.get(self.tenant).expect("one of the tenants");
                let integration = tenant.integrations.first().expect("one");
                self.request = self.plan.request(&tenant.bearer, integration);
            }
            let asked = Instant::now();
            self.in_doubt = true;
            let sent = line.send(&self.request).await;
            self.tally.sent += if sent.is_ok() { step.items() } else { 0 };
            match line.answer().await {
                Ok(answer) => self.hear(step, &answer, asked.elapsed()),
                Err(error) => {
                    self.find_odd(format!("no answer to {step:?}: {error} ({sent:?})"));
                    *line = self.connect(target.address).await;
                }
            }
        }
    }

    fn hear(&mut self, step: Step, answer: &Answer, took: Duration) {
        self.tally.answers += 1;
        let is_refused = match answer.status {
            200 | 201 if answer.says(&acknowledgement(step)) => false,
            503 if answer.is_refusal() => true,
            _ => {
                self.find_odd(format!("{step:?} was answered {answer:?}"));
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

    fn find_odd(&mut self, what: String) {
        if self.tally.odd.len() < ODD_MAX {
            self.tally.odd.push(what);
        }
    }
}

/// How the answer to a step begins to say that it is done.
fn acknowledgement(step: Step) -> String {
    match step {
        Step::Batch { calls, .. } => {
            format!("\"accepted\":{calls},\"duplicates\":0,\"conflicts\":0,\"errors\":0")
        }
        Step::Record { .. } | Step::Settle { .. } => "\"status\":\"accepted\"".to_owned(),
        Step::Reserve { .. } => "\"result\":\"allowed\"".to_owned(),
    }
}
