//! What the user sees: results on stdout, everything else on stderr, colour where it is wanted.
use graft_ir::{Code, Error, Result};
use std::{
    fmt::Write as _,
    io::{ErrorKind, IsTerminal, Write},
};

/// When to use colour.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless `NO_COLOR` is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Where commands write.
#[derive(Clone, Copy)]
pub(crate) struct Ui {
    quiet: bool,
    verbose: bool,
    color_out: bool,
    color_err: bool,
}

impl Ui {
    pub(crate) fn new(quiet: bool, verbose: bool, color: Color) -> Ui {
        let wanted = |terminal: bool| match color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()),
        };
        let (out, err) = (std::io::stdout().is_terminal(), std::io::stderr().is_terminal());
        Ui { quiet, verbose, color_out: wanted(out), color_err: wanted(err) }
    }
    /// One that says only under `--verbose` what is usually said.
    pub(crate) fn quieter(self) -> Ui {
        Ui { quiet: self.quiet || !self.verbose, ..self }
    }
    /// Whether progress may be drawn: on a terminal, and not under `--quiet`.
    pub(crate) fn draws_progress(&self) -> bool {
        !self.quiet && std::io::stderr().is_terminal()
    }
    /// Whether more than the usual should be said.
    pub(crate) fn is_verbose(&self) -> bool {
        self.verbose
    }
    /// A result: goes to stdout as it is.
    pub(crate) fn out(&self, text: &str) -> Result<()> {
        let mut stdout = std::io::stdout().lock();
        written(stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()))
    }
    /// A result as one JSON object on one line.
    pub(crate) fn json(&self, value: &serde_json::Value) -> Result<()> {
        self.out(&format!("{value}\n"))
    }
    /// Something that the user may want to know.
    pub(crate) fn say(&self, line: &str) {
        if !self.quiet {
            self.stderr(line);
        }
    }
    /// Something that matters only under `--verbose`.
    pub(crate) fn detail(&self, line: &str) {
        if self.verbose {
            self.stderr(line);
        }
    }
    /// Something that may be wrong; said even under `--quiet`.
    pub(crate) fn warn(&self, line: &str) {
        let label = paint(self.color_err, "33;1", "warning");
        self.stderr(&format!("{label}: {line}"));
    }
    /// What went wrong, where, and what to do.
    pub(crate) fn error(&self, e: &Error) {
        let label = paint(self.color_err, "31;1", "error");
        let mut text = format!("{label}[{}]: {}", e.code.id, e.message);
        for place in &e.at {
            let _ = write!(text, "\n  {} {place}", paint(self.color_err, "34", "in"));
        }
        if let Some(help) = &e.help {
            let _ = write!(text, "\n  {} {help}", paint(self.color_err, "32", "help:"));
        }
        self.stderr(&text);
    }
    /// Emphasis within a result.
    pub(crate) fn bold(&self, text: &str) -> String {
        paint(self.color_out, "1", text)
    }
    /// De-emphasis within a result.
    pub(crate) fn dim(&self, text: &str) -> String {
        paint(self.color_out, "2", text)
    }
    /// A line of a result that was there before.
    pub(crate) fn removed(&self, text: &str) -> String {
        paint(self.color_out, "31", text)
    }
    /// A line of a result that is there now.
    pub(crate) fn added(&self, text: &str) -> String {
        paint(self.color_out, "32", text)
    }
    fn stderr(&self, line: &str) {
        // Nobody can be told when stderr is gone.
        let _ = writeln!(std::io::stderr().lock(), "{line}");
    }
}

/// Whether stdout took what was written. A reader that has gone away (`| head`) is no failure.
pub(crate) fn written(result: std::io::Result<()>) -> Result<()> {
    match result {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(Error::new(Code::IO, format!("stdout: {e}"))),
        _ => Ok(()),
    }
}

fn paint(on: bool, style: &str, text: &str) -> String {
    if on { format!("\x1b[{style}m{text}\x1b[0m") } else { text.into() }
}

/// Rows of cells in aligned columns; cells that look like numbers are aligned to the right.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let header: Vec<String> = header.iter().map(|h| h.to_string()).collect();
    let width = |column: usize| {
        let cells = std::iter::once(&header).chain(rows).filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let numeric = |cell: &str| cell.starts_with(|c: char| c.is_ascii_digit() || c == '-');
    let mut text = String::new();
    for row in std::iter::once(&header).chain(rows) {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &w))| {
            let right = rows.iter().filter_map(|r| r.get(column)).all(|c| numeric(c)) && !rows.is_empty();
            if right { format!("{cell:>w$}") } else { format!("{cell:<w$}") }
        });
        let line = cells.collect::<Vec<_>>().join("  ");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// `12345678` as `12,345,678`.
pub(crate) fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let grouped =
        digits.as_bytes().rchunks(3).rev().map(|chunk| std::str::from_utf8(chunk).unwrap_or_default());
    grouped.collect::<Vec<_>>().join(",")
}

/// Bytes in the unit that suits them: `17.3 MiB`.
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (n as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{n} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_numbers() {
        assert_eq!(thousands(7), "7");
        assert_eq!(thousands(12_345_678), "12,345,678");
        assert_eq!(bytes(512), "512 B");
        assert_eq!(bytes(18_140_365), "17.3 MiB");
    }

    #[test]
    fn aligns_columns() {
        let rows = vec![vec!["q".into(), "12".into()], vec!["dense".into(), "3".into()]];
        assert_eq!(table(&["path", "in"], &rows), "path   in\nq      12\ndense   3\n");
    }
}
