//! Tables: columns as wide as what stands in them, cut where the terminal ends.

use crate::error::Error;
use crate::out::{Ink, Line, Out};

/// No column is cut to less.
const COLUMN_MIN: usize = 8;

/// A column's title and how it stands.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    title: &'static str,
    is_right: bool,
    may_be_cut: bool,
}

/// A column of words that is never cut: ids, keys, statuses.
pub fn whole(title: &'static str) -> Column {
    Column { title, is_right: false, may_be_cut: false }
}

/// A column of numbers.
pub fn number(title: &'static str) -> Column {
    Column { title, is_right: true, may_be_cut: false }
}

/// A column of text that is cut where the terminal ends.
pub fn text(title: &'static str) -> Column {
    Column { title, is_right: false, may_be_cut: true }
}

/// Prints rows under their titles; columns without titles stand under none. A row of one cell, where there
/// are more columns, is a remark: it stands on a line of its own.
///
/// # Errors
/// As [`Out::line`].
pub fn print(out: &mut Out, columns: &[Column], rows: Vec<Vec<Line>>) -> Result<(), Error> {
    let mut widths: Vec<usize> = columns.iter().map(|column| column.title.len()).collect();
    let is_remark = |row: &[Line]| row.len() < columns.len();
    for row in rows.iter().filter(|row| !is_remark(row)) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.width());
        }
    }
    let gaps = 2 * columns.len().saturating_sub(1);
    while widths.iter().sum::<usize>() + gaps > out.width() {
        let widest = (0..widths.len())
            .filter(|&at| columns[at].may_be_cut && widths[at] > COLUMN_MIN)
            .max_by_key(|&at| widths[at]);
        let Some(widest) = widest else { break };
        widths[widest] -= 1;
    }
    let has_titles = columns.iter().any(|column| !column.title.is_empty());
    let titles =
        has_titles.then(|| columns.iter().map(|column| Line::new().ink(Ink::Dim, column.title)).collect());
    for row in titles.into_iter().chain(rows) {
        if is_remark(&row) {
            row.into_iter().try_for_each(|remark| out.line(remark))?;
            continue;
        }
        let mut line = Line::new();
        for (at, cell) in row.into_iter().enumerate() {
            let cell = if columns[at].may_be_cut { cell.cut(widths[at]) } else { cell };
            let cell = if columns[at].is_right { cell.pushed(widths[at]) } else { cell.padded(widths[at]) };
            line = if at == 0 { cell } else { line.plain("  ").and(cell) };
        }
        out.line(line)?;
    }
    Ok(())
}
