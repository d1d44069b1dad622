//! Sends records in batches, retries, and reports the result of each.

use std::time::Duration;

use serde::Deserialize;

use super::error::ImportError;
use crate::cli::client::{ApiClient, Reply};
use crate::wire::error_code::ErrorCode;

const PATH: &str = "/telemetry/llm-usage/batch";
/// The most attempts for a batch.
const TRIES_MAX: u32 = 8;
/// The first pause between attempts. It doubles each time, unless the server asks for more.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The longest pause, whatever the server asks for. No rate limit looks further back.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// The result of a record.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum RecordResult {
    /// Stored now.
    Accepted,
    /// Stored by an earlier import.
    Duplicate,
    /// Refused, with the reason.
    Refused(String),
}

/// The response to a batch.
enum BatchReply {
    /// The result of each record, or that it must be sent again.
    Each(Vec<Result<RecordResult, RetryLater>>),
    /// Nothing was stored; send the batch again.
    Later(RetryLater),
}

/// Why and when to send something again.
#[derive(Clone, Debug, PartialEq, Eq)]
struct RetryLater {
    pause: Duration,
    reason: String,
}

/// The pauses between attempts, and how many there were.
struct Pauses {
    own: Duration,
    left: u32,
}

#[derive(Deserialize)]
struct BatchData {
    results: Vec<ResultData>,
}

#[derive(Deserialize)]
struct ResultData {
    status: String,
    error: Option<ErrorData>,
}

#[derive(Deserialize)]
struct ErrorData {
    code: String,
    message: String,
    details: Option<DetailsData>,
}

#[derive(Deserialize)]
struct DetailsData {
    retry_after_ms: Option<u64>,
}

/// Sends records until each has a final result. Call ids make repeating safe.
pub(super) fn send(client: &ApiClient, records: &[&str]) -> Result<Vec<RecordResult>, ImportError> {
    send_all(records, |open| post(client, open), std::thread::sleep)
}

fn send_all(
    records: &[&str],
    mut post: impl FnMut(&[&str]) -> Result<BatchReply, ImportError>,
    mut sleep: impl FnMut(Duration),
) -> Result<Vec<RecordResult>, ImportError> {
    let mut pauses = Pauses::new();
    let mut open: Vec<(usize, &str)> = records.iter().copied().enumerate().collect();
    let mut fates: Vec<(usize, RecordResult)> = Vec::with_capacity(records.len());
    while !open.is_empty() {
        let texts: Vec<&str> = open.iter().map(|(_, text)| *text).collect();
        let later = match post(&texts)? {
            BatchReply::Later(later) => Some(later),
            BatchReply::Each(results) => {
                let mut longest: Option<RetryLater> = None;
                let mut again = Vec::new();
                for (record, result) in open.into_iter().zip(results) {
                    match result {
                        Ok(record_result) => fates.push((record.0, record_result)),
                        Err(later) => {
                            again.push(record);
                            longest = later.or_longer(longest);
                        }
                    }
                }
                open = again;
                longest
            }
        };
        if let Some(later) = later {
            sleep(pauses.next(&later)?);
        }
    }
    fates.sort_by_key(|(at, _)| *at);
    Ok(fates.into_iter().map(|(_, record_result)| record_result).collect())
}

impl RetryLater {
    /// The longer of two waits.
    fn or_longer(self, other: Option<Self>) -> Option<Self> {
        other.filter(|other| other.pause >= self.pause).or(Some(self))
    }
}

impl Pauses {
    const fn new() -> Self {
        Self { own: FIRST_PAUSE, left: TRIES_MAX - 1 }
    }

    /// How long to wait now.
    ///
    /// # Errors
    /// [`ImportError`] after the last attempt.
    fn next(&mut self, later: &RetryLater) -> Result<Duration, ImportError> {
        let Some(left) = self.left.checked_sub(1) else {
            return Err(ImportError::new(format!(
                "{}; tried {TRIES_MAX} times. Run the same import again later: it continues where \
                 it stopped",
                later.reason
            )));
        };
        self.left = left;
        let pause = self.own.max(later.pause).min(PAUSE_MAX);
        self.own *= 2;
        Ok(pause)
    }
}

/// Sends records once.
fn post(client: &ApiClient, records: &[&str]) -> Result<BatchReply, ImportError> {
    let body = format!("{{\"records\":[{}]}}", records.join(","));
    let reply = match client.send("POST", PATH, Some(&body)) {
        Ok(reply) => reply,
        Err(error) if client.may_be_unavailable() => {
            return Ok(BatchReply::Later(RetryLater {
                pause: Duration::ZERO,
                reason: error.to_string(),
            }));
        }
        Err(error) => return Err(ImportError::new(error.to_string())),
    };
    let strange = || ImportError::new(client.failure(&reply).to_string());
    match reply.status {
        200 => results(&reply, records.len()).map(BatchReply::Each).ok_or_else(strange),
        429 | 503 => {
            let limit = limit(&reply);
            if limit.is_none() && !client.may_be_unavailable() {
                return Err(strange());
            }
            let reason = limit.unwrap_or_else(|| client.failure(&reply).to_string());
            Ok(BatchReply::Later(RetryLater {
                pause: reply.retry_after.unwrap_or_default(),
                reason,
            }))
        }
        _ => Err(strange()),
    }
}

/// The result of each record. `None` if the response does not have one for each.
fn results(reply: &Reply, count: usize) -> Option<Vec<Result<RecordResult, RetryLater>>> {
    #[derive(Deserialize)]
    struct Envelope {
        data: BatchData,
    }
    let envelope: Envelope = serde_json::from_str(&reply.text).ok()?;
    let results = envelope.data.results;
    (results.len() == count).then(|| results.into_iter().map(ResultData::record_result).collect())
}

/// Describes a response that refuses because of a rate limit. `None` for others.
fn limit(reply: &Reply) -> Option<String> {
    #[derive(Deserialize)]
    struct Envelope {
        error: ErrorData,
    }
    let envelope: Envelope = serde_json::from_str(&reply.text).ok()?;
    envelope.error.limit()
}

impl ResultData {
    fn record_result(self) -> Result<RecordResult, RetryLater> {
        match (self.status.as_str(), self.error) {
            ("accepted", _) => Ok(RecordResult::Accepted),
            ("duplicate", _) => Ok(RecordResult::Duplicate),
            (_, None) => Ok(RecordResult::Refused(String::new())),
            (_, Some(error)) => match error.limit() {
                Some(reason) => Err(RetryLater { pause: error.pause(), reason }),
                None => Ok(RecordResult::Refused(error.message)),
            },
        }
    }
}

impl ErrorData {
    fn limit(&self) -> Option<String> {
        let codes = [ErrorCode::RateLimited, ErrorCode::Throttled];
        let is_limit = codes.iter().any(|code| code.as_str() == self.code);
        is_limit.then(|| {
            format!(
                "{} ({}): the tenant's other requests use its whole rate; pause them, or ask the \
                 operator to raise the tenant's threshold for a while",
                self.message, self.code
            )
        })
    }

    fn pause(&self) -> Duration {
        let millis = self.details.as_ref().and_then(|details| details.retry_after_ms);
        Duration::from_millis(millis.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn later(seconds: u64) -> RetryLater {
        RetryLater { pause: Duration::from_secs(seconds), reason: "full".to_owned() }
    }

    /// Sends records to a fake server. Returns what was sent and the pauses.
    fn sent(
        records: &[&str],
        answers: Vec<BatchReply>,
    ) -> (Result<Vec<RecordResult>, ImportError>, Vec<String>, Vec<u64>) {
        let (mut posted, mut pauses) = (Vec::new(), Vec::new());
        let mut answers = answers.into_iter();
        let post = |open: &[&str]| {
            posted.push(open.concat());
            Ok(answers.next().unwrap_or_else(|| BatchReply::Later(later(1))))
        };
        let done = send_all(records, post, |pause| pauses.push(pause.as_millis() as u64));
        (done, posted, pauses)
    }

    #[test]
    fn only_what_came_too_soon_is_sent_again_and_every_record_has_its_own_fate() {
        let refused = || RecordResult::Refused("wrong".to_owned());
        let answers = vec![
            BatchReply::Later(later(3)),
            BatchReply::Each(vec![
                Err(later(1)),
                Ok(RecordResult::Accepted),
                Err(later(2)),
                Ok(refused()),
            ]),
            BatchReply::Each(vec![Ok(RecordResult::Duplicate), Err(later(0))]),
            BatchReply::Each(vec![Ok(RecordResult::Accepted)]),
        ];
        let (done, posted, pauses) = sent(&["a", "b", "c", "d"], answers);
        let expected =
            [RecordResult::Duplicate, RecordResult::Accepted, RecordResult::Accepted, refused()];
        assert_eq!(done.expect("all are answered"), expected);
        assert_eq!(posted, ["abcd", "abcd", "ac", "c"]);
        assert_eq!(pauses, [3_000, 2_000, 800]);
    }

    #[test]
    fn it_is_waited_as_long_as_was_asked_but_not_for_ever_nor_for_ever_often() {
        let hours = (0..20).map(|_| BatchReply::Later(later(7_200))).collect();
        let (done, posted, pauses) = sent(&["a"], hours);
        assert_eq!(pauses, [60_000; 7]);
        assert_eq!(posted.len(), 8);
        let said = done.expect_err("it was given up").to_string();
        assert!(said.starts_with("full; tried 8 times. Run the same import again"), "{said}");
        let moments = (0..20).map(|_| BatchReply::Later(later(0))).collect();
        let (_, _, pauses) = sent(&["a"], moments);
        assert_eq!(pauses, [200, 400, 800, 1_600, 3_200, 6_400, 12_800]);
    }

    #[test]
    fn a_refusal_because_of_too_much_is_none_for_good() {
        let result = |code: &str| {
            let text = format!(
                r#"{{"status":"error","error":{{"code":"{code}","message":"m","details":
                {{"dimension":"rate","retry_after_ms":1500}}}}}}"#
            );
            serde_json::from_str::<ResultData>(&text).expect("it is a result").record_result()
        };
        for code in ["RATE_LIMITED", "THROTTLED"] {
            let later = result(code).expect_err("it comes again");
            assert_eq!(later.pause, Duration::from_millis(1_500));
            assert!(later.reason.starts_with(&format!("m ({code}): ")), "{}", later.reason);
        }
        assert_eq!(result("INVALID_FIELD"), Ok(RecordResult::Refused("m".to_owned())));
    }
}
