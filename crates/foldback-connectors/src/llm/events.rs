//! Server-sent events, read from bytes as they come. A line and an event have a bound: a server
//! that never ends a line must not fill the memory.
//!
//! It never looks into what an event carries: see `heard`.

use foldback_core::limits;

/// One event of a stream.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Frame {
    /// The name of the event; empty where it has none.
    pub(super) name: String,
    /// Its data, the lines joined.
    pub(super) data: String,
}

/// A line, or an event, that is longer than its bound.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLong;

/// What was read of a stream, up to the event that is not complete yet.
#[derive(Debug, Default)]
pub(super) struct Events {
    line: Vec<u8>,
    name: String,
    data: Option<Vec<u8>>,
    /// Whether the last byte was `\r`, which a `\n` may follow as a part of the same line end.
    is_after_return: bool,
}

impl Events {
    /// Reads a piece of the stream; gives the events that it completes.
    ///
    /// # Errors
    /// A line or an event that is too long.
    pub(super) fn read(&mut self, piece: &[u8]) -> Result<Vec<Frame>, TooLong> {
        let (mut frames, mut rest) = (Vec::new(), piece);
        if rest.first() == Some(&b'\n') && self.is_after_return {
            rest = &rest[1..];
        }
        self.is_after_return = false;
        while let Some(end) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            self.hold(&rest[..end])?;
            frames.extend(self.end_line()?);
            let is_return = rest[end] == b'\r';
            rest = &rest[end + 1..];
            if is_return {
                match rest.first() {
                    Some(b'\n') => rest = &rest[1..],
                    Some(_) => {}
                    None => self.is_after_return = true,
                }
            }
        }
        self.hold(rest)?;
        Ok(frames)
    }

    /// The stream has ended: the event that no empty line closed.
    pub(super) fn end(&mut self) -> Option<Frame> {
        // What is too long was refused when it was read.
        self.end_line().ok().flatten().or_else(|| self.dispatch())
    }

    fn hold(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        let held = self.line.len() + self.data.as_ref().map_or(0, Vec::len);
        if held + bytes.len() > limits::MODEL_EVENT_MAX_BYTES {
            return Err(TooLong);
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn end_line(&mut self) -> Result<Option<Frame>, TooLong> {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            return Ok(self.dispatch());
        }
        let (field, value) = match line.iter().position(|byte| *byte == b':') {
            Some(at) => (&line[..at], &line[at + 1..]),
            None => (&line[..], &[][..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" => {
                let data = self.data.get_or_insert_default();
                if !data.is_empty() {
                    data.push(b'\n');
                }
                data.extend_from_slice(value);
            }
            b"event" => self.name = String::from_utf8_lossy(value).into_owned(),
            // Comments (an empty field), ids, and fields of next year.
            _ => {}
        }
        Ok(None)
    }

    fn dispatch(&mut self) -> Option<Frame> {
        let name = std::mem::take(&mut self.name);
        let data = self.data.take()?;
        Some(Frame { name, data: String::from_utf8_lossy(&data).into_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8], size: usize) -> Vec<(String, String)> {
        let mut events = Events::default();
        let mut frames = Vec::new();
        for piece in text.chunks(size) {
            frames.extend(events.read(piece).expect("within its bounds"));
        }
        frames.extend(events.end());
        frames.into_iter().map(|frame| (frame.name, frame.data)).collect()
    }

    #[test]
    fn streams_as_a_table_however_they_are_cut() {
        for (text, expected) in [
            ("data: a\n\ndata: b\n\n", vec![("", "a"), ("", "b")]),
            ("data:a\r\n\r\ndata: b\r\n\r\n", vec![("", "a"), ("", "b")]),
            ("data: a\r\rdata: b\r\r", vec![("", "a"), ("", "b")]),
            (": comment\n\nevent: error\ndata: a\n\n", vec![("error", "a")]),
            ("data: a\ndata:  b\n\n", vec![("", "a\n b")]),
            ("id: 7\nretry: 9\ndata\n\n", vec![("", "")]),
            ("event: nothing\n\ndata: a", vec![("", "a")]),
            ("data: wörld ✓\n\n", vec![("", "wörld ✓")]),
        ] {
            let expected: Vec<_> = expected.iter().map(|(n, d)| (n.to_string(), d.to_string())).collect();
            for size in [1, 2, 3, 5, text.len()] {
                assert_eq!(read(text.as_bytes(), size), expected, "{text:?} in pieces of {size}");
            }
        }
    }

    #[test]
    fn a_line_without_an_end_is_refused_before_it_fills_the_memory() {
        let mut events = Events::default();
        let piece = vec![b'x'; 64 * 1024];
        let mut read = 0;
        while events.read(&piece).is_ok() {
            read += piece.len();
            assert!(read <= limits::MODEL_EVENT_MAX_BYTES);
        }
        // So are lines without end of one event.
        let mut events = Events::default();
        let line = [b"data: ".as_slice(), &piece, b"\n"].concat();
        let mut lines = 0;
        while events.read(&line).is_ok() {
            lines += 1;
            assert!(lines * piece.len() <= limits::MODEL_EVENT_MAX_BYTES);
        }
    }
}
