//! Progress through the veil: a secret may come cut into pieces, so what could be the beginning of
//! one is held back until it is known to be none.

use std::sync::{Arc, Mutex, PoisonError};

use super::Veil;
use crate::kind::Progress;

/// A stream of pieces, without secrets.
pub struct Flow {
    veil: Arc<Veil>,
    to: Progress,
    held: Mutex<String>,
}

impl Flow {
    /// Pieces go on to `to`.
    pub fn new(veil: Arc<Veil>, to: Progress) -> Arc<Flow> {
        Arc::new(Flow { veil, to, held: Mutex::default() })
    }

    /// Where pieces are put in.
    pub fn progress(self: &Arc<Flow>) -> Progress {
        let flow = self.clone();
        Arc::new(move |piece| flow.take(piece))
    }

    fn take(&self, piece: &str) {
        if self.veil.is_empty() {
            return (self.to)(piece);
        }
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.push_str(piece);
        let settled = self.veil.settled(&held);
        let rest = held.split_off(settled);
        let settled = std::mem::replace(&mut *held, rest);
        drop(held);
        self.pass(&settled);
    }

    /// There are no more pieces: what was held back goes on.
    pub fn end(&self) {
        let held = std::mem::take(&mut *self.held.lock().unwrap_or_else(PoisonError::into_inner));
        self.pass(&held);
    }

    fn pass(&self, text: &str) {
        if !text.is_empty() {
            (self.to)(&self.veil.text(text));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_in_pieces_is_hidden_however_it_is_cut() {
        let text = "a canary, a canary-long one, canar y, 42 and canaries; canary";
        let wanted = "a [s], a [long] one, canar y, [n] and canaries; [s]";
        let veil = Veil::default().hide("canary", "[s]").hide("canary-long", "[long]").hide("42", "[n]");
        let veil = Arc::new(veil);
        assert_eq!(veil.text(text), wanted);
        for size in 1..text.len() {
            let shown = Arc::new(Mutex::new(String::new()));
            let sink = shown.clone();
            let flow = Flow::new(veil.clone(), Arc::new(move |piece| sink.lock().unwrap().push_str(piece)));
            let progress = flow.progress();
            text.as_bytes().chunks(size).for_each(|piece| progress(std::str::from_utf8(piece).unwrap()));
            assert!(!shown.lock().unwrap().contains("canary"), "{size}");
            flow.end();
            assert_eq!(*shown.lock().unwrap(), wanted, "pieces of {size}");
        }
    }
}
