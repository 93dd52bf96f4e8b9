//! What a person sees of a running command: notes and progress on stderr, results on stdout.

use std::cell::{Cell, RefCell};
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::{Error, Result};

/// Without a terminal a long bar writes a line this often.
const LINE_EVERY: Duration = Duration::from_secs(60);

/// Where notes, bars and results go.
#[derive(Clone, Debug)]
pub struct Ui {
    /// Nothing but errors on stderr.
    pub quiet: bool,
    /// stderr is a terminal, so bars may move.
    pub is_terminal: bool,
    /// Where this is the work of one of many parts of a command.
    part: Option<Part>,
}

/// One of many parts of a command: its notes are left out, its bars stand below those of the whole and leave no line.
#[derive(Clone, Debug)]
struct Part {
    /// What to call it in lines.
    label: String,
    /// The bars of the whole.
    all: MultiProgress,
}

impl Ui {
    /// Looks at stderr.
    pub fn new(quiet: bool) -> Self {
        Self { quiet, is_terminal: std::io::stderr().is_terminal(), part: None }
    }

    /// Says nothing.
    pub fn silent() -> Self {
        Self { quiet: true, is_terminal: false, part: None }
    }

    /// The same without notes and bars.
    pub fn hushed(&self) -> Self {
        Self { quiet: true, ..self.clone() }
    }

    /// The same for a part of the work, under the bars of the whole.
    pub fn part(&self, label: impl Into<String>, all: &MultiProgress) -> Self {
        Self { part: Some(Part { label: label.into(), all: all.clone() }), ..self.clone() }
    }

    /// A line on stderr, unless quiet. Never inside a live bar: finish it first or use its message.
    pub fn note(&self, text: &str) {
        if !self.quiet && self.part.is_none() {
            line_to_stderr(text);
        }
    }

    /// A line of the result on stdout, quiet or not.
    ///
    /// # Errors
    /// [`Error::Io`] naming stdout. A reader that went away (`peftk ... | head`) comes as `BrokenPipe`, with which the
    /// program ends quietly.
    pub fn result(&self, text: &str) -> Result<()> {
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes())
            .and_then(|()| out.write_all(b"\n"))
            .and_then(|()| out.flush())
            .map_err(|e| Error::io("write", "stdout", e))
    }

    /// Progress over `len` pieces of work. On a terminal it moves and vanishes when finished; without one a line appears
    /// now and then. Either way [`Bar::finish`] leaves one line: label, count, message.
    pub fn bar(&self, len: u64, label: &str) -> Bar {
        let live = (self.is_terminal && !self.quiet).then(|| {
            let bar = match &self.part {
                Some(part) => part.all.add(ProgressBar::new(len)),
                None => ProgressBar::with_draw_target(Some(len), ProgressDrawTarget::stderr()),
            };
            // The template is a constant: were it wrong, the default style would do.
            if let Ok(style) = ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len} {eta} {msg}") {
                bar.set_style(style);
            }
            bar.set_prefix(label.to_owned());
            bar
        });
        Bar {
            live,
            quiet: self.quiet,
            leaves_line: self.part.is_none(),
            label: self.part.as_ref().map_or_else(|| label.to_owned(), |part| format!("{}, {label}", part.label)),
            len,
            done: Cell::new(0),
            message: RefCell::new(String::new()),
            last_line: Cell::new(Instant::now()),
        }
    }
}

/// Progress over a known number of pieces; see [`Ui::bar`]. Dropped without [`Bar::finish`] it leaves no line.
#[derive(Debug)]
pub struct Bar {
    live: Option<ProgressBar>,
    quiet: bool,
    leaves_line: bool,
    label: String,
    len: u64,
    done: Cell<u64>,
    message: RefCell<String>,
    last_line: Cell<Instant>,
}

impl Bar {
    /// `count` more pieces are done.
    pub fn inc(&self, count: u64) {
        self.done.set(self.done.get() + count);
        match &self.live {
            Some(bar) => bar.inc(count),
            None if !self.quiet && self.last_line.get().elapsed() >= LINE_EVERY => {
                self.last_line.set(Instant::now());
                line_to_stderr(&self.line());
            }
            None => {}
        }
    }

    /// A few words behind the count, such as the loss.
    pub fn set_message(&self, message: impl Into<String>) {
        let message = message.into();
        if let Some(bar) = &self.live {
            bar.set_message(message.clone());
        }
        *self.message.borrow_mut() = message;
    }

    /// Ends the bar and leaves its line.
    pub fn finish(self) {
        if let Some(bar) = &self.live {
            bar.finish_and_clear();
        }
        if !self.quiet && self.leaves_line {
            line_to_stderr(&self.line());
        }
    }

    fn line(&self) -> String {
        let message = self.message.borrow();
        let gap = if message.is_empty() { "" } else { "  " };
        format!("{} {}/{}{gap}{message}", self.label, self.done.get(), self.len)
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.live {
            bar.finish_and_clear();
        }
    }
}

/// `eprintln!` panics when stderr is closed; a lost note is no reason to stop.
pub fn line_to_stderr(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_without_terminal_counts_and_words_its_line() {
        let bar = Ui::silent().bar(3, "epoch 1/2");
        assert!(bar.live.is_none());
        assert_eq!(bar.line(), "epoch 1/2 0/3");
        bar.inc(2);
        bar.set_message("loss 0.5");
        assert_eq!(bar.line(), "epoch 1/2 2/3  loss 0.5");
        assert!(Ui { is_terminal: true, ..Ui::silent() }.bar(3, "x").live.is_none());
        let part = Ui::silent().part("birds dora", &MultiProgress::new());
        assert_eq!(part.bar(3, "epoch 1/2").line(), "birds dora, epoch 1/2 0/3");
    }
}
