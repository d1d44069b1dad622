//! The behaviour of hostile connections.

use std::time::Duration;

use bursar_testing::frames::{self, flag, kind};
use bursar_testing::waiting::scale;

/// The deadlines of the server in seconds, short so that the test sees them.
pub(crate) const DEADLINES: [(&str, u64); 4] = [
    ("BURSAR_SERVER_HEADER_SECONDS", 1),
    ("BURSAR_SERVER_BODY_SECONDS", 1),
    ("BURSAR_SERVER_WRITE_SECONDS", 1),
    ("BURSAR_SERVER_IDLE_SECONDS", 2),
];
/// The interval between the bytes of a slow client, and between the parts of a flood.
const SLOW_PAUSE: Duration = Duration::from_millis(100);
const FLOOD_PAUSE: Duration = Duration::from_millis(5);
/// Frames in one part of a flood, which is 20,000 a second on each connection.
const FRAMES: usize = 100;

/// A kind of hostile connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attack {
    SlowHeads,
    SlowBodies,
    SlowReaders,
    IdleConnections,
    LargeHeads,
    ManyHeaders,
    RapidResets,
    ManyStreams,
    EndlessHeads,
    Pings,
    Settings,
}

impl Attack {
    pub(crate) const ALL: [Self; 11] = [
        Self::SlowHeads,
        Self::SlowBodies,
        Self::SlowReaders,
        Self::IdleConnections,
        Self::LargeHeads,
        Self::ManyHeaders,
        Self::RapidResets,
        Self::ManyStreams,
        Self::EndlessHeads,
        Self::Pings,
        Self::Settings,
    ];

    /// The number of concurrent connections; a closed one is reopened.
    pub(crate) fn connections(self) -> usize {
        match self {
            Self::SlowHeads | Self::SlowBodies => scale(300, 1_000),
            Self::SlowReaders => scale(16, 200),
            Self::IdleConnections => 2_000,
            Self::ManyStreams => scale(5, 40),
            Self::LargeHeads | Self::ManyHeaders => scale(10, 20),
            Self::RapidResets | Self::EndlessHeads | Self::Pings | Self::Settings => scale(3, 6),
        }
    }

    /// The time after which the server must close the connection.
    pub(crate) fn deadline(self) -> Duration {
        let seconds = match self {
            Self::SlowHeads | Self::SlowBodies | Self::SlowReaders | Self::ManyStreams => 1,
            Self::IdleConnections => 2,
            // Like an idle connection, which gets GOAWAY before it is closed.
            Self::Pings | Self::Settings => 4,
            // Closed for what they send, not by a deadline.
            Self::LargeHeads | Self::ManyHeaders | Self::RapidResets | Self::EndlessHeads => 0,
        };
        Duration::from_secs(seconds)
    }

    /// The first bytes of a connection.
    pub(crate) fn first_bytes(self, bearer: &str) -> Vec<u8> {
        let get = "GET /health/live HTTP/1.1\r\nHost: a\r\n";
        match self {
            Self::SlowHeads => format!("{get}X-Slow: ").into_bytes(),
            Self::SlowBodies => format!(
                "POST /api/v1/telemetry/llm-usage HTTP/1.1\r\nHost: a\r\nAuthorization: {bearer}\r\n\
                 Content-Length: 100000\r\n\r\n"
            )
            .into_bytes(),
            Self::SlowReaders => format!(
                "GET /api/v1/telemetry/usage-history?limit=20 HTTP/1.1\r\nHost: a\r\n\
                 Authorization: {bearer}\r\n\r\n"
            )
            .repeat(8)
            .into_bytes(),
            Self::IdleConnections => Vec::new(),
            Self::LargeHeads => format!("{get}X-Large: ").into_bytes(),
            Self::ManyHeaders => get.as_bytes().to_vec(),
            Self::RapidResets | Self::Pings | Self::Settings => frames::preface(),
            Self::EndlessHeads => {
                let head = frames::head("GET", "/", &[]);
                [frames::preface(), frames::frame(kind::HEADERS, flag::END_STREAM, 1, &head)].concat()
            }
            Self::ManyStreams => {
                let path = "/api/v1/telemetry/llm-usage";
                let head = frames::head("POST", path, &[("authorization", bearer)]);
                let open = |at: u32| frames::frame(kind::HEADERS, flag::END_HEADERS, 2 * at + 1, &head);
                frames::preface().into_iter().chain((0..128_u32).flat_map(open)).collect()
            }
        }
    }

    /// The bytes after each pause; empty for a silent connection.
    pub(crate) fn next(self, step: u32) -> Vec<u8> {
        match self {
            Self::SlowHeads | Self::SlowBodies => b" ".to_vec(),
            // An empty line before a request is ignored.
            Self::SlowReaders => b"\r\n".to_vec(),
            Self::IdleConnections => Vec::new(),
            Self::LargeHeads => vec![b'a'; 16 * 1024],
            Self::ManyHeaders => b"X-Many: 1\r\n".repeat(FRAMES),
            Self::RapidResets => (0..FRAMES as u32)
                .flat_map(|at| {
                    let stream = 2 * (step * FRAMES as u32 + at) + 1;
                    let reset = frames::frame(kind::RST_STREAM, 0, stream, &8_u32.to_be_bytes());
                    [frames::get(stream, "/health/ready", &[]), reset].concat()
                })
                .collect(),
            Self::ManyStreams => {
                (0..128_u32).flat_map(|at| frames::frame(kind::DATA, 0, 2 * at + 1, b" ")).collect()
            }
            Self::EndlessHeads => frames::frame(kind::CONTINUATION, 0, 1, &[]).repeat(FRAMES),
            Self::Pings => frames::frame(kind::PING, 0, 0, &[0; 8]).repeat(FRAMES),
            Self::Settings => frames::setting(frames::INITIAL_WINDOW_SIZE, 65_535).repeat(FRAMES),
        }
    }

    /// The pause between two parts.
    pub(crate) fn pause(self) -> Duration {
        match self {
            Self::SlowHeads
            | Self::SlowBodies
            | Self::SlowReaders
            | Self::IdleConnections
            | Self::ManyStreams => SLOW_PAUSE,
            Self::LargeHeads
            | Self::ManyHeaders
            | Self::RapidResets
            | Self::EndlessHeads
            | Self::Pings
            | Self::Settings => FLOOD_PAUSE,
        }
    }

    /// Whether it reads what the server sends.
    pub(crate) fn reads(self) -> bool {
        self != Self::SlowReaders
    }
}
