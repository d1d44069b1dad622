//! The log: one line an event, for people or as JSON, on the standard error output.
//!
//! Lines that are written while a request is answered end with its ids. They are looked up when a
//! line is written, instead of a span for every request, so that requests that log nothing pay
//! nothing.

use std::fmt;
use std::io::IsTerminal;

use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{FmtContext, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

use crate::{envelope, trace};

/// How lines of the log look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Human,
    /// A JSON object a line.
    Json,
}

impl LogFormat {
    /// The format of this name.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "human" => Some(Self::Human),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// Begins to log to the standard error output.
///
/// # Errors
/// When the filter is not valid, or the process logs already.
pub fn start(format: LogFormat, filter: &str) -> Result<(), Box<dyn std::error::Error>> {
    // What clients do wrong in HTTP/2 is said at their pace: an attack must not fill the log.
    let filter = EnvFilter::try_new(format!("h2=error,{filter}"))?;
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let ansi = std::io::stderr().is_terminal() && !no_color;
    let subscriber = subscriber(format, filter, ansi, std::io::stderr);
    tracing::subscriber::set_global_default(subscriber)?;
    Ok(())
}

/// What writes the log somewhere.
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
            Box::new(lines.finish())
        }
        LogFormat::Json => {
            let json = base.json().flatten_event(true).with_current_span(false);
            let json = json.with_span_list(false);
            Box::new(json.map_event_format(|lines| WithIds { lines, format }).finish())
        }
    }
}

/// Lines with the ids of the request at their end.
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
        let Some(request) = trace::current() else {
            return self.lines.format_event(context, writer, event);
        };
        let mut line = String::new();
        self.lines.format_event(context, Writer::new(&mut line), event)?;
        let line = line.trim_end();
        let request_id = envelope::request_id();
        let (trace_id, span_id) = (request.trace_id(), request.span_id());
        match (self.format, line.strip_suffix('}')) {
            // Request ids are letters, digits and `-_.:`, which JSON takes as they are.
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
    use crate::trace::TraceContext;

    /// Where the lines of a test go.
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

    /// What is written of an error outside of a request and of one within.
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
}
