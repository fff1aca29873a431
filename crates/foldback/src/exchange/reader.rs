//! The lines of a file that is imported, one after the other, within its bounds.

use std::io::{BufRead, Read};

use foldback_core::limits;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::lines::Seal;

/// Why a file is refused at a line.
pub enum Trouble {
    /// The line is wrong.
    Line(String),
    /// Past a bound.
    TooLong(String),
    /// The file cannot be read.
    Io(std::io::Error),
}

impl From<String> for Trouble {
    fn from(what: String) -> Trouble {
        Trouble::Line(what)
    }
}

impl From<&str> for Trouble {
    fn from(what: &str) -> Trouble {
        Trouble::Line(what.to_owned())
    }
}

/// A file, and how far it was read.
pub struct Lines<'a> {
    file: &'a mut dyn BufRead,
    /// The line that was read last, from 1.
    pub number: u64,
    bytes: usize,
    /// The hash over the lines of this document.
    pub seal: Seal,
}

impl<'a> Lines<'a> {
    pub fn of(file: &'a mut dyn BufRead) -> Lines<'a> {
        Lines { file, number: 0, bytes: 0, seal: Seal::new() }
    }

    /// The first line of a document; `None` behind the last one. It is short, so that a file of another
    /// kind is known as one at once.
    pub fn first(&mut self) -> Result<Option<String>, Trouble> {
        self.seal = Seal::new();
        let most = limits::IMPORT_HEADER_MAX_BYTES;
        if self.room() < most {
            return self.next();
        }
        let what = match self.number {
            0 => "this is no export of Foldback: its first line",
            _ => "the first line of a document",
        };
        self.next_within(most, &format!("{what} is longer than {most} bytes"))
    }

    /// The next line without its end; `None` behind the last.
    pub fn next(&mut self) -> Result<Option<String>, Trouble> {
        let most = limits::IMPORT_MAX_BYTES;
        self.next_within(self.room(), &format!("the file is longer than {most} bytes"))
    }

    fn room(&self) -> usize {
        limits::IMPORT_MAX_BYTES - self.bytes
    }

    fn next_within(&mut self, room: usize, too_long: &str) -> Result<Option<String>, Trouble> {
        self.number += 1;
        let mut line = Vec::new();
        (&mut *self.file).take(room as u64 + 1).read_until(b'\n', &mut line).map_err(Trouble::Io)?;
        if line.len() > room {
            return Err(Trouble::TooLong(too_long.to_owned()));
        }
        if line.is_empty() {
            return Ok(None);
        }
        self.bytes += line.len();
        if line.pop() != Some(b'\n') {
            return Err("the file is cut off inside this line".into());
        }
        match String::from_utf8(line) {
            Ok(line) => Ok(Some(line)),
            Err(error) => Err(format!("byte {} is not UTF-8", error.utf8_error().valid_up_to() + 1).into()),
        }
    }

    pub fn must(&mut self, what: &str) -> Result<String, Trouble> {
        self.next()?.ok_or_else(|| format!("the file ends where {what} is expected").into())
    }

    /// A line as data. It has one spelling alone, so that the next export writes the same bytes.
    pub fn read<T: Serialize + DeserializeOwned>(&mut self, line: &str) -> Result<T, Trouble> {
        let read: T = serde_json::from_str(line).map_err(|error| error.to_string())?;
        if serde_json::to_string(&read).map_err(|error| error.to_string())? != line {
            return Err("it is not spelled as an export spells it".into());
        }
        self.seal.take(line.as_bytes());
        Ok(read)
    }
}
