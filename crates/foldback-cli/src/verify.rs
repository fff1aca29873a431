//! `verify`: whether a definition makes of the recorded stimuli what the log says. Nothing is
//! performed and nothing is written; an export is verified from its file, without a store.

use std::path::Path;
use std::sync::Arc;

use foldback::core::Program;
use foldback::core::report::brief;
use foldback::core::text::shell_word;
use foldback::core::verify::{Parting, Uncompared};
use foldback::engine::{LoadError, Programs, Verified, verify as walk, verify_own};
use foldback::ows::Loaded;
use foldback::programs::Definitions;
use foldback::store::{Filter, Store, StoreError, WorkflowRow};
use serde_json::{Value, json};

use crate::args::{Cli, VerifyArgs};
use crate::error::{Error, Exit};
use crate::out::{Ink, Line, Out, say};
use crate::{definition, exchange, reading};

/// Characters of a value that a line shows.
const VALUE_MAX: usize = 120;

/// A log to be verified, and the store in which it lies.
struct Subject {
    store: Arc<dyn Store>,
    row: WorkflowRow,
}

/// Verifies workflows.
///
/// # Errors
/// No such workflow, file or definition, or the store fails. That a log and its definition part is
/// no error: the answer is no.
pub fn verify(cli: &Cli, args: &VerifyArgs) -> Result<Exit, Error> {
    let other = args.definition.as_deref().map(|file| definition::load(cli, file)).transpose()?;
    let subjects = match args.targets.is_empty() {
        true => all(cli, other.as_ref())?,
        false => args.targets.iter().map(|target| subject(cli, target)).collect::<Result<_, _>>()?,
    };
    if subjects.is_empty() {
        say("nothing to verify: no workflow is unfinished under this definition's name");
    }
    let programs = Definitions::default();
    let other = match other {
        Some(loaded) => {
            let start = foldback::programs::start_document(&loaded, "", Value::Null);
            Some(
                programs
                    .program(&start.stored_definition())
                    .map_err(|e| Error::input(e, "`foldback check`"))?,
            )
        }
        None => None,
    };
    let mut out = Out::new();
    let (mut parted, mut unread) = (false, false);
    for subject in &subjects {
        let answer = verified(subject, other.as_ref(), &programs)?;
        parted |= matches!(&answer, Ok(Verified { parting: Some(_), .. }));
        unread |= answer.is_err();
        match cli.json {
            true => out.json(&as_json(&subject.row.workflow_id, &answer))?,
            false => print(&mut out, &subject.row.workflow_id, &answer)?,
        }
    }
    out.flush()?;
    match (&args.definition, parted) {
        (Some(file), true) => say(format!(
            "hint: what runs keeps the definition that it began with; start new workflows with {}",
            shell_word(file.display().to_string())
        )),
        (None, true) => say(
            "hint: this build derives something else than the one that wrote the log; resume the workflow with that one",
        ),
        (_, false) => {}
    }
    Ok(if parted || unread { Exit::No } else { Exit::Done })
}

/// How a walk ended; `Err` where the log could not be walked at all, with the reason.
type Walked = Result<Verified, String>;

fn verified(
    subject: &Subject,
    other: Option<&Arc<dyn Program>>,
    programs: &Definitions,
) -> Result<Walked, Error> {
    let Subject { store, row } = subject;
    let own = || -> Result<Result<Arc<dyn Program>, String>, StoreError> {
        let Some(hash) = row.definition else {
            return Ok(Err("it is a stream of domain events, not a workflow".into()));
        };
        let definition = store.definition(&hash)?;
        Ok(definition
            .ok_or_else(|| format!("its definition {hash} is missing"))
            .and_then(|d| programs.program(&d)))
    };
    let program = match other {
        Some(program) => program.clone(),
        None => match own()? {
            Ok(program) => program,
            Err(reason) => return Ok(Err(reason)),
        },
    };
    let walked = match other {
        Some(_) => walk(&**store, &row.workflow_id, &*program),
        None => verify_own(&**store, &row.workflow_id, &*program, programs),
    };
    match walked {
        Ok(verified) => Ok(Ok(verified)),
        Err(LoadError::Store(error)) => Err(error.into()),
        Err(error @ LoadError::Quarantined { .. }) => Ok(Err(format!("its log is broken: {error}"))),
        Err(error @ LoadError::Erased { .. }) => Ok(Err(error.to_string())),
    }
}

/// Every workflow; under another definition those that would meet it: unfinished, of the same name.
fn all(cli: &Cli, other: Option<&Loaded>) -> Result<Vec<Subject>, Error> {
    let store = reading::open(cli)?;
    let filter = Filter { only_unfinished: other.is_some(), ..Filter::default() };
    let rows = store.workflows(&filter)?.into_iter();
    let bare = |name: &str| name.rsplit_once(' ').map_or(name, |(name, _version)| name).to_owned();
    let is_meant = |row: &WorkflowRow| {
        row.definition.is_some() && other.is_none_or(|loaded| bare(&loaded.name) == bare(&row.name))
    };
    Ok(rows.filter(is_meant).map(|row| Subject { store: store.clone(), row }).collect())
}

/// A workflow by its id, or the one that a file holds.
fn subject(cli: &Cli, target: &str) -> Result<Subject, Error> {
    let is_file = Path::new(target).is_file();
    let store = match reading::open(cli) {
        Err(_) if is_file => return from_file(target),
        store => store?,
    };
    if is_file && store.workflow(target)?.is_none() {
        return from_file(target);
    }
    let row = reading::row(cli, &*store, target)?;
    Ok(Subject { store, row })
}

fn from_file(target: &str) -> Result<Subject, Error> {
    let memory = || Ok(foldback::store::open("memory:")?);
    // It is imported into memory only: that nothing was imported is no news here.
    let read = exchange::read_into(Path::new(target), memory).map_err(|error| {
        let hint = error.hint.map(|hint| hint.replacen("nothing was imported; ", "", 1));
        Error { hint, ..error }
    });
    let (store, imported) = read?;
    let row = store.workflow(&imported.workflow_id)?;
    let row = row.ok_or_else(|| Error::machine(format!("{target}: what was read is not there")))?;
    Ok(Subject { store, row })
}

fn as_json(id: &str, answer: &Walked) -> Value {
    match answer {
        Ok(Verified { recorded, parting, uncompared }) => {
            let mut shown = json!({
                "workflow_id": id,
                "matched": parting.is_none(),
                "recorded": recorded,
                "divergence": parting,
            });
            if let Some(uncompared) = uncompared {
                shown["not_compared"] = json!({
                    "from": uncompared.from,
                    "count": uncompared.count,
                    "reason": because(uncompared),
                    "first": uncompared.first,
                });
            }
            shown
        }
        Err(reason) => json!({
            "workflow_id": id, "matched": false, "recorded": 0, "divergence": null, "unreadable": reason,
        }),
    }
}

fn print(out: &mut Out, id: &str, answer: &Walked) -> Result<(), Error> {
    let (no, yes) = (Line::new().ink(Ink::Red, "✗ "), Line::new().ink(Ink::Green, "✓ "));
    match answer {
        Ok(Verified { recorded, parting: None, uncompared }) => {
            let agree = if *recorded == 1 { "consequence agrees" } else { "consequences agree" };
            out.line(yes.plain(id).dim(format!("  {recorded} {agree}")))?;
            let Some(not) = uncompared else { return Ok(()) };
            let place = not.first.key.as_ref().map(|key| format!(", {key}")).unwrap_or_default();
            out.line(Line::new().plain(format!(
                "    not compared: {} from version {}{place} on: {}",
                not.count,
                not.from,
                because(not)
            )))?;
            out.line(Line::new().dim("    recorded  ").plain(said(&not.first.recorded, &not.first)))?;
            out.line(Line::new().dim("    derived   ").plain(said(&not.first.derived, &not.first)))
        }
        Ok(Verified { parting: Some(at), .. }) => {
            let place = at.key.as_ref().map(|key| format!(", {key}")).unwrap_or_default();
            out.line(no.plain(id).plain(format!("  diverges at version {}{place}", at.version)))?;
            out.line(Line::new().dim("    recorded  ").plain(said(&at.recorded, at)))?;
            out.line(Line::new().dim("    derived   ").plain(said(&at.derived, at)))
        }
        Err(reason) => out.line(no.plain(id).plain(format!("  cannot be verified: {reason}"))),
    }
}

/// Why nothing is compared from some version on.
fn because(not: &Uncompared) -> String {
    let (log, program) = not.dialects;
    format!("the log began with dialect {log} of expressions, and this build speaks dialect {program}")
}

/// One side of a divergence: `DecisionMade  chosen "short"`, with its key where that is another.
fn said(side: &Value, at: &Parting) -> String {
    let Value::Object(map) = side else {
        return "nothing: it waits for the world".to_owned();
    };
    let mut text = map.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    for (name, value) in map {
        let is_told =
            name == "type" || (name == "key" && at.key.as_ref().is_some_and(|k| value == k.as_str()));
        if !is_told {
            text += &format!("  {name} {}", brief(value, VALUE_MAX));
        }
    }
    text
}
