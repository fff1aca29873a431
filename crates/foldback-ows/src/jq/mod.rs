//! Expressions: jq, as jq 1.8 means it, compiled once and bounded by counting.
//!
//! A [`Filter`] is made from a text when a definition is loaded and evaluated as often as need be.
//! An expression sees its input and the variables it is given, and nothing else: no clock, no
//! environment, no files, no other inputs. Evaluation gives one value; what a bound stops is an
//! error like any other. Where it differs from jq stands in `docs/profile.md`, and `tests/it/jq.rs`
//! holds it to what jq itself gives.

mod access;
mod arith;
mod ast;
mod bounds;
mod code;
mod compile;
mod dates;
mod fail;
mod lex;
mod library;
mod lists;
mod machine;
mod maths;
mod natives;
mod parse;
mod paths;
mod patterns;
mod regexes;
mod sketch;
mod strings;
mod text;
mod value;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use foldback_core::report::nearest;
use serde_json::Value;

use ast::Term;
use bounds::Meter;
pub(crate) use bounds::{TEXT_MAX_BYTES, WORK_MAX};
use code::Code;
use compile::Unknown;
use fail::Thrown;
use lex::{Chunk, Tok, Token};
use machine::Machine;
pub(crate) use paths::{StaticPath, Step};
use paths::{Uses, Wanted};
pub(crate) use sketch::Sketch;

/// A compiled expression.
pub(crate) struct Filter {
    /// When the expression is nothing but a path, jq is not needed.
    plain: Option<StaticPath>,
    code: Code,
    input: Wanted,
    variables: Vec<(String, Wanted)>,
    reasons: Box<[StaticPath]>,
    /// Paths that stand left of a `//`.
    alternatives: Box<[StaticPath]>,
    /// For warnings: the outline of what it gives, and the paths it needs a value at.
    pub sketch: Sketch,
    pub needs: Vec<StaticPath>,
    /// For warnings: the paths that it takes for lists.
    pub lists: Vec<StaticPath>,
}

/// Why an expression cannot be used.
#[derive(Debug)]
pub(crate) struct Fault {
    /// Where in the text, in bytes.
    pub offset: usize,
    pub message: String,
    pub hint: Option<String>,
}

/// Why an expression gives no value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Wrong {
    /// What happened, and to which values.
    pub message: String,
    /// The same without a word of the values.
    pub plain: String,
}

impl From<String> for Wrong {
    fn from(message: String) -> Wrong {
        Wrong { plain: message.clone(), message }
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Where the variables of an expression come from: a name with its `$`, to a value.
pub(crate) type Lookup<'a> = &'a dyn Fn(&str) -> Arc<Value>;

impl Filter {
    /// Compiles an expression that may name these variables (with their `$`).
    pub fn new(text: &str, variables: &[&str]) -> Result<Filter, Fault> {
        if text.len() > bounds::TEXT_MAX_BYTES {
            let message = format!("an expression has at most {TEXT_MAX_BYTES} bytes");
            return Err(Fault { offset: 0, message, hint: None });
        }
        bracket_depth(text)?;
        let term = parse::parse(text)?;
        Filter::compile(&term, variables)
    }

    fn compile(term: &Term, variables: &[&str]) -> Result<Filter, Fault> {
        let uses = Uses::of(term);
        let plain = StaticPath::of(term)
            .filter(|path| path.base.as_deref().is_none_or(|base| variables.contains(&base)));
        let used: Vec<(String, Wanted)> =
            uses.vars.iter().filter(|(name, _)| variables.contains(&&**name)).cloned().collect();
        let names: Vec<&str> = used.iter().map(|(name, _)| name.as_str()).collect();
        let code = compile::compile(term, &names).map_err(|what| unknown(&what, variables))?;
        Ok(Filter {
            plain,
            code,
            input: uses.input,
            variables: used,
            reasons: uses
                .reasons
                .into_iter()
                .filter(|p| p.base.as_deref().is_none_or(|b| variables.contains(&b)))
                .collect(),
            alternatives: uses
                .alternatives
                .into_iter()
                .filter(|p| p.base.as_deref().is_none_or(|b| variables.contains(&b)))
                .collect(),
            sketch: Sketch::of(term),
            needs: sketch::needs(term),
            lists: lists::lists(term),
        })
    }

    /// Evaluates the expression. No output reads as null, more than one is an error.
    pub fn eval(&self, input: &Value, variables: Lookup<'_>) -> Result<Value, Wrong> {
        if let Some(path) = &self.plain {
            return self.walk(path, input, variables);
        }
        self.eval_metered(input, variables, &Meter::default())
    }

    fn eval_metered(&self, input: &Value, variables: Lookup<'_>, meter: &Meter) -> Result<Value, Wrong> {
        let values =
            self.variables.iter().map(|(name, wanted)| value::to_jq_pruned(&variables(name), wanted));
        let input = value::to_jq_pruned(input, &self.input);
        let mut machine = Machine::new(&self.code, meter, input, values.collect());
        let Some(first) = machine.next().map_err(told)? else {
            return Ok(Value::Null);
        };
        if machine.next().map_err(told)?.is_some() {
            let what = "the expression gives more than one value; write [ … ] around it to get a list";
            return Err(Wrong::from(what.to_owned()));
        }
        drop(machine);
        Ok(value::from_jq(&first)?)
    }

    fn walk(&self, path: &StaticPath, input: &Value, variables: Lookup<'_>) -> Result<Value, Wrong> {
        Ok(match &path.base {
            None => path.walk(input).cloned(),
            Some(name) => path.walk(&variables(name)).cloned(),
        }?)
    }

    /// The values of the paths that the expression looks at: the reason of a decision. A path that
    /// leads nowhere is left out.
    pub fn reasons(&self, input: &Value, variables: Lookup<'_>) -> Vec<(String, Value)> {
        let value =
            |path: &StaticPath| self.walk(path, input, variables).ok().map(|value| (path.text(), value));
        self.reasons.iter().filter_map(value).collect()
    }

    /// The paths that it looks at, where it is more than one of them alone (which asks only whether there is
    /// something).
    pub fn compared(&self) -> impl Iterator<Item = &StaticPath> {
        self.reasons.iter().filter(|_| self.plain.is_none())
    }

    /// As [`Filter::reasons`]; of a path that leads nowhere, the value at which it stops.
    pub fn looks(&self, input: &Value, variables: Lookup<'_>) -> Vec<(String, Value)> {
        let reached = |path: &StaticPath| {
            let mut path = path.clone();
            loop {
                if let Ok(value) = self.walk(&path, input, variables) {
                    return (path.text(), value);
                }
                path.steps.pop();
            }
        };
        self.reasons.iter().map(reached).collect()
    }

    /// Paths left of a `//` that give nothing: what stands right of it is taken.
    pub fn fallbacks(&self, input: &Value, variables: Lookup<'_>) -> Vec<String> {
        let gives_nothing = |path: &&StaticPath| {
            self.walk(path, input, variables)
                .is_ok_and(|value| matches!(value, Value::Null | Value::Bool(false)))
        };
        self.alternatives.iter().filter(gives_nothing).map(StaticPath::text).collect()
    }

    /// How the expression uses a variable: `None` when it does not name it, else the names of the
    /// members it looks at, or `None` for all of it.
    pub fn members_of(&self, variable: &str) -> Option<Option<BTreeSet<String>>> {
        let (_, wanted) = self.variables.iter().find(|(name, _)| name == variable)?;
        Some(members(wanted))
    }

    /// As [`Filter::members_of`], of the input.
    pub fn members_of_input(&self) -> Option<BTreeSet<String>> {
        members(&self.input)
    }
}

/// The names of the members that are looked at; `None` for all of it.
fn members(wanted: &Wanted) -> Option<BTreeSet<String>> {
    match wanted {
        Wanted::All => None,
        Wanted::Nothing => Some(BTreeSet::new()),
        Wanted::Members(needs) => Some(needs.iter().map(|need| need.name.clone()).collect()),
    }
}

/// An error for people, short enough to be recorded.
fn told(thrown: Thrown) -> Wrong {
    const MESSAGE_MAX_CHARS: usize = 300;
    let failure = match thrown {
        Thrown::Stop(bound) => return Wrong::from(format!("the expression was stopped: {bound}")),
        Thrown::Error(failure) => failure,
    };
    let message = match &failure.value {
        value::Val::Str(message) => message.to_string(),
        value => text::beginning(value, 4 * MESSAGE_MAX_CHARS).0,
    };
    let message = match message.char_indices().nth(MESSAGE_MAX_CHARS) {
        Some((at, _)) => format!("{}…", &message[..at]),
        None => message,
    };
    Wrong { message, plain: failure.plain }
}

/// Compiles an expression and evaluates it, input and variable `$context` alike: its value or what
/// is wrong with it, and the work that was counted. Every text and every value may be tried.
pub(crate) fn attempt(text: &str, input: &Value) -> (Result<Value, String>, u64) {
    let filter = match Filter::new(text, &["$context"]) {
        Ok(filter) => filter,
        Err(fault) => return (Err(fault.message), 0),
    };
    let context = Arc::new(input.clone());
    let meter = Meter::default();
    let value = filter.eval_metered(input, &|_| context.clone(), &meter);
    // What decisions record about it is looked at too.
    filter.reasons(input, &|_| context.clone());
    (value.map_err(|wrong| wrong.message), meter.work())
}

/// All that an expression gives from an input, and the error it ends with if it does.
pub(crate) fn outputs(text: &str, input: &Value) -> Result<(Vec<Value>, Option<Value>), String> {
    let filter = Filter::new(text, &[]).map_err(|fault| fault.message)?;
    let meter = Meter::default();
    let input = value::to_jq_pruned(input, &filter.input);
    let mut machine = Machine::new(&filter.code, &meter, input, Vec::new());
    let mut found = Vec::new();
    loop {
        match machine.next() {
            Ok(None) => return Ok((found, None)),
            Ok(Some(output)) => match value::from_jq(&output) {
                Ok(output) => found.push(output),
                Err(error) => return Ok((found, Some(Value::from(error)))),
            },
            Err(Thrown::Error(failure)) => {
                let error = value::from_jq(&failure.value).unwrap_or_else(Value::from);
                return Ok((found, Some(error)));
            }
            Err(Thrown::Stop(bound)) => return Ok((found, Some(Value::from(format!("stopped: {bound}"))))),
        }
    }
}

/// Whether a text names a variable, `$` included, as a token of its own.
pub(crate) fn names_variable(text: &str, variable: &str) -> bool {
    fn any(tokens: &[Token], variable: &str) -> bool {
        tokens.iter().any(|token| match &token.tok {
            Tok::Var(name) => name == variable,
            Tok::Str(chunks) => chunks.iter().any(|chunk| match chunk {
                Chunk::Code(inner) => any(inner, variable),
                Chunk::Text(_) => false,
            }),
            Tok::Word(_) | Tok::Field(_) | Tok::Format(_) | Tok::Num(_) | Tok::Sym(_) => false,
        })
    }
    // A text that does not lex is reported when it is compiled; no secret can leave through it.
    bracket_depth(text).is_ok() && lex::lex(text).is_ok_and(|tokens| any(&tokens, variable))
}

/// The path that a text is, if it is nothing but one.
pub(crate) fn static_path(text: &str) -> Option<StaticPath> {
    if text.len() > 256 || bracket_depth(text).is_err() {
        return None;
    }
    StaticPath::of(&parse::parse(text).ok()?)
}

fn unknown(what: &Unknown, variables: &[&str]) -> Fault {
    let (message, hint, offset) = match what {
        Unknown::Var(name, at) => {
            let near = nearest(name, variables.iter().copied());
            let hint = match (name.as_str(), near) {
                ("$ENV" | "$__prog_args", _) => {
                    "expressions do not see the environment; pass the value in the input".to_owned()
                }
                (_, Some(near)) => format!("did you mean `{near}`?"),
                (_, None) => format!("known here: {}", variables.join(", ")),
            };
            (format!("the variable `{name}` is not known here"), hint, *at)
        }
        Unknown::Filter(name, arity, at) => {
            let hint = match (name.as_str(), nearest(name, library::names())) {
                ("now" | "localtime" | "strflocaltime", _) => {
                    "expressions see no clock; use `$workflow.startedAt` or a step that answers with the time"
                        .to_owned()
                }
                ("env", _) => {
                    "expressions do not see the environment; pass the value in the input".to_owned()
                }
                (
                    "input" | "inputs" | "input_filename" | "input_line_number" | "debug" | "stderr" | "halt"
                    | "halt_error" | "get_search_list" | "modulemeta",
                    _,
                ) => "expressions only compute a value from their input".to_owned(),
                (_, Some(near)) if near != name => format!("did you mean `{near}`?"),
                _ => "see the jq manual for what there is".to_owned(),
            };
            (format!("there is no filter `{name}/{arity}`"), hint, *at)
        }
        Unknown::Label(name, at) => (
            format!("the label `{name}` is not known here"),
            format!("write `label {name} | …` around it"),
            *at,
        ),
        Unknown::Format(name, at) => (
            format!("there is no format `{name}`"),
            "there are @text, @json, @csv, @tsv, @html, @uri, @urid, @sh, @base64 and @base64d".to_owned(),
            *at,
        ),
    };
    Fault { offset, message, hint: Some(hint) }
}

/// Refuses brackets that nest deep before anything recurses over them. Brackets in texts count
/// too: they may be interpolations.
fn bracket_depth(text: &str) -> Result<(), Fault> {
    let mut depth = 0u32;
    for (offset, byte) in text.bytes().enumerate() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > bounds::NESTING_MAX {
            return Err(Fault {
                offset,
                message: format!("brackets nest more than {} deep", bounds::NESTING_MAX),
                hint: None,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
