//! What hostile clients do.

use std::time::Duration;

use bursar_testing::frames::{self, flag, kind};
use bursar_testing::waiting::scale;

/// The server's deadlines in seconds, short so that cuts can be seen.
pub(crate) const DEADLINES: [(&str, u64); 4] = [
    ("BURSAR_SERVER_HEADER_SECONDS", 1),
    ("BURSAR_SERVER_BODY_SECONDS", 1),
    ("BURSAR_SERVER_WRITE_SECONDS", 1),
    ("BURSAR_SERVER_IDLE_SECONDS", 2),
];
/// How often a slow client sends a byte, and a flooding one a part of its flood.
const SLOWLY: Duration = Duration::from_millis(100);
const QUICKLY: Duration = Duration::from_millis(5);
/// Frames in one part of a flood: 20,000 a second on each connection.
const FRAMES: usize = 100;

/// One way to be hostile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attack {
    SlowHeads,
    SlowBodies,
    SlowReaders,
    IdleConnections,
    LargeHeads,
    ManyHeaders,
    RequestsTakenBack,
    ManyStreams,
    EndlessHeads,
    Questions,
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
        Self::RequestsTakenBack,
        Self::ManyStreams,
        Self::EndlessHeads,
        Self::Questions,
        Self::Settings,
    ];

    /// Connections at once; one that is cut is opened again.
    pub(crate) fn connections(self) -> usize {
        match self {
            Self::SlowHeads | Self::SlowBodies => scale(300, 1_000),
            Self::SlowReaders => scale(16, 200),
            Self::IdleConnections => 2_000,
            Self::ManyStreams => scale(5, 40),
            Self::LargeHeads | Self::ManyHeaders => scale(10, 20),
            Self::RequestsTakenBack | Self::EndlessHeads | Self::Questions | Self::Settings => {
                scale(3, 6)
            }
        }
    }

    /// How long the server may bear one of these connections.
    pub(crate) fn deadline(self) -> Duration {
        let seconds = match self {
            Self::SlowHeads | Self::SlowBodies | Self::SlowReaders | Self::ManyStreams => 1,
            Self::IdleConnections => 2,
            // As an idle connection, which is asked to end before it is made to.
            Self::Questions | Self::Settings => 4,
            // These are cut by what they do, not by time.
            Self::LargeHeads | Self::ManyHeaders | Self::RequestsTakenBack | Self::EndlessHeads => {
                0
            }
        };
        Duration::from_secs(seconds)
    }

    /// With what a connection begins.
    pub(crate) fn opening(self, bearer: &str) -> Vec<u8> {
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
            Self::RequestsTakenBack | Self::Questions | Self::Settings => frames::opening(),
            Self::EndlessHeads => {
                let head = frames::head("GET", "/", &[]);
                [frames::opening(), frames::frame(kind::HEADERS, flag::END_STREAM, 1, &head)].concat()
            }
            Self::ManyStreams => {
                let path = "/api/v1/telemetry/llm-usage";
                let head = frames::head("POST", path, &[("authorization", bearer)]);
                let open = |at: u32| frames::frame(kind::HEADERS, flag::END_HEADERS, 2 * at + 1, &head);
                frames::opening().into_iter().chain((0..128_u32).flat_map(open)).collect()
            }
        }
    }

    /// What comes next, the how manieth time; nothing for those who say no more.
    pub(crate) fn next(self, step: u32) -> Vec<u8> {
        match self {
            Self::SlowHeads | Self::SlowBodies => b" ".to_vec(),
            // An empty line before a request is none yet.
            Self::SlowReaders => b"\r\n".to_vec(),
            Self::IdleConnections => Vec::new(),
            Self::LargeHeads => vec![b'a'; 16 * 1024],
            Self::ManyHeaders => b"X-Many: 1\r\n".repeat(FRAMES),
            Self::RequestsTakenBack => (0..FRAMES as u32)
                .flat_map(|at| {
                    let stream = 2 * (step * FRAMES as u32 + at) + 1;
                    let taken_back = frames::frame(kind::RESET, 0, stream, &8_u32.to_be_bytes());
                    [frames::get(stream, "/health/ready", &[]), taken_back].concat()
                })
                .collect(),
            Self::ManyStreams => {
                (0..128_u32).flat_map(|at| frames::frame(kind::DATA, 0, 2 * at + 1, b" ")).collect()
            }
            Self::EndlessHeads => frames::frame(kind::CONTINUATION, 0, 1, &[]).repeat(FRAMES),
            Self::Questions => frames::frame(kind::PING, 0, 0, &[0; 8]).repeat(FRAMES),
            Self::Settings => frames::setting(frames::INITIAL_WINDOW_SIZE, 65_535).repeat(FRAMES),
        }
    }

    /// How long it waits between two parts.
    pub(crate) fn pause(self) -> Duration {
        match self {
            Self::SlowHeads
            | Self::SlowBodies
            | Self::SlowReaders
            | Self::IdleConnections
            | Self::ManyStreams => SLOWLY,
            Self::LargeHeads
            | Self::ManyHeaders
            | Self::RequestsTakenBack
            | Self::EndlessHeads
            | Self::Questions
            | Self::Settings => QUICKLY,
        }
    }

    /// Whether it takes what the server sends.
    pub(crate) fn reads(self) -> bool {
        self != Self::SlowReaders
    }
}
