//! Logging: one line an event on stderr, as text or JSON. Nothing that a caller sends can break a line or forge one.

use std::{
    io::{self, Write},
    panic, thread,
    time::Duration,
};

use tracing::{Level, Metadata};
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::{FilterExt, filter_fn},
    fmt::{self, MakeWriter},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use crate::config::{LogFormat, Telemetry};

/// The metric that counts lines that were not written.
pub(crate) const DROPPED_LINES: &str = "log_lines_dropped_total";

/// Lines that may wait to be written. A thread of its own writes them: with a pipe or terminal that nobody reads, stderr
/// would otherwise block every thread that serves. Lines that do not fit are counted and dropped.
const BUFFERED_LINES: usize = 8192;

/// Bytes of lines that are written at once.
const WRITE_SIZE: usize = 64 * 1024;

/// The time for which lines gather before they are written: waking the thread for each would cost more than writing it.
const GATHERED: Duration = Duration::from_millis(5);

/// Starts logging for the whole process, panics included. Fails where logging has been started before. What is buffered
/// is written when the guard is dropped, or given up after about a second.
pub fn init(settings: &Telemetry) -> anyhow::Result<WorkerGuard> {
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(BUFFERED_LINES)
        .thread_name("log")
        .finish(Gathered(io::BufWriter::with_capacity(WRITE_SIZE, io::stderr())));
    let dropped = writer.error_counter();
    subscriber(settings, writer, move || dropped.dropped_lines())?.try_init()?;
    panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string);
        tracing::error!(location, cause = panic.payload_as_str(), "a task panicked");
    }));
    Ok(guard)
}

/// The writer of the thread of the log, which takes what waits, flushes it, and begins again after a pause.
struct Gathered<W: Write>(io::BufWriter<W>);

impl<W: Write> Write for Gathered<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()?;
        thread::sleep(GATHERED);
        Ok(())
    }
}

fn subscriber(
    settings: &Telemetry,
    writer: impl for<'a> MakeWriter<'a> + Send + Sync + 'static,
    dropped: impl Fn() -> usize + Send + Sync + 'static,
) -> anyhow::Result<impl SubscriberInitExt> {
    // It writes whole frames, with tokens and what was said.
    let is_told =
        |it: &Metadata<'_>| *it.level() < Level::TRACE || !it.target().starts_with("tungstenite");
    let filter = EnvFilter::builder().parse(&settings.log_filter)?.and(filter_fn(is_told));
    // The layer would report a failed write on stderr with `eprintln!`, which panics where stderr is closed.
    let lines = fmt::layer()
        .with_ansi(false)
        .with_writer(Lines { writer, dropped })
        .log_internal_errors(false);
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match settings.log_format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => {
            lines.json().flatten_event(true).with_current_span(false).with_span_list(true).boxed()
        }
    };
    Ok(tracing_subscriber::registry().with(lines.with_filter(filter)))
}

/// Makes writers that keep an event on its own line.
struct Lines<W, D> {
    writer: W,
    dropped: D,
}

impl<'a, W: MakeWriter<'a>, D: Fn() -> usize> MakeWriter<'a> for Lines<W, D> {
    type Writer = LineWriter<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        // Lines are dropped only where lines are written, so this is the place to keep the count up to date.
        let dropped = (self.dropped)();
        if dropped > 0 {
            metrics::counter!(DROPPED_LINES).absolute(dropped as u64);
        }
        LineWriter(self.writer.make_writer())
    }
}

/// Writes an event, which comes in one piece, as one line.
struct LineWriter<W>(W);

impl<W: Write> Write for LineWriter<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let is_plain = |byte: &u8| (b' '..=b'~').contains(byte);
        match event.split_last() {
            // Nearly every line is so.
            Some((b'\n', line)) if line.iter().all(is_plain) => self.0.write_all(event)?,
            _ => self.0.write_all(one_line(&String::from_utf8_lossy(event)).as_bytes())?,
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// The text with every character escaped that would break the line, move a terminal's cursor or turn its direction.
pub(crate) fn one_line(event: &str) -> String {
    let (text, end) = event.strip_suffix('\n').map_or((event, ""), |text| (text, "\n"));
    let mut line = String::with_capacity(event.len());
    for c in text.chars() {
        let unsafe_to_show =
            c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if unsafe_to_show {
            // As JSON writes it, so that a line of JSON stays what it is; all of these fit four digits.
            line.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            line.push(c);
        }
    }
    line + end
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use crate::config::{LogFormat, Telemetry};

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(log_format: LogFormat, log_filter: &str, log: impl FnOnce()) -> String {
        let memory = Memory::default();
        let settings =
            Telemetry { log_format, log_filter: log_filter.to_owned(), capture_content: false };
        let writer = memory.clone();
        let subscriber = super::subscriber(&settings, move || writer.clone(), || 0).unwrap();
        tracing::dispatcher::with_default(&subscriber.into(), log);
        String::from_utf8(memory.0.lock().unwrap().clone()).unwrap()
    }

    const HOSTILE: &str = "a\r\nERROR forged\u{1b}[31m\u{202e}\u{2028}\"}{";

    #[test]
    fn what_a_caller_sends_stays_on_its_own_line_of_text() {
        let text = logged(LogFormat::Text, "info", || {
            tracing::info_span!("request", path = %HOSTILE).in_scope(|| {
                tracing::info!(user = HOSTILE, agent = %HOSTILE, kid = ?HOSTILE, "said {HOSTILE}");
            });
        });
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(
            !text
                .trim_end()
                .contains(|c: char| c.is_control() || c == '\u{202e}' || c == '\u{2028}'),
            "{text}"
        );
    }

    #[test]
    fn what_a_caller_sends_stays_in_its_own_field_of_json() {
        let text = logged(LogFormat::Json, "info", || {
            tracing::info_span!("request", path = %HOSTILE).in_scope(|| {
                tracing::info!(user = HOSTILE, agent = %HOSTILE, "said {HOSTILE}");
            });
        });
        assert_eq!(text.lines().count(), 1, "{text}");
        let event: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(event["user"], HOSTILE);
        assert_eq!(event["agent"], HOSTILE);
        assert_eq!(event["spans"][0]["path"], HOSTILE);
        assert_eq!(event["message"], format!("said {HOSTILE}"));
    }

    #[test]
    fn the_filter_decides_what_is_logged() {
        let text = logged(LogFormat::Text, "warn,common=debug,tungstenite=trace", || {
            tracing::debug!("ours");
            tracing::info!(target: "other", "theirs");
            tracing::trace!(target: "tungstenite::protocol", "frames");
        });
        assert!(text.contains("ours") && !text.contains("theirs"), "{text}");
        assert!(!text.contains("frames"), "{text}");
    }
}
