//! The one room that writes to stdout.
//!
//! Text from a log is hostile: it may hold what a terminal obeys. So a line is made of spans, each
//! is cleaned here, and colours are put around them after that. Data goes to stdout, everything
//! else to stderr. A reader that went away (`| head`) ends the program quietly.

use std::io::{self, BufWriter, ErrorKind, IsTerminal, Stdout, Write};
use std::iter::Peekable;
use std::str::Chars;

use foldback::core::text::is_hidden;
use serde::Serialize;
use unicode_width::UnicodeWidthChar;

use crate::error::Error;

/// The width that lines are cut to when nobody watches on a terminal.
const WIDTH_UNWATCHED: usize = 140;
/// The most that one line says of what happens, where nobody watches on a terminal.
const NOTE_MAX: usize = 4_000;
/// No table is narrower, whatever the terminal says.
const WIDTH_MIN: usize = 60;

/// How a span of text looks on a terminal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ink {
    /// As it is.
    #[default]
    Plain,
    /// Less than the rest.
    Dim,
    /// A title.
    Bold,
    /// It went well.
    Green,
    /// It went badly.
    Red,
    /// It waits for somebody, or begins again.
    Yellow,
    /// A decision or a domain event.
    Cyan,
    /// It waits.
    Blue,
    /// A person is asked.
    Magenta,
    /// A workflow ended well.
    BoldGreen,
    /// A workflow ended badly.
    BoldRed,
    /// A workflow was stopped, or is taken back.
    BoldYellow,
}

impl Ink {
    fn code(self) -> Option<&'static str> {
        match self {
            Ink::Plain => None,
            Ink::Dim => Some("2"),
            Ink::Bold => Some("1"),
            Ink::Green => Some("32"),
            Ink::Red => Some("31"),
            Ink::Yellow => Some("33"),
            Ink::Cyan => Some("36"),
            Ink::Blue => Some("34"),
            Ink::Magenta => Some("35"),
            Ink::BoldGreen => Some("1;32"),
            Ink::BoldRed => Some("1;31"),
            Ink::BoldYellow => Some("1;33"),
        }
    }
}

/// A line of text in spans. Whatever is put in is cleaned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line(Vec<(Ink, String)>);

impl Line {
    /// A line without text.
    pub fn new() -> Line {
        Line::default()
    }

    /// Adds a span.
    pub fn ink(mut self, ink: Ink, text: impl AsRef<str>) -> Line {
        self.0.push((ink, clean(text.as_ref())));
        self
    }

    /// Adds text as it is.
    pub fn plain(self, text: impl AsRef<str>) -> Line {
        self.ink(Ink::Plain, text)
    }

    /// Adds text that matters less.
    pub fn dim(self, text: impl AsRef<str>) -> Line {
        self.ink(Ink::Dim, text)
    }

    /// Columns it takes on a terminal.
    pub fn width(&self) -> usize {
        self.0.iter().map(|(_, text)| columns(text)).sum()
    }

    /// The line in at most so many columns.
    pub fn cut(mut self, width: usize) -> Line {
        if self.width() <= width {
            return self;
        }
        let mut left = width.saturating_sub(1);
        for (_, text) in &mut self.0 {
            let end = text
                .char_indices()
                .find(|(_, c)| {
                    let needed = c.width().unwrap_or(0);
                    let is_over = needed > left;
                    left = left.saturating_sub(needed);
                    is_over
                })
                .map(|(at, _)| at);
            if let Some(end) = end {
                text.truncate(end);
                left = 0;
            }
        }
        self.plain("…")
    }

    /// The line, filled up with spaces on its right.
    pub fn padded(self, width: usize) -> Line {
        let missing = width.saturating_sub(self.width());
        self.plain(" ".repeat(missing))
    }

    /// The line, filled up with spaces on its left.
    pub fn pushed(mut self, width: usize) -> Line {
        let missing = width.saturating_sub(self.width());
        self.0.insert(0, (Ink::Plain, " ".repeat(missing)));
        self
    }

    /// This line and another.
    pub fn and(mut self, other: Line) -> Line {
        self.0.extend(other.0);
        self
    }
}

impl Line {
    /// What is written of it: cleaned text, and colours around it where they are seen.
    fn painted(&self, has_colours: bool) -> String {
        let mut text = String::new();
        for (ink, span) in &self.0 {
            match ink.code().filter(|_| has_colours && !span.is_empty()) {
                Some(code) => text.extend(["\x1b[", code, "m", span, "\x1b[0m"]),
                None => text.push_str(span),
            }
        }
        text
    }
}

impl From<&str> for Line {
    fn from(text: &str) -> Line {
        Line::new().plain(text)
    }
}

impl From<String> for Line {
    fn from(text: String) -> Line {
        Line::new().plain(text)
    }
}

/// Where a command's data goes.
pub struct Out {
    to: BufWriter<Stdout>,
    has_colours: bool,
    width: usize,
    is_full: bool,
}

impl Out {
    /// Standard output.
    pub fn new() -> Out {
        let stdout = io::stdout();
        let is_terminal = stdout.is_terminal();
        Out {
            has_colours: is_terminal && colours_are_wanted(),
            width: width_of(is_terminal),
            to: BufWriter::new(stdout),
            is_full: false,
        }
    }

    /// With everything whole, however long, where a person asked for that.
    pub fn full(self, is_full: bool) -> Out {
        let width = if is_full { usize::MAX / 2 } else { self.width };
        Out { is_full, width, ..self }
    }

    /// So many of something, or all where everything is wanted whole.
    pub fn most(&self, count: usize) -> usize {
        if self.is_full { usize::MAX } else { count }
    }

    /// Columns that a line may take.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Whether inks are seen.
    pub fn has_colours(&self) -> bool {
        self.has_colours
    }

    /// Prints a line.
    ///
    /// # Errors
    /// When it cannot be written; a reader that went away ends the program.
    pub fn line(&mut self, line: impl Into<Line>) -> Result<(), Error> {
        let text = line.into().painted(self.has_colours);
        let text = text.trim_end();
        writeln!(self.to, "{text}").or_else(gone)
    }

    /// Prints a value as one line of JSON.
    ///
    /// # Errors
    /// As [`Out::line`].
    pub fn json(&mut self, value: &impl Serialize) -> Result<(), Error> {
        let text = serde_json::to_string(value)
            .map_err(|e| Error::machine(format!("a report has no JSON text: {e}")))?;
        writeln!(self.to, "{}", escaped(&text)).or_else(gone)
    }

    /// Prints bytes of this program's own as they are: never text from a log, a file or a server.
    ///
    /// # Errors
    /// As [`Out::line`].
    pub fn trusted(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.to.write_all(bytes).or_else(gone)
    }

    /// Brings what was printed to its reader.
    ///
    /// # Errors
    /// As [`Out::line`].
    pub fn flush(&mut self) -> Result<(), Error> {
        self.to.flush().or_else(gone)
    }
}

fn gone(error: io::Error) -> Result<(), Error> {
    if error.kind() == ErrorKind::BrokenPipe {
        std::process::exit(0);
    }
    Err(Error::machine(format!("standard output cannot be written: {error}")))
}

fn colours_are_wanted() -> bool {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    !is_set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

fn width_of(is_terminal: bool) -> usize {
    let told = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let seen =
        || terminal_size::terminal_size().map(|(width, _)| usize::from(width.0)).filter(|_| is_terminal);
    told.or_else(seen).unwrap_or(WIDTH_UNWATCHED).max(WIDTH_MIN)
}

/// Tells a person something that is no data, on stderr.
pub fn say(text: impl AsRef<str>) {
    // Nobody to tell it to is no reason to stop.
    let _gone = writeln!(io::stderr(), "{}", clean(text.as_ref()));
}

/// Where a person follows what happens: stderr. On a terminal, its last line may be written over.
#[derive(Clone, Copy, Debug)]
pub struct Notes {
    is_terminal: bool,
    has_colours: bool,
}

impl Notes {
    /// Standard error.
    pub fn new() -> Notes {
        let is_terminal = io::stderr().is_terminal();
        Notes { is_terminal, has_colours: is_terminal && colours_are_wanted() }
    }

    /// Whether somebody watches on a terminal.
    pub fn is_terminal(self) -> bool {
        self.is_terminal
    }

    /// Columns that a line may take: those of the terminal; off one, a line is as long as it needs to be.
    pub fn width(self) -> usize {
        if !self.is_terminal {
            return NOTE_MAX;
        }
        terminal_size::terminal_size().map_or(80, |(width, _)| usize::from(width.0))
    }

    /// Writes a line, over the last one where that may be written over.
    pub fn line(self, line: Line) {
        let erase = if self.is_terminal { "\r\x1b[K" } else { "" };
        let line = line.cut(self.width());
        // Nobody to show it to is no reason to stop the work.
        let _gone = writeln!(io::stderr().lock(), "{erase}{}", line.painted(self.has_colours).trim_end());
    }

    /// Writes the last line anew.
    pub fn over(self, line: Line) {
        let mut err = io::stderr().lock();
        let text = line.cut(self.width().saturating_sub(1)).painted(self.has_colours);
        let _gone = write!(err, "\r\x1b[K{text}").and_then(|()| err.flush());
    }
}

/// Tells a person an error and what to do next.
pub fn say_error(error: &Error) {
    let mut lines = error.message.lines();
    say(format!("error: {}", lines.next().unwrap_or_default()));
    lines.for_each(say);
    for (i, hint) in error.hint.iter().flat_map(|hint| hint.lines()).enumerate() {
        say(if i == 0 { format!("hint: {hint}") } else { format!("      {hint}") });
    }
}

/// Columns that a text takes on a terminal.
pub fn columns(text: &str) -> usize {
    text.chars().map(|c| c.width().unwrap_or(0)).sum()
}

/// Text without what a terminal obeys: escape sequences, control characters, and the marks that
/// turn the direction of writing. Line ends and tabs become spaces.
pub fn clean(text: &str) -> String {
    if !text.chars().any(is_hidden) {
        return text.to_owned();
    }
    let mut cleaned = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\n' | '\t' | '\u{2028}' | '\u{2029}' => cleaned.push(' '),
            '\u{1b}' => skip_escape(&mut rest),
            c if is_hidden(c) => {}
            c => cleaned.push(c),
        }
    }
    cleaned
}

/// Skips what follows an ESC: `[` parameters and a letter, `]` up to its end, or one letter.
fn skip_escape(rest: &mut Peekable<Chars<'_>>) {
    match rest.next_if(|c| (' '..='~').contains(c)) {
        Some('[') => {
            while rest.next_if(|c| (' '..='?').contains(c)).is_some() {}
            rest.next_if(|c| ('@'..='~').contains(c));
        }
        // The end is BEL, or an ESC with its own letter, which is skipped on its own.
        Some(']') => while rest.next_if(|c| !matches!(c, '\u{7}' | '\u{1b}')).is_some() {},
        Some(_) | None => {}
    }
}

/// Lines of JSON on standard output, written by others. A file and a pipe get them byte for byte; on a
/// terminal their strings hold nothing that it obeys, and mean the same.
pub struct JsonLines<W: Write> {
    to: W,
    is_terminal: bool,
    /// What was written of a line that has not ended, for a terminal.
    line: Vec<u8>,
    has_escaped: bool,
}

impl JsonLines<BufWriter<Stdout>> {
    /// Standard output.
    pub fn new() -> JsonLines<BufWriter<Stdout>> {
        let stdout = io::stdout();
        JsonLines {
            is_terminal: stdout.is_terminal(),
            to: BufWriter::new(stdout),
            line: Vec::new(),
            has_escaped: false,
        }
    }
}

impl<W: Write> JsonLines<W> {
    /// Whether a line is spelled otherwise than it was written.
    pub fn has_escaped(&self) -> bool {
        self.has_escaped
    }
}

impl<W: Write> Write for JsonLines<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.is_terminal {
            return self.to.write(bytes);
        }
        // A letter may be split between two writes, a line is whole.
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(piece);
            if let Some((b'\n', line)) = self.line.split_last() {
                let line = String::from_utf8_lossy(line);
                let shown = escaped(&line);
                self.has_escaped |= shown != line;
                writeln!(self.to, "{shown}")?;
                self.line.clear();
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// JSON whose strings hold nothing that a terminal obeys; it means the same.
fn escaped(json: &str) -> String {
    // JSON escapes the old control characters itself; most of it is plain ASCII.
    let is_plain = json.bytes().all(|byte| byte < 0x7f);
    if is_plain || !json.chars().any(is_hidden) {
        return json.to_owned();
    }
    let mut text = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        // What is obeyed stands only inside strings, where an escape means the same.
        if is_hidden(c) {
            let mut units = [0u16; 2];
            for unit in c.encode_utf16(&mut units) {
                text.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            text.push(c);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_has_nothing_to_obey() {
        let cases = [
            ("plain ü 漢", "plain ü 漢"),
            ("a\nb\tc", "a b c"),
            ("\x1b[31mred\x1b[0m", "red"),
            ("\x1b]0;title\x07after", "after"),
            ("\x1b]8;;http://x\x1b\\link", "link"),
            ("bell\x07 back\x08", "bell back"),
            ("\u{9b}31mc1", "31mc1"),
            ("safe\u{202e}evil", "safeevil"),
            ("\x1b", ""),
            ("\x1b[", ""),
            ("\x1b[\x1b[2Jx", "x"),
            ("\r\x1bcx", "x"),
        ];
        for (text, wanted) in cases {
            assert_eq!(clean(text), wanted, "{text:?}");
        }
    }

    #[test]
    fn json_means_the_same_and_holds_nothing_to_obey() {
        let value = serde_json::json!({"a": "\u{9b}31m\u{7f}\u{202e}\n"});
        let text = escaped(&value.to_string());
        assert!(!text.chars().any(is_hidden), "{text}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }

    #[test]
    fn lines_of_json_hold_nothing_to_obey_on_a_terminal_and_are_as_they_are_in_a_file() {
        let text = "{\"a\":\"\u{9b}31m\u{7f}\u{202e}é\"}\n{\"b\":1}\n";
        let written = |is_terminal| {
            let mut lines = JsonLines { to: Vec::new(), is_terminal, line: Vec::new(), has_escaped: false };
            // Split anywhere, also within a letter.
            for byte in text.as_bytes() {
                lines.write_all(&[*byte]).expect("memory takes it");
            }
            String::from_utf8(lines.to).expect("text")
        };
        assert_eq!(written(false), text);
        assert_eq!(written(true), "{\"a\":\"\\u009b31m\\u007f\\u202eé\"}\n{\"b\":1}\n");
    }

    #[test]
    fn a_line_is_cut_by_columns_not_by_bytes() {
        let line = Line::from("漢字漢字").dim("tail");
        assert_eq!(line.width(), 12);
        assert_eq!(line.clone().cut(12), line);
        assert!(line.clone().cut(6).width() <= 6);
        assert_eq!(
            Line::from("ab").pushed(4),
            Line(vec![(Ink::Plain, "  ".into()), (Ink::Plain, "ab".into())])
        );
    }
}
