//! The progress bar of commands that read or write many bytes.

use indicatif::{ProgressBar, ProgressStyle};

/// A progress bar over a number of bytes.
pub(crate) fn progress(bytes_total: u64) -> ProgressBar {
    let bar = ProgressBar::new(bytes_total);
    let template = "{bar:40} {percent} %  {bytes} of {total_bytes}  {elapsed}, {eta} left";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}
