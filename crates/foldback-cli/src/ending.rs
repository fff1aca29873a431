//! The commands that act on a workflow under way or ended: `cancel`, `compensate`, `pause`, `unpause`,
//! `signal`; and the ledger, which says what became of each effect.

use std::collections::BTreeSet;
use std::sync::Arc;

use foldback::core::budget::Budget;
use foldback::core::event::Raised;
use foldback::core::report::{Book, LedgerEffect, Standing, VersionSpec, example, nearest};
use foldback::core::state::End;
use foldback::core::step::error_type;
use foldback::core::text::shell_word;
use foldback::core::{Failure, Key, Measure, Micros, StepStatus, Version, WorkflowState};
use foldback::engine::{Command, state_seen};
use foldback::store::{Store, WorkflowRow};
use serde_json::{Value, json};

use crate::args::{CancelArgs, Cli, CompensateArgs, SignalArgs, UnpauseArgs};
use crate::drive;
use crate::error::{Error, Exit};
use crate::moment;
use crate::out::{Ink, Line, Out, columns, say};
use crate::reading;

/// Lines of a ledger that are shown; the newest matter most.
const EFFECTS_MAX: usize = 100;

/// `compensate ID`: takes back what a workflow did.
///
/// # Errors
/// No such workflow or version, nothing to take back, or the store fails.
pub fn compensate(cli: &Cli, args: &CompensateArgs) -> Result<Exit, Error> {
    let config = drive::load_config(cli)?;
    let store = foldback::store::open_existing(&cli.store_url())?;
    let row = reading::row(cli, &*store, &args.id)?;
    let version = |text: &Option<String>| -> Result<Option<Version>, Error> {
        let version = text.as_deref().map(|text| version(cli, &*store, &row, text)).transpose()?;
        // What is done at a version is armed by the next: both ends of the walk mean what was done.
        version.map(|at| Ok(at + u64::from(is_arming(&*store, &args.id, at + 1)?))).transpose()
    };
    let (from, down_to) = (version(&args.from)?, version(&args.down_to)?);
    if let (Some(from), Some(down_to)) = (from, down_to)
        && from <= down_to
    {
        return Err(Error::input(
            format!("nothing lies between --from {from} and --down-to {down_to}"),
            "it walks back from --from, the later one, to --down-to",
        ));
    }
    let effects = ledger(&*store, &args.id)?;
    if args.dry_run {
        return plan(cli, &effects, (from, down_to));
    }
    // Where nothing is bounded, or something is being undone already, the engine says what there is to undo.
    let is_bounded = from.is_some() || down_to.is_some();
    let is_under_way = |effect: &LedgerEffect| matches!(effect.standing, Standing::Stuck | Standing::Undoing);
    let may_begin = ["completed", "failed", "cancelled", "compensated"].contains(&&*row.status);
    if is_bounded
        && may_begin
        && !effects.iter().any(is_under_way)
        && due(&effects, (from, down_to)).is_empty()
    {
        return Err(nothing_to_undo(cli, args, &effects));
    }
    let workflow_id = Arc::from(args.id.as_str());
    let command = Command::Compensate { workflow_id, reason: args.reason.clone(), range: (from, down_to) };
    let ends = drive::drive(cli, &config, &store, vec![command])?;
    drive::finish_ended(cli, &*store, ends)
}

fn is_arming(store: &dyn Store, id: &str, version: Version) -> Result<bool, Error> {
    let there = store.read(id, version - 1, 1)?;
    Ok(there.first().is_some_and(|event| event.version == version && &*event.event.event_type == "UndoArmed"))
}

/// `cancel ID`: ends a workflow.
///
/// # Errors
/// No such workflow, one that has ended, or the store fails.
pub fn cancel(cli: &Cli, args: &CancelArgs) -> Result<Exit, Error> {
    let config = drive::load_config(cli)?;
    let store = foldback::store::open_existing(&cli.store_url())?;
    let workflow_id = Arc::from(args.id.as_str());
    let command = Command::Cancel { workflow_id, reason: args.reason.clone() };
    let ends = drive::drive(cli, &config, &store, vec![command])?;
    drive::finish_ended(cli, &*store, ends)
}

/// A version as a person names it. A key means its newest place: a workflow that was gone back in has
/// others before.
fn version(cli: &Cli, store: &dyn Store, row: &WorkflowRow, text: &str) -> Result<Version, Error> {
    let ahead = reading::ahead(store, &row.workflow_id, Version::MAX)?;
    let is_key = matches!(moment::spec(text)?, VersionSpec::Before(_) | VersionSpec::After(_));
    reading::version_of(cli, store, row, text, &|version| !is_key || ahead.is_kept(version))
}

/// `pause ID`: lets nothing more begin.
///
/// # Errors
/// No such workflow, one that has ended, or the store fails.
pub fn pause(cli: &Cli, args: &CancelArgs) -> Result<Exit, Error> {
    let workflow_id = Arc::from(args.id.as_str());
    go(cli, Command::Pause { workflow_id, reason: args.reason.clone() })
}

/// `unpause ID`: lets it go on.
///
/// # Errors
/// No such workflow, one that is not paused, a budget that is none, or the store fails.
pub fn unpause(cli: &Cli, args: &UnpauseArgs) -> Result<Exit, Error> {
    let raised = args.budgets.iter().map(|text| raised(text)).collect::<Result<Vec<_>, _>>()?;
    let workflow_id = Arc::from(args.id.as_str());
    go(cli, Command::Unpause { workflow_id, reason: args.reason.clone(), raised })
}

/// `signal ID NAME [JSON]`: says something to a workflow.
///
/// # Errors
/// No such workflow, one that has ended, data that it does not accept, or the store fails.
pub fn signal(cli: &Cli, args: &SignalArgs) -> Result<Exit, Error> {
    let data = args.data.as_deref().map(|data| drive::read_json("the data", data)).transpose()?;
    let error = args.error.as_deref().map(|text| failure(&args.name, text)).transpose()?.map(Box::new);
    let (workflow_id, name) = (Arc::from(args.id.as_str()), Arc::from(args.name.as_str()));
    let (data, event_id) = (data.unwrap_or_default(), args.event_id.as_deref().map(Arc::from));
    let store = foldback::store::open_existing(&cli.store_url())?;
    let config = drive::load_config(cli)?;
    let command = Command::Signal { workflow_id, name, data, event_id, error };
    let ends = drive::drive(cli, &config, &store, vec![command])?;
    if ends.iter().all(Result::is_ok) {
        note_unheard(&*store, &args.id, &args.name);
    }
    drive::finish(cli, &*store, ends)
}

/// Says so where the definition listens for no signal of this name: it is kept, and nothing takes it.
fn note_unheard(store: &dyn Store, id: &str, name: &str) {
    // What cannot be read is told by whoever needs it.
    let Some(names) = state_seen(store, id, None)
        .ok()
        .flatten()
        .and_then(|state| store.definition(&state.definition).ok().flatten())
        .filter(|definition| definition.kind == "ows")
        .and_then(|definition| serde_json::from_str(&definition.canonical).ok())
        .and_then(|document: Value| listens_for(&document))
    else {
        return;
    };
    if names.contains(name) {
        return;
    }
    let only = match names.len() {
        0 => "for nothing".to_owned(),
        _ => format!(
            "only for {}",
            names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
        ),
    };
    say(format!("note: the definition of {id} listens {only}; `{name}` is kept, and nothing takes it"));
    if let Some(near) = nearest(name, names.iter().map(String::as_str)) {
        say(format!("hint: did you mean `{near}`?"));
    }
}

/// The names of all signals for which a document listens; `None` where one is known only when it runs.
fn listens_for(document: &Value) -> Option<BTreeSet<String>> {
    let (mut names, mut left) = (BTreeSet::new(), vec![document]);
    while let Some(value) = left.pop() {
        if let Some(listen) = value.get("listen") {
            let to = listen.get("to")?;
            let one = to.get("one").into_iter();
            let more = ["any", "all"].iter().filter_map(|how| to.get(how)?.as_array()).flatten();
            for filter in one.chain(more) {
                let name = filter.pointer("/with/type")?.as_str().filter(|name| !name.contains("${"))?;
                names.insert(name.to_owned());
            }
        }
        match value {
            Value::Object(members) => left.extend(members.values()),
            Value::Array(items) => left.extend(items),
            _ => {}
        }
    }
    Some(names)
}

/// The failure that `--error` reports: a text that is no JSON is its detail.
fn failure(name: &str, text: &str) -> Result<Failure, Error> {
    let title = format!("`{name}` was answered by a failure");
    let plain = |detail: String| Failure::new(error_type::RUNTIME, 500, &title, detail);
    let looks_like_json = text.trim_start().starts_with(['{', '[', '"', '@']) || text == "-";
    let value = if looks_like_json { drive::read_json("--error", text)? } else { json!(text) };
    let wrong = |what: String| {
        Error::input(
            format!("--error: {what}"),
            r#"write a text, or {"status": 402, "title": "Payment Required", "detail": "…"}"#,
        )
    };
    let members = match value {
        Value::String(detail) => return Ok(plain(detail)),
        Value::Object(members) => members,
        other => return Err(wrong(format!("{other} is no error"))),
    };
    let mut failure = plain(String::new());
    failure.detail = None;
    for (member, value) in &members {
        match (member.as_str(), value) {
            ("type", Value::String(kind)) if kind.contains(':') => failure.error_type.clone_from(kind),
            ("type", Value::String(kind)) => failure.error_type = format!("{}{kind}", error_type::PREFIX),
            ("title", Value::String(title)) => failure.title.clone_from(title),
            ("detail", Value::String(detail)) => failure.detail = Some(detail.as_str().into()),
            ("status", status) => {
                let status = status.as_u64().filter(|status| (100..=599).contains(status));
                failure.status =
                    status.ok_or_else(|| wrong("`status` is a number from 100 to 599".into()))? as u16;
            }
            ("type" | "title" | "detail", _) => return Err(wrong(format!("`{member}` is a text"))),
            _ => return Err(wrong(format!("an error has no `{member}`"))),
        }
    }
    Ok(failure)
}

fn go(cli: &Cli, command: Command) -> Result<Exit, Error> {
    let store = foldback::store::open_existing(&cli.store_url())?;
    let config = drive::load_config(cli)?;
    let ends = drive::drive(cli, &config, &store, vec![command])?;
    drive::finish(cli, &*store, ends)
}

/// `tokens=20000`, or `refine:tokens=20000` for a scope.
fn raised(text: &str) -> Result<Raised, Error> {
    let wrong = || {
        Error::input(
            format!("`{text}` raises no budget"),
            "write tokens=N, micro_usd=N, wall_ms=N or steps=N; of a scope KEY:tokens=N",
        )
    };
    let (name, limit) = text.rsplit_once('=').ok_or_else(wrong)?;
    let (scope, measure) =
        name.rsplit_once(':').map_or((Key::root(), name), |(key, name)| (Key::from(key), name));
    let measure = Measure::of(measure.trim()).ok_or_else(wrong)?;
    let limit = limit.trim().parse().map_err(|_| {
        Error::input(
            format!("`{text}` raises no budget: `{limit}` is no whole number"),
            format!("write the new limit, what is used included, in its place: {name}=2000"),
        )
    })?;
    Ok(Raised { scope, measure, limit })
}

/// Each effect of a workflow, and what became of it.
fn ledger(store: &dyn Store, id: &str) -> Result<Vec<LedgerEffect>, Error> {
    let mut book = Book::new(id);
    reading::walk(store, id, Version::MAX, None, &mut |_, event| {
        book.read(event);
        Ok(())
    })?;
    Ok(book.effects)
}

/// Where a walk back begins, and down to which version it goes.
type Range = (Option<Version>, Option<Version>);

/// What a walk back over a range undoes, newest first.
fn due(effects: &[LedgerEffect], (from, down_to): Range) -> Vec<&LedgerEffect> {
    let is_in = |version: Version| version > down_to.unwrap_or(0) && from.is_none_or(|from| version <= from);
    let is_due = |effect: &&LedgerEffect| {
        matches!(effect.standing, Standing::Armed | Standing::Stuck | Standing::Undoing)
            && effect.armed.is_some_and(is_in)
    };
    let mut undo: Vec<&LedgerEffect> = effects.iter().filter(is_due).collect();
    undo.sort_by_key(|effect| std::cmp::Reverse(effect.armed));
    undo
}

/// The error of a range in which no undo is armed: nothing is written.
fn nothing_to_undo(cli: &Cli, args: &CompensateArgs, effects: &[LedgerEffect]) -> Error {
    let bounds = [("--down-to", &args.down_to), ("--from", &args.from)];
    let bounds: Vec<String> =
        bounds.iter().filter_map(|(name, at)| Some(format!("{name} {}", at.as_deref()?))).collect();
    let (again, id) = (cli.again(), shell_word(&args.id));
    let armed = due(effects, (None, None));
    let hint = match armed.last().and_then(|effect| effect.armed) {
        Some(first) => format!(
            "`{again} compensate {id} --dry-run` lists what can be undone; the first undo was armed at version {first}"
        ),
        None => format!("`{again} show {id}` lists what it did, and what became of it"),
    };
    Error::input(format!("nothing that `{}` did can be undone with {}", args.id, bounds.join(" ")), hint)
}

/// Prints what would be undone, newest first, and what would stay.
fn plan(cli: &Cli, effects: &[LedgerEffect], range: Range) -> Result<Exit, Error> {
    let undo = due(effects, range);
    let is_due = |effect: &LedgerEffect| undo.iter().any(|due| std::ptr::eq(*due, effect));
    let stays: Vec<&LedgerEffect> = effects
        .iter()
        .filter(|effect| !is_due(effect) && !matches!(effect.standing, Standing::Undone | Standing::Parents))
        .collect();
    let mut out = Out::new();
    if cli.json {
        out.json(&json!({"plan": {"undo": undo, "stays": stays}}))?;
    } else {
        for (at, effect) in undo.iter().enumerate() {
            let armed = effect.armed.unwrap_or_default();
            out.line(format!("{:>3}  undo  {}  armed at version {armed}", at + 1, effect.key))?;
        }
        for effect in &stays {
            let why = effect.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
            out.line(format!("     stays {}  {}{why}", effect.key, effect.standing.as_str()))?;
        }
    }
    out.flush()?;
    if undo.is_empty() {
        say("nothing to undo");
    }
    Ok(Exit::Done)
}

/// The commands that answer a wait for signals, with an example of the data where a schema says what it
/// looks like.
pub fn answers(again: &str, id: &str, names: &[Arc<str>], wants: &Value) -> Vec<(String, &'static str)> {
    let data = wants.get("schema").map(|schema| format!(" {}", shell_word(example(schema).to_string())));
    let data = data.unwrap_or_else(|| " [JSON]".to_owned());
    let answer = |name: &Arc<str>| (format!("{again} signal {id} {}{data}", shell_word(name)), "answer it");
    names.iter().map(answer).collect()
}

/// Says what an ended workflow waits for before what it did is taken back, with the command that answers.
pub fn say_unsettled(again: &str, state: &WorkflowState, end: &End, reason: Option<&str>) {
    let id = &state.workflow_id;
    let ended = match end {
        End::Failed { error } => {
            let key = error.key.as_ref().map(|key| format!(" at {key}")).unwrap_or_default();
            format!("failed ({} {}{key})", error.status, error.title)
        }
        End::Completed { .. } => "completed".to_owned(),
        End::Cancelled { .. } => "was cancelled".to_owned(),
        End::Parked { .. } => "is parked".to_owned(),
    };
    say(format!("{id} {ended}, and not all that it did is compensated yet"));
    let id = shell_word(id);
    if let Some(reason) = reason {
        say(format!("  {reason}"));
        say(format!("hint: `{again} resume {id}` goes on with it"));
    }
    let unknown = state
        .open
        .iter()
        .filter(|key| state.step(key).is_some_and(|step| step.status == StepStatus::Unknown));
    for key in unknown {
        let quoted_key = shell_word(key.as_str());
        say(format!("  waits for the outcome of {key}: nobody knows whether it happened"));
        say(format!(
            "hint: look whether it happened, then `{again} resolve {id} {quoted_key} landed 'JSON'` or `… didnt`"
        ));
    }
}

/// How a budget is raised that is used up.
pub fn raise(budget: Option<&(Key, Measure)>) -> String {
    let Some((scope, measure)) = budget else { return String::new() };
    let place = if scope.is_root() { String::new() } else { format!("{scope}:") };
    format!(" --budget {}", shell_word(format!("{place}{}=N", measure.as_str())))
}

/// What is used of a budget, in a line.
pub fn budget_line(scope: &Key, budget: &Budget, now: Micros) -> String {
    let used = |(measure, limit): (&Measure, &u64)| {
        format!("{} of {limit} {}", budget.used(*measure, now), measure.as_str())
    };
    let used: Vec<String> = budget.limits.iter().map(used).collect();
    let what = if scope.is_root() { "budget".to_owned() } else { format!("budget of {scope}") };
    format!("{what}: {}", used.join(", "))
}

/// The ledger of a workflow: each effect, and what became of it. Nothing where nothing can be said of
/// taking back.
///
/// # Errors
/// Nobody reads what is printed.
pub fn print_ledger(out: &mut Out, effects: &[LedgerEffect]) -> Result<(), Error> {
    let is_plain = |effect: &LedgerEffect| matches!(effect.standing, Standing::Kept | Standing::Parents);
    if effects.iter().all(is_plain) {
        return Ok(());
    }
    out.line("")?;
    out.line(Line::new().dim("what it did"))?;
    let left_out = effects.len().saturating_sub(EFFECTS_MAX);
    if left_out > 0 {
        out.line(Line::new().dim(format!("  … {left_out} earlier ones; --json shows all")))?;
    }
    let shown = &effects[left_out..];
    let wide = shown.iter().map(|effect| columns(effect.key.as_str())).max().unwrap_or(0);
    for effect in shown {
        let (what, ink) = standing(effect);
        let key = Line::from(effect.key.as_str().to_owned()).padded(wide);
        out.line(Line::new().plain("  ").and(key).plain("  ").ink(ink, what))?;
    }
    Ok(())
}

fn standing(effect: &LedgerEffect) -> (String, Ink) {
    let why = effect.why.as_deref().unwrap_or_default();
    match effect.standing {
        Standing::Armed => ("armed: can be taken back".to_owned(), Ink::Plain),
        Standing::Undoing => ("is being taken back".to_owned(), Ink::Yellow),
        Standing::Undone => (format!("undone at version {}", effect.undone.unwrap_or_default()), Ink::Green),
        Standing::Stuck => (format!("could not be taken back: {why}"), Ink::Red),
        Standing::Irreversible => (format!("irreversible: {why}"), Ink::Yellow),
        Standing::Kept => ("stays: no undo was said".to_owned(), Ink::Dim),
        Standing::Unknown => ("did it happen? nobody knows".to_owned(), Ink::Yellow),
        Standing::Parents => (format!("done by {why}"), Ink::Cyan),
    }
}
