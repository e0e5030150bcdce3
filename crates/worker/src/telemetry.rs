//! Logs: readable on a terminal, JSON lines off one.

use std::io::IsTerminal;
use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Text on a terminal, else JSON.
    #[default]
    Auto,
    Text,
    Json,
}

/// Starts logging to standard error. `level` takes `info`, or directives such as `warn,sync_worker_engine=debug`.
pub fn start(level: &str, format: Format) -> anyhow::Result<()> {
    let all = filtered(level)?;
    let json = match format {
        Format::Auto => !std::io::stderr().is_terminal(),
        Format::Text => false,
        Format::Json => true,
    };
    let started = if json {
        let lines = fmt::layer().json().flatten_event(true).with_current_span(false).with_span_list(false);
        all.with(lines.with_writer(std::io::stderr)).try_init()
    } else {
        // Colours are for a terminal.
        let lines = fmt::layer().with_target(false).with_ansi(std::io::stderr().is_terminal());
        all.with(lines.with_writer(std::io::stderr)).try_init()
    };
    started.map_err(|error| anyhow::anyhow!("logging can't start: {error}"))
}

fn filtered(level: &str) -> anyhow::Result<impl SubscriberExt + SubscriberInitExt + for<'a> LookupSpan<'a>> {
    Ok(tracing_subscriber::registry().with(EnvFilter::try_new(level)?).with(filter_fn(may_be_told)))
}

/// From `debug` on libraries log the statements and messages that they send, with keys and rows in them (invariant 11).
fn may_be_told(what: &Metadata<'_>) -> bool {
    *what.level() <= Level::INFO || what.target().starts_with("sync_worker")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn invariant_11_what_libraries_say_of_statements_is_never_told() {
        let lines = Lines::default();
        let writer = lines.clone();
        let all = filtered("trace").unwrap().with(fmt::layer().with_writer(move || writer.clone()));
        tracing::subscriber::with_default(all, || {
            tracing::debug!(target: "tokio_postgres::prepare", "preparing query with a key");
            tracing::trace!(target: "hyper::proto", "a message with a row");
            tracing::warn!(target: "tokio_postgres::connection", "a notice");
            tracing::debug!(target: "sync_worker_engine::apply", "a batch");
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert!(text.contains("a notice") && text.contains("a batch"), "{text}");
        assert!(!text.contains("a key") && !text.contains("a row"), "{text}");
    }
}
