//! Expressions: jq by jaq, compiled once and bounded by counting.
//!
//! A [`Filter`] is made from a text when a definition is loaded and evaluated as often as need be.
//! An expression sees its input and the variables it is given, and nothing else: no clock, no
//! environment, no files, no other inputs. Evaluation gives one value; what a bound stops is an
//! error like any other.

mod bounds;
mod depth;
mod library;
mod lists;
mod natives;
mod paths;
mod rewrite;
mod sketch;
mod value;

use std::collections::BTreeSet;
use std::sync::Arc;

use jaq_core::compile::Undefined;
use jaq_core::load::lex::{Lexer, StrPart, Tok, Token};
use jaq_core::load::parse::{Def, Parser, Term};
use jaq_core::load::{Arena, File, Loader};
use jaq_core::{Compiler, Ctx, Vars};
use serde_json::Value;

use bounds::Meter;
pub(crate) use bounds::{TEXT_MAX_BYTES, TOKENS_MAX, WORK_MAX};
use foldback_core::report::nearest;
use natives::{Metered, Tools};
pub(crate) use paths::{StaticPath, Step};
use paths::{Uses, Wanted};
use rewrite::Rewriter;
pub(crate) use sketch::Sketch;

/// A compiled expression.
pub(crate) struct Filter {
    /// When the expression is nothing but a path, jq is not needed.
    plain: Option<StaticPath>,
    compiled: jaq_core::Filter<Metered>,
    input: Wanted,
    variables: Vec<(String, Wanted)>,
    reasons: Vec<StaticPath>,
    /// For warnings: the outline of what it gives, and the paths it needs a value at.
    pub sketch: Sketch,
    pub needs: Vec<StaticPath>,
    /// For warnings: the paths that it takes for lists.
    pub lists: Vec<StaticPath>,
    depth: u32,
}

/// Why an expression cannot be used.
#[derive(Debug)]
pub(crate) struct Fault {
    /// Where in the text, in bytes.
    pub offset: usize,
    pub message: String,
    pub hint: Option<String>,
}

/// Where the variables of an expression come from: a name with its `$`, to a value.
pub(crate) type Lookup<'a> = &'a dyn Fn(&str) -> Arc<Value>;

impl Filter {
    /// Compiles an expression that may name these variables (with their `$`).
    pub fn new(text: &str, variables: &[&str]) -> Result<Filter, Fault> {
        let fault = |offset, message: String| Fault { offset, message, hint: None };
        if text.len() > bounds::TEXT_MAX_BYTES {
            return Err(fault(0, format!("an expression has at most {TEXT_MAX_BYTES} bytes")));
        }
        bracket_depth(text)?;
        let tokens = Lexer::new(text).lex().map_err(|errors| {
            let (expected, rest) =
                errors.into_iter().next().map_or(("something else", ""), |(e, rest)| (e.as_str(), rest));
            fault(offset_in(text, rest).unwrap_or(0), format!("expected {expected}"))
        })?;
        let mut size = Size::default();
        size.measure(&tokens, 0);
        if size.tokens > TOKENS_MAX || size.nesting > bounds::NESTING_MAX {
            let message = format!(
                "an expression has at most {TOKENS_MAX} tokens and nests at most {} deep",
                bounds::NESTING_MAX
            );
            return Err(Fault {
                hint: Some("split it over several `set` tasks".into()),
                ..fault(0, message)
            });
        }
        let term = Parser::new(&tokens).parse(|p| p.term()).map_err(|errors| {
            let Some((expected, found)) = errors.into_iter().next() else {
                return fault(0, "cannot be read".into());
            };
            let (offset, found) = match found {
                Some(token) => (offset_in(text, token.0).unwrap_or(0), format!("`{}`", token.0)),
                None => (text.len(), "the end".to_owned()),
            };
            fault(offset, format!("expected {}, found {found}", expected.as_str()))
        })?;
        Filter::compile(text, term, variables)
    }

    fn compile(text: &str, term: Term<&str>, variables: &[&str]) -> Result<Filter, Fault> {
        const MAIN: &str = "foldback_main";
        let uses = Uses::of(&term);
        let (sketch, needs, lists) = (Sketch::of(&term), sketch::needs(&term), lists::lists(&term));
        let plain = StaticPath::of(&term)
            .filter(|path| path.base.as_deref().is_none_or(|base| variables.contains(&base)));
        let mut rewriter = Rewriter {
            natives: &library::is_native,
            around: Vec::new(),
            made: Vec::new(),
            fresh: library::FRESH,
        };
        let body = rewriter.term(term, &[]);
        let depth = depth::depth(&body, &library::depth_of);
        if depth > bounds::DEPTH_MAX {
            return Err(Fault {
                offset: 0,
                message: format!(
                    "the expression nests too deep ({depth}, where {} is the most)",
                    bounds::DEPTH_MAX
                ),
                hint: Some("split it over several `set` tasks".into()),
            });
        }
        let main = Def { name: MAIN, args: Vec::new(), body };
        let used: Vec<(String, Wanted)> =
            uses.vars.iter().filter(|(name, _)| variables.contains(&&**name)).cloned().collect();
        let arena = Arena::default();
        let modules = Loader::new(library::needed(&uses.calls).into_iter().chain([main]))
            .load(&arena, File { code: MAIN, path: () })
            .map_err(|_| Fault { offset: 0, message: "cannot be compiled".into(), hint: None })?;
        let compiled = Compiler::default()
            .with_funs(natives::all())
            .with_global_vars(used.iter().map(|(name, _)| name.as_str()))
            .compile(modules)
            .map_err(|errors| {
                let undefined = errors.into_iter().flat_map(|(_, errors)| errors).next();
                undefined.map_or_else(
                    || Fault { offset: 0, message: "cannot be compiled".into(), hint: None },
                    |(name, what)| unknown(text, name, &what, variables),
                )
            })?;
        Ok(Filter {
            plain,
            compiled,
            input: uses.input,
            variables: used,
            reasons: uses
                .reasons
                .into_iter()
                .filter(|p| p.base.as_deref().is_none_or(|b| variables.contains(&b)))
                .collect(),
            sketch,
            needs,
            lists,
            depth,
        })
    }

    /// Evaluates the expression. No output reads as null, more than one is an error.
    pub fn eval(&self, input: &Value, variables: Lookup<'_>) -> Result<Value, String> {
        if let Some(path) = &self.plain {
            return self.walk(path, input, variables);
        }
        self.eval_metered(input, variables, &Meter::for_depth(self.depth))
    }

    fn eval_metered(&self, input: &Value, variables: Lookup<'_>, meter: &Meter) -> Result<Value, String> {
        let values =
            self.variables.iter().map(|(name, wanted)| value::to_jq_pruned(&variables(name), wanted));
        let tools = Tools { lut: &self.compiled.lut, meter };
        let context = Ctx::<Metered>::new(tools, Vars::new(values));
        let mut outputs = self.compiled.id.run((context, value::to_jq_pruned(input, &self.input)));
        let Some(first) = outputs.next() else {
            return match meter.over() {
                Some(bound) => Err(format!("the expression was stopped: {bound}")),
                None => Ok(Value::Null),
            };
        };
        let first = bounds::settle(meter, first)?;
        if let Some(second) = outputs.next() {
            bounds::settle(meter, second)?;
            return Err(
                "the expression gives more than one value; write [ … ] around it to get a list".into()
            );
        }
        value::from_jq(first)
    }

    fn walk(&self, path: &StaticPath, input: &Value, variables: Lookup<'_>) -> Result<Value, String> {
        match &path.base {
            None => path.walk(input).cloned(),
            Some(name) => path.walk(&variables(name)).cloned(),
        }
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

/// Compiles an expression and evaluates it, input and variable `$context` alike: its value or what
/// is wrong with it, and the work that was counted. Every text and every value may be tried.
pub(crate) fn attempt(text: &str, input: &Value) -> (Result<Value, String>, u64) {
    let filter = match Filter::new(text, &["$context"]) {
        Ok(filter) => filter,
        Err(fault) => return (Err(fault.message), 0),
    };
    let context = Arc::new(input.clone());
    let meter = Meter::for_depth(filter.depth);
    let value = filter.eval_metered(input, &|_| context.clone(), &meter);
    // What decisions record about it is looked at too.
    filter.reasons(input, &|_| context.clone());
    (value, meter.work())
}

/// Whether a text names a variable, `$` included, as a token of its own.
pub(crate) fn names_variable(text: &str, variable: &str) -> bool {
    fn any(tokens: &[Token<&str>], variable: &str) -> bool {
        tokens.iter().any(|Token(text, token)| match token {
            Tok::Var => *text == variable,
            Tok::Block(inner) => any(inner, variable),
            Tok::Str(parts) => parts.iter().any(|part| match part {
                StrPart::Term(inner) => any(std::slice::from_ref(inner), variable),
                StrPart::Str(_) | StrPart::Char(_) => false,
            }),
            Tok::Word | Tok::Fmt | Tok::Num | Tok::Sym => false,
        })
    }
    // A text that does not lex is reported when it is compiled; no secret can leave through it.
    bracket_depth(text).is_ok() && Lexer::new(text).lex().is_ok_and(|tokens| any(&tokens, variable))
}

/// The path that a text is, if it is nothing but one.
pub(crate) fn static_path(text: &str) -> Option<StaticPath> {
    if text.len() > 256 || bracket_depth(text).is_err() {
        return None;
    }
    let tokens = Lexer::new(text).lex().ok()?;
    StaticPath::of(&Parser::new(&tokens).parse(|p| p.term()).ok()?)
}

fn unknown(text: &str, name: &str, what: &Undefined, variables: &[&str]) -> Fault {
    let offset = offset_in(text, name).unwrap_or(0);
    let (message, hint) = match what {
        Undefined::Var => {
            let near = nearest(name, variables.iter().copied());
            let hint = match (name, near) {
                ("$ENV" | "$__prog_args", _) => {
                    "expressions do not see the environment; pass the value in the input".to_owned()
                }
                (_, Some(near)) => format!("did you mean `{near}`?"),
                (_, None) => format!("known here: {}", variables.join(", ")),
            };
            (format!("the variable `{name}` is not known here"), hint)
        }
        Undefined::Filter(arity) => {
            let hint = match (
                name,
                nearest(name, library::names().chain(["length", "sort", "sort_by", "group_by", "contains"])),
            ) {
                ("now" | "localtime" | "strflocaltime", _) => {
                    "expressions see no clock; use `$workflow.startedAt` or a step that answers with the time"
                        .to_owned()
                }
                ("env", _) => {
                    "expressions do not see the environment; pass the value in the input".to_owned()
                }
                ("input" | "inputs" | "input_filename" | "debug" | "stderr" | "halt" | "halt_error", _) => {
                    "expressions only compute a value from their input".to_owned()
                }
                (_, Some(near)) if near != name => format!("did you mean `{near}`?"),
                _ => "see the jq manual for what there is".to_owned(),
            };
            (format!("there is no filter `{name}/{arity}`"), hint)
        }
        Undefined::Label => {
            (format!("the label `{name}` is not known here"), "write `label $name | …` around it".to_owned())
        }
        _ => (format!("`{name}` is not known here"), "modules cannot be used".to_owned()),
    };
    Fault { offset, message, hint: Some(hint) }
}

/// Where `part` stands in `whole`, when it is a piece of it.
fn offset_in(whole: &str, part: &str) -> Option<usize> {
    (part.as_ptr() as usize).checked_sub(whole.as_ptr() as usize).filter(|offset| *offset <= whole.len())
}

/// Refuses brackets that nest deep before anything recurses over them. Brackets in texts count
/// too: they may be interpolations.
fn bracket_depth(text: &str) -> Result<(), Fault> {
    let mut depth = 0usize;
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

/// How large an expression is, before it is parsed.
#[derive(Default)]
struct Size {
    tokens: usize,
    nesting: usize,
}

impl Size {
    /// Each operator, and each word that opens something, may nest the expression by one.
    fn measure(&mut self, tokens: &[Token<&str>], above: usize) {
        let mut here = above;
        for Token(text, token) in tokens {
            self.tokens += 1;
            match token {
                Tok::Block(inner) => self.measure(inner, here + 1),
                Tok::Str(parts) => {
                    for part in parts {
                        if let StrPart::Term(inner) = part {
                            self.measure(std::slice::from_ref(inner), here + 1);
                        }
                    }
                }
                // A list nests nothing, a path only while it is walked.
                Tok::Sym if matches!(*text, "." | ";" | ":" | "?") => {}
                Tok::Sym => here += 1,
                Tok::Word
                    if matches!(
                        *text,
                        "if" | "elif" | "try" | "reduce" | "foreach" | "def" | "label" | "as" | "and" | "or"
                    ) =>
                {
                    here += 1
                }
                Tok::Word | Tok::Var | Tok::Fmt | Tok::Num => {}
            }
            self.nesting = self.nesting.max(here);
        }
    }
}

#[cfg(test)]
mod tests;
