//! The Open Workflow Specification as a Foldback program: loading, checking, interpreting.
//!
//! A definition is read once ([`load`]), every problem is named by line and column, and what is
//! stored ([`Loaded::canonical`]) needs no file again. [`OwsProgram`] walks a workflow's state
//! and asks for what comes next; it keeps nothing between turns.
//!
//! What this crate never does: read a clock, draw a random number, touch a file or a socket.
//! Files of a definition come through the function that [`load`] is given.
//!
//! The rooms: `tree` (YAML with places), `resolve` (files), `read` (what a definition may say),
//! `jq` (expressions, bounded by counting), `schema` (what data must look like), `lint` (what is seldom
//! meant), `program` (what was read), `walk` (the interpreter), `projection` (projections in jq).

mod jq;
mod lint;
mod problem;
mod program;
mod projection;
mod read;
mod resolve;
mod scalar;
mod schema;
mod template;
mod tree;
mod walk;

use std::sync::Arc;

use foldback_core::Hash;
use foldback_core::hash::canonical_json;

pub use problem::Problem;
pub use program::OwsProgram;
pub use projection::{JqProjection, load_projection};

use problem::Report;
use read::Reading;

/// Resolves `{ file: path }` relative to the definition; the error is a message.
pub type Files<'a> = &'a dyn Fn(&str) -> Result<String, String>;

/// A definition that was read.
#[derive(Debug)]
pub struct Loaded {
    /// The hash of the canonical form: what a workflow is pinned to.
    pub hash: Hash,
    /// What a person calls it: name and version, such as "article 0.1.0".
    pub name: String,
    /// The stored form: canonical JSON with every file resolved.
    pub canonical: String,
    /// The source as it was given.
    pub source: String,
    /// What is allowed and looks like a mistake.
    pub warnings: Vec<Problem>,
    /// Models that stand in the definition, with line and column.
    pub models: Vec<(String, u32, u32)>,
    /// Budgets in money that stand in the definition, by line and column.
    pub money_budgets: Vec<(u32, u32)>,
    /// Names of the secrets it declares.
    pub secrets: Vec<String>,
    /// The program.
    pub program: Arc<OwsProgram>,
}

impl Loaded {
    /// Whether a workflow can begin with this input.
    ///
    /// # Errors
    /// What of the input's schema it misses.
    pub fn check_input(&self, input: &serde_json::Value) -> Result<(), String> {
        let schema = self.program.inner.input_schema.as_ref();
        schema.and_then(|schema| schema.miss(input)).map_or(Ok(()), Err)
    }
}

/// Reads a definition, YAML or JSON.
///
/// # Errors
/// Everything that is wrong with it, each with line and column.
pub fn load(source: &str, files: Files<'_>) -> Result<Loaded, Vec<Problem>> {
    let mut tree = tree::parse(source).map_err(|problem| vec![problem])?;
    let mut found = Report::default();
    resolve::resolve(&mut tree, files, &mut found);
    let Reading { definition, mut report, models, money, secrets, name } = read::read(&tree);
    report.problems.extend(found.problems);
    report.problems.sort_by_key(|problem| (problem.line, problem.column));
    let Some(definition) = definition.filter(|_| report.problems.is_empty()) else {
        return Err(report.problems);
    };
    report.warnings.extend(lint::lint(&definition, &tree));
    report.warnings.sort_by_key(|warning| (warning.line, warning.column));
    let value = tree.to_value();
    Ok(Loaded {
        hash: Hash::of_json(&value),
        name,
        canonical: canonical_json(&value),
        source: source.to_owned(),
        warnings: report.warnings,
        models,
        money_budgets: money,
        secrets,
        program: Arc::new(OwsProgram { inner: Arc::new(definition) }),
    })
}

/// The line and the column of a JSON pointer in the source of a definition, from 1: of the name there, or
/// of the nearest place around it that the source has. `None` where the source cannot be read.
pub fn place(source: &str, pointer: &str) -> Option<(u32, u32)> {
    let tree = tree::parse(source).ok()?;
    let mut pointer = pointer;
    loop {
        let found = pointer.rsplit_once('/').and_then(|(around, name)| {
            let name = name.replace("~1", "/").replace("~0", "~");
            let around = tree.find(around)?;
            let member = around.member(&name).map(|member| (member.key.line, member.key.column));
            member.or_else(|| tree.find(pointer).map(|item| (item.line, item.column)))
        });
        if found.is_some() || pointer.is_empty() {
            return found.or(Some((tree.line, tree.column)));
        }
        pointer = pointer.rsplit_once('/').map_or("", |(around, _)| around);
    }
}

/// Reads the stored form of a definition.
///
/// # Errors
/// It is not one: places are then those of the whole text.
pub fn from_canonical(canonical: &str) -> Result<Arc<OwsProgram>, Vec<Problem>> {
    let broken = |message: String| {
        vec![Problem {
            line: 1,
            column: 1,
            pointer: String::new(),
            message,
            hint: Some("load the definition anew".into()),
        }]
    };
    let value = serde_json::from_str(canonical)
        .map_err(|error| broken(format!("this is not a stored definition: {error}")))?;
    let tree = resolve::tree_of(value);
    let Reading { definition, report, .. } = read::read(&tree);
    match definition {
        Some(definition) => Ok(Arc::new(OwsProgram { inner: Arc::new(definition) })),
        None if report.problems.is_empty() => Err(broken("this is not a stored definition".into())),
        None => Err(report.problems),
    }
}

/// The most work that one expression may do, in the unit of [`try_expression`].
#[doc(hidden)]
pub const EXPRESSION_WORK_MAX: u64 = jq::WORK_MAX;

/// Compiles an expression and evaluates it: its value or what is wrong with it, and the work that
/// was counted. For tests that try any text; definitions are the way to say an expression.
#[doc(hidden)]
pub fn try_expression(text: &str, input: &serde_json::Value) -> (Result<serde_json::Value, String>, u64) {
    jq::attempt(text, input)
}

/// All that an expression gives, and the error that it ends with if there is one; `Err` when it is
/// refused before it runs. For tests that compare with jq.
#[doc(hidden)]
pub fn try_outputs(
    text: &str,
    input: &serde_json::Value,
) -> Result<(Vec<serde_json::Value>, Option<serde_json::Value>), String> {
    jq::outputs(text, input)
}
