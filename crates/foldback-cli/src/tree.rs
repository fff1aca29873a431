//! The tree of `show`: scopes, steps, decisions and waits below each other, each on a line.

use foldback::core::report::{
    AttemptReport, Edited, LeftOut, Over, ReportedStatus, Tokens, TreeNode, What, brief, dollars, why_in,
};
use foldback::core::{Failure, Verdict, WorkflowState};
use serde_json::Value;

use crate::moment::{span, with_seconds};
use crate::now::{self, Now};
use crate::out::{Ink, Line};
use crate::state::mark;

/// Characters of a value that stands in the middle of a line.
const VALUE_MAX: usize = 120;

/// A line of the tree: the name with its branch, and what is said of it.
pub struct TreeLine {
    /// The name, behind its branch.
    pub name: Line,
    /// What is said of it.
    pub rest: Line,
}

/// What is known around a tree.
pub struct Around<'a> {
    /// The state that its workflow is in.
    pub state: &'a WorkflowState,
    /// This moment, where the tree is of now and the workflow has not ended.
    pub now: Option<Now>,
    /// Whether everything is wanted whole.
    pub is_full: bool,
}

impl Around<'_> {
    fn most(&self, count: usize) -> usize {
        if self.is_full { usize::MAX } else { count }
    }
}

/// Lays the nodes out below each other. `indent` is what stands before their branches.
pub fn lay_out(
    around: &Around<'_>,
    nodes: &[TreeNode],
    left_out: Option<&LeftOut>,
    indent: &str,
    is_top: bool,
    rows: &mut Vec<TreeLine>,
) {
    for (at, node) in nodes.iter().enumerate() {
        let is_last = at + 1 == nodes.len();
        let (branch, below) = match (is_top, is_last) {
            (true, _) => ("", ""),
            (false, false) => ("├─ ", "│  "),
            (false, true) => ("└─ ", "   "),
        };
        if let Some(left_out) = left_out.filter(|left_out| left_out.after == at) {
            let name = Line::new().dim(format!("{indent}{branch}{}", counted(left_out)));
            rows.push(TreeLine { name, rest: Line::new() });
        }
        rows.push(TreeLine { name: name(node, &format!("{indent}{branch}")), rest: rest(around, node) });
        let below = format!("{indent}{below}");
        if let What::Step { failed_attempts, .. } = &node.what {
            rows.extend(failed_attempts.iter().map(|attempt| attempt_line(attempt, &below)));
        }
        lay_out(around, &node.children, node.left_out.as_ref(), &below, false, rows);
    }
}

fn counted(left_out: &LeftOut) -> String {
    let mut text = format!("… {} more", left_out.nodes);
    if left_out.failed > 0 {
        text += &format!(", {} of them failed", left_out.failed);
    }
    if left_out.tokens != Tokens::default() {
        text += &format!(", {}+{} tokens", left_out.tokens.input, left_out.tokens.output);
    }
    if left_out.micro_usd > 0 {
        text += &format!(", {}", dollars(left_out.micro_usd));
    }
    format!("{text}; --full shows all")
}

/// An attempt that did not end its step, with the answer that was rejected.
fn attempt_line(attempt: &AttemptReport, below: &str) -> TreeLine {
    let error = &attempt.error;
    TreeLine {
        name: Line::new().dim(format!("{below}  try {}", attempt.attempt)),
        rest: Line::new()
            .ink(Ink::Yellow, format!("{} {}", error.status, error.title))
            .plain(reason(error, attempt.rejected.as_deref())),
    }
}

/// The decisive part of an error, and the answer that was rejected.
pub fn reason(error: &Failure, rejected: Option<&Value>) -> String {
    let detail = error.detail.as_deref().map(|detail| format!(": {detail}")).unwrap_or_default();
    let answered = rejected.map(|answer| format!("; it answered {answer}")).unwrap_or_default();
    format!("{detail}{answered}")
}

fn name(node: &TreeNode, branch: &str) -> Line {
    let (sign, ink) = match (&node.what, node.status) {
        (What::Decision { .. }, _) => ("◆", Ink::Cyan),
        (What::Event { .. }, _) => ("●", Ink::Cyan),
        (What::Scope { .. } | What::Step { .. } | What::Timer { .. } | What::Listen { .. }, status) => {
            mark(status)
        }
    };
    let label = match (&node.what, node.label.strip_prefix('!')) {
        // A mark reads as a word: the second try, the handler.
        (What::Scope { .. }, Some(mark)) if mark.bytes().all(|b| b.is_ascii_digit()) => {
            format!("try {mark}")
        }
        (_, Some(mark)) => mark.to_owned(),
        (_, None) => node.label.replace('!', " "),
    };
    Line::new().dim(branch).ink(ink, sign).plain(" ").plain(label)
}

fn rest(around: &Around<'_>, node: &TreeNode) -> Line {
    let line = said(around, node);
    if node.left_context.is_empty() {
        return line;
    }
    line.ink(Ink::Yellow, format!("  $context loses {}", node.left_context.join(", ")))
}

fn said(around: &Around<'_>, node: &TreeNode) -> Line {
    match &node.what {
        What::Decision { chosen, options, because: values } => {
            let others: Vec<&str> =
                options.iter().map(String::as_str).filter(|option| option != chosen).collect();
            let over = if others.is_empty() { String::new() } else { format!(" over {}", others.join(", ")) };
            let why = if **values == Value::Null {
                String::new()
            } else {
                format!("  because {}", why_in(values, around.is_full))
            };
            Line::new().plain("chose ").ink(Ink::Cyan, chosen).dim(over).dim(why)
        }
        What::Event { event_type } => Line::new().ink(Ink::Cyan, &**event_type),
        What::Timer { due } if node.duration_ms.is_none() => {
            Line::new().ink(Ink::Yellow, format!("waits {}", now::until(due.0, around.now)))
        }
        What::Timer { .. } => Line::new().dim("waited").and(figures(node)),
        What::Listen { names, .. } if node.duration_ms.is_none() => {
            let deadline = now::deadline(around.state, &node.key, around.now);
            Line::new().ink(Ink::Yellow, format!("waits for {}{deadline}", names.join(", ")))
        }
        What::Listen { names, answered: Some("default") } => Line::new()
            .dim(names.join(", "))
            .and(figures(node))
            .ink(Ink::Yellow, "  nobody answered: its default was taken"),
        What::Listen { names, .. } => Line::new().dim(names.join(", ")).and(figures(node)),
        What::Scope { task, over } => {
            let figures = figures(node);
            let line = match task {
                Some(task) => Line::new().dim(format!("{task:?}").to_lowercase()).and(figures),
                None => figures,
            };
            over.as_ref().map_or(line.clone(), |over| line.dim(items(around, over)))
        }
        What::Step {
            kind,
            attempts,
            lost_attempts,
            model,
            variant,
            finish_reason,
            found_in,
            is_estimated,
            is_unpriced,
            error,
            due,
            reused,
            held,
            settled,
            edited,
            ..
        } => {
            let mut line = Line::new().dim(&**kind);
            if let Some(model) = model {
                line = line.dim(format!(" {model}"));
            }
            if *variant > 0 {
                line = line.ink(Ink::Yellow, format!(" fallback {variant}"));
            }
            line = line.and(figures(node));
            if *is_unpriced && kind.as_ref() == "llm" {
                line = line.dim(if node.micro_usd > 0 { " or more" } else { "  no price known" });
            }
            if *is_estimated {
                line = line.dim("  tokens estimated");
            }
            if let Some(place) = found_in {
                line = line.dim(format!("  answer from {place}"));
            }
            if finish_reason.as_deref() == Some("length") {
                line = line.ink(Ink::Yellow, "  cut at max_tokens");
            }
            if *attempts > 1 {
                let lost = match lost_attempts {
                    0 => String::new(),
                    lost if node.status == ReportedStatus::Cancelled => {
                        format!(", {lost} cut off, or lost with its process")
                    }
                    lost => format!(", {lost} lost with its process"),
                };
                line = line.ink(Ink::Yellow, format!("  {attempts} attempts{lost}"));
            }
            if let Some(due) = due {
                line = line.ink(Ink::Yellow, format!("  again at {}", with_seconds(due.0)));
            }
            if let Some(from) = reused {
                line = line.ink(Ink::Cyan, format!("  from {} version {}", from.workflow, from.version));
            }
            if let Some(why) = held {
                line = line.ink(Ink::Yellow, format!("  held: {why}"));
            }
            if let Some(edited) = edited {
                line = line.ink(Ink::Cyan, edited_text(around, edited));
            }
            match settled {
                Some(Verdict::Stub) => line = line.ink(Ink::Yellow, "  stubbed: nothing happened"),
                Some(Verdict::Live) => line = line.dim("  live"),
                Some(Verdict::Deny) | None => {}
            }
            match error {
                Some(error) if node.status != ReportedStatus::Completed => {
                    line.ink(Ink::Red, format!("  {} {}", error.status, error.title))
                }
                _ if node.status == ReportedStatus::Unknown => line.ink(Ink::Yellow, "  did it happen?"),
                _ => line,
            }
        }
    }
}

fn items(around: &Around<'_>, over: &Over) -> String {
    let s = if over.count == 1 { "" } else { "s" };
    let mut first: Vec<String> =
        over.first.iter().map(|item| brief(item, around.most(VALUE_MAX / 4))).collect();
    if over.count > first.len() {
        first.push("…".to_owned());
    }
    let which = if first.is_empty() { String::new() } else { format!(": {}", first.join(", ")) };
    format!("  over {} item{s}{which}", over.count)
}

fn edited_text(around: &Around<'_>, edited: &Edited) -> String {
    let was = edited.was.as_ref().map(|was| format!(", it was {}", brief(was, around.most(VALUE_MAX))));
    format!("  edited {}{}", edited.what, was.unwrap_or_default())
}

/// Time, tokens and cost, as far as there are any.
fn figures(node: &TreeNode) -> Line {
    let mut line = Line::new();
    // What the program computes itself takes no time that is worth a word.
    let is_instant = matches!(&node.what, What::Step { kind, .. } if matches!(&**kind, "set" | "compute"));
    if let Some(millis) = node.duration_ms.filter(|_| !is_instant) {
        line = line.plain(format!("  {}", span(millis)));
    }
    if node.tokens != Tokens::default() {
        line = line.dim(format!("  {}+{} tokens", node.tokens.input, node.tokens.output));
    }
    if node.micro_usd > 0 {
        line = line.dim(format!("  {}", dollars(node.micro_usd)));
    }
    line
}
