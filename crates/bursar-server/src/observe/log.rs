//! The log: one line per event, as text or JSON, on the standard error output.
//!
//! Lines within a request end with its ids. The ids are looked up when a line is written instead of
//! opening a span for every request, so a request that logs nothing pays nothing.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::borrow::Cow;
use std::fmt;
use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::panic::PanicHookInfo;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use serde::Deserialize;
use tracing::field::Field;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer, debug_fn};
use tracing_subscriber::fmt::{FmtContext, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

use crate::cli::terminal;
use crate::credentials::raw_key;
use crate::observe::log_queue::{LogQueue, QueueWriter, Room, TARGET};
use crate::observe::trace;
use crate::wire::request_id;

/// The target of lines about panics.
const PANIC_TARGET: &str = "bursar::panic";
/// How long the process waits at its end for the last lines to be written.
const FLUSH_WITHIN: Duration = Duration::from_secs(1);

/// The queue, once logging has started.
static QUEUE: OnceLock<Arc<LogQueue>> = OnceLock::new();

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum LogFormat {
    Human,
    /// One JSON object per line.
    Json,
}

impl TryFrom<String> for LogFormat {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        match name.as_str() {
            "human" => Ok(Self::Human),
            "json" => Ok(Self::Json),
            _ => Err(format!("is {name:?}; it must be human or json")),
        }
    }
}

/// Starts logging to the standard error output from a thread of its own.
///
/// Panics are logged too, because the default hook blocks on the output.
///
/// # Errors
/// If the filter is invalid, logging has started already, or the system refuses a thread.
pub fn start(format: LogFormat, filter: &str) -> Result<(), Box<dyn std::error::Error>> {
    // Clients control how often h2 logs their errors, so an attack must not fill the log.
    let filter = EnvFilter::try_new(format!("h2=error,{filter}"))?;
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let ansi = io::stderr().is_terminal() && !no_color;
    let queue = Arc::new(LogQueue::default());
    let subscriber = subscriber(format, filter, ansi, QueueWriter(Arc::clone(&queue)));
    tracing::subscriber::set_global_default(subscriber)?;
    // A separate file: code that locks the standard error output must not wait for this thread.
    let output = File::from(io::stderr().as_fd().try_clone_to_owned()?);
    let writing = Arc::clone(&queue);
    thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || writing.write(output, log_dropped))?;
    let panicking = Arc::clone(&queue);
    std::panic::set_hook(Box::new(move |info| log_panic(&panicking, info)));
    // It cannot be set already: a second subscriber would have been refused above.
    let _ = QUEUE.set(queue);
    Ok(())
}

/// Writes a line for people, through the queue if logging has started.
pub(crate) fn write_line(line: &str) {
    match QUEUE.get() {
        Some(queue) => {
            queue.push(format!("{}\n", terminal::line(line)).as_bytes(), Room::Always);
        }
        None => terminal::print_error_line(line),
    }
}

/// Waits until the log is written, for at most a second. Call it last.
pub fn flush() {
    if let Some(queue) = QUEUE.get() {
        queue.flush(FLUSH_WITHIN);
    }
}

/// The number of lines dropped because the output was too slow.
pub(crate) fn dropped() -> u64 {
    QUEUE.get().map_or(0, |queue| queue.dropped())
}

/// The dropped lines may include errors.
fn log_dropped(dropped: u64) {
    tracing::error!(
        target: TARGET,
        dropped,
        "{dropped} lines of the log were dropped, because its output did not accept them"
    );
}

fn log_panic(queue: &LogQueue, info: &PanicHookInfo<'_>) {
    let thread = thread::current();
    let name = thread.name().unwrap_or("unnamed");
    let location = info.location().map(ToString::to_string).unwrap_or_default();
    let message = info.payload_as_str().unwrap_or("no message");
    // Some panics of the standard library quote the text that caused them.
    let redacted = raw_key::redact(message);
    let message = redacted.as_deref().unwrap_or(message);
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then_some(backtrace);
    if tracing::enabled!(target: PANIC_TARGET, Level::ERROR) {
        let backtrace = backtrace.map(tracing::field::display);
        tracing::error!(target: PANIC_TARGET, thread = name, location, backtrace, "{message}");
    } else {
        // The filter must not hide a panic.
        let message = terminal::line(message);
        let line = format!("thread '{name}' panicked at {location}: {message}\n");
        queue.push(line.as_bytes(), Room::Errors);
    }
    // The process ends here.
    if name == "main" {
        queue.flush(FLUSH_WITHIN);
    }
}

/// A subscriber with this output.
fn subscriber<W>(
    format: LogFormat,
    filter: EnvFilter,
    ansi: bool,
    writer: W,
) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let base = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    match format {
        LogFormat::Human => {
            let lines =
                base.map_event_format(|lines| WithIds { lines: lines.with_ansi(ansi), format });
            Box::new(lines.fmt_fields(debug_fn(write_field).delimited(" ")).finish())
        }
        LogFormat::Json => {
            let json = base.json().flatten_event(true).with_current_span(false);
            let json = json.with_span_list(false);
            Box::new(json.map_event_format(|lines| WithIds { lines, format }).finish())
        }
    }
}

/// Writes a field of a text line with invisible characters escaped. Colours are added around it.
fn write_field(to: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    let text = format!("{value:?}");
    match field.name() {
        "message" => write!(to, "{}", terminal::line(&text)),
        // A backtrace consists of lines of this program.
        "backtrace" => write!(to, "backtrace={}", terminal::lines(&text)),
        name => write!(to, "{name}={}", terminal::line(&text)),
    }
}

/// Formats lines with the ids of the request at the end.
struct WithIds<F> {
    lines: F,
    format: LogFormat,
}

impl<S, N, F> FormatEvent<S, N> for WithIds<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = String::new();
        self.lines.format_event(context, Writer::new(&mut line), event)?;
        let line = match self.format {
            LogFormat::Human => Cow::Borrowed(line.trim_end()),
            LogFormat::Json => terminal::json(line.trim_end()),
        };
        let Some(request) = trace::current() else { return writeln!(writer, "{line}") };
        let request_id = request_id::current_text();
        let (trace_id, span_id) = (request.trace_id(), request.span_id());
        match (self.format, line.strip_suffix('}')) {
            // Request ids consist of letters, digits and `-_.:`, which JSON needs not escape.
            (LogFormat::Json, Some(open)) => {
                write!(writer, r#"{open},"request_id":"{request_id}","#)?;
                writeln!(writer, r#""trace_id":"{trace_id}","span_id":"{span_id}"}}"#)
            }
            (LogFormat::Json, None) | (LogFormat::Human, _) => writeln!(
                writer,
                "{line} request_id={request_id} trace_id={trace_id} span_id={span_id}"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use axum::http::HeaderMap;
    use parking_lot::Mutex;

    use super::*;
    use crate::observe::trace::TraceContext;

    /// Collects the lines of a test.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The line of an error outside a request and of one within.
    fn written(format: LogFormat) -> (TraceContext, Vec<String>) {
        let lines = Lines::default();
        let to = lines.clone();
        let subscriber = subscriber(format, EnvFilter::new("info"), false, move || to.clone());
        let context = TraceContext::of(&HeaderMap::new());
        tracing::subscriber::with_default(subscriber, || {
            tracing::error!(cause = "a \"quoted\" }", "outside");
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            runtime.block_on(trace::within(context.clone(), async {
                tracing::error!(cause = "a \"quoted\" }", "within");
                tracing::debug!("not asked for");
            }));
        });
        let text = String::from_utf8(lines.0.lock().clone()).expect("text");
        (context, text.lines().map(str::to_owned).collect())
    }

    #[test]
    fn lines_for_people_end_with_the_ids_of_their_request() {
        let (context, lines) = written(LogFormat::Human);
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].contains("ERROR") && lines[0].contains("outside"), "{}", lines[0]);
        assert!(!lines[0].contains("trace_id"), "{}", lines[0]);
        let ids = format!("trace_id={} span_id={}", context.trace_id(), context.span_id());
        assert!(lines[1].ends_with(&ids), "{}", lines[1]);
    }

    #[test]
    fn lines_of_json_are_objects_with_the_ids_of_their_request() {
        let (context, lines) = written(LogFormat::Json);
        let objects: Vec<serde_json::Value> =
            lines.iter().map(|line| serde_json::from_str(line).expect("an object")).collect();
        assert_eq!(objects.len(), 2);
        for (object, message) in objects.iter().zip(["outside", "within"]) {
            assert_eq!(object["message"], message);
            assert_eq!(object["level"], "ERROR");
            assert_eq!(object["cause"], "a \"quoted\" }");
            assert!(object["timestamp"].is_string() && object["target"].is_string(), "{object}");
        }
        assert!(objects[0].get("trace_id").is_none());
        assert_eq!(objects[1]["trace_id"], context.trace_id().to_string());
        assert_eq!(objects[1]["span_id"], context.span_id().to_string());
        assert_eq!(objects[1]["request_id"], "");
    }

    #[test]
    fn what_cannot_be_seen_is_written_out_for_people_and_for_programs() {
        let foreign = "\u{1b}[2Jpay\u{202e}lap\u{9b}\nERROR forged";
        let lines = |format| {
            let lines = Lines::default();
            let to = lines.clone();
            let subscriber = subscriber(format, EnvFilter::new("info"), false, move || to.clone());
            tracing::subscriber::with_default(subscriber, || {
                tracing::info!(name = %foreign, quoted = foreign, count = 7, "of {foreign}");
            });
            let bytes = lines.0.lock().clone();
            String::from_utf8(bytes).expect("text")
        };
        let shown = r"\u{1b}[2Jpay\u{202e}lap\u{9b}\nERROR forged";
        let human = lines(LogFormat::Human);
        assert!(human.contains(&format!("of {shown} name={shown} quoted=\"{shown}\"")), "{human}");
        assert!(human.ends_with(" count=7\n"), "{human}");
        let json = lines(LogFormat::Json);
        let object: serde_json::Value = serde_json::from_str(&json).expect("an object");
        assert_eq!(object["name"], foreign);
        for text in [human, json] {
            assert_eq!(text.matches(terminal::is_hidden).collect::<Vec<_>>(), ["\n"], "{text:?}");
        }
    }
}
