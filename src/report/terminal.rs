//! Progress on a terminal.

use indicatif::{ProgressBar, ProgressStyle};

use super::{Progress, one_line};

/// A bar with rate and time left, on standard error; gone when the part has ended.
#[derive(Default)]
pub struct Bar {
    bar: Option<ProgressBar>,
}

impl Progress for Bar {
    fn begin(&mut self, what: &str, total: Option<u64>) {
        let (bar, form) = match total {
            Some(total) => (
                ProgressBar::new(total),
                "{msg}  [{bar:24}] {decimal_bytes} of about {decimal_total_bytes}, {decimal_bytes_per_sec}, {eta} left",
            ),
            None => (ProgressBar::new_spinner(), "{msg}  {decimal_bytes}"),
        };
        if let Ok(style) = ProgressStyle::with_template(form) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(one_line(what).into_owned());
        self.bar = Some(bar);
    }

    fn advance(&mut self, done: u64) {
        if let Some(bar) = &self.bar {
            // The total is an estimate; a bar past its end would claim to be ready.
            if bar.length().is_some_and(|length| done > length) {
                bar.set_length(done + done / 50);
            }
            bar.set_position(done);
        }
    }

    fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.end();
    }
}
