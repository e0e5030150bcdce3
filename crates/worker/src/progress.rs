//! A progress bar per snapshot on a terminal, lines in a log.

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::collections::HashMap;
use std::io::IsTerminal;
use std::time::Duration;
use sync_worker_engine::status::{Board, Task};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Between two lines about the same snapshot in a log.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Shows snapshots until shutdown, woken by the board.
pub async fn show(board: Board, shutdown: CancellationToken) {
    let bars = std::io::stderr().is_terminal().then(MultiProgress::new);
    let mut shown: HashMap<String, ProgressBar> = HashMap::new();
    let mut lines: HashMap<String, Instant> = HashMap::new();
    let mut changes = board.subscribe();
    loop {
        for task in board.all().into_iter().filter(|task| task.task == Task::Capture) {
            let Some(snapshot) = task.snapshot else { continue };
            let name = format!("{} from {}", task.pipeline, task.database);
            if let Some(bars) = &bars {
                if snapshot.done && !shown.contains_key(&name) {
                    continue;
                }
                let bar = shown.entry(name.clone()).or_insert_with(|| bars.add(bar(&name)));
                bar.set_length(snapshot.estimate);
                bar.set_position(snapshot.rows);
                if snapshot.done && !bar.is_finished() {
                    bar.finish();
                }
            } else if !snapshot.done && lines.get(&name).is_none_or(|line| line.elapsed() >= LINE_EVERY) {
                lines.insert(name.clone(), Instant::now());
                tracing::info!(snapshot = %name, rows = snapshot.rows, estimate = snapshot.estimate, "snapshot");
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            changed = changes.changed() => if changed.is_err() { return },
        }
    }
}

fn bar(name: &str) -> ProgressBar {
    let style = "{msg} {wide_bar} {human_pos}/{human_len} rows, {per_sec}, {eta} left";
    let style = ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(0).with_style(style).with_message(name.to_owned())
}
