//! `fork`, and `retry` with or without a way back: what is changed, the plan, and then the work.
//!
//! The plan is made before anything is written, is always shown, and is all that happens with
//! `--dry-run`.

use std::sync::Arc;

use foldback::connectors::price;
use foldback::core::change::{Said, Writes};
use foldback::core::cut::Wish;
use foldback::core::plan::{Plan, PlannedCalls};
use foldback::core::report::{ReportedStatus, Rows, StepReport, dollars, nearest};
use foldback::core::text::shell_word;
use foldback::core::{Key, Version};
use foldback::engine::{BranchError, Branching, Command, LoadError, Prepared};
use foldback::engine::{next_fork_id, plan_retry, prepare_fork, prepare_retry};
use foldback::programs::Definitions;
use foldback::store::Store;
use serde_json::{Value, json};

use crate::args::{ChangeArgs, Cli, ForkArgs, RetryArgs};
use crate::drive::{self, bounded, read_json, refused};
use crate::error::{Error, Exit};
use crate::out::{Out, say};
use crate::{definition, reading};

/// Keys that a line of the plan names.
const KEYS_MAX: usize = 8;

/// `fork ID`: branches from a version.
pub fn fork(cli: &Cli, args: &ForkArgs) -> Result<Exit, Error> {
    let config = drive::load_config(cli)?;
    let store = foldback::store::open_existing(&cli.store_url())?;
    let row = reading::row(cli, &*store, &args.id)?;
    let at = args.at.as_deref().map(|text| version(cli, &*store, &args.id, text, row.version)).transpose()?;
    let branching = branching(cli, &args.id, at, &args.change)?;
    let programs = Definitions::default().with_redaction(config.redaction().clone());
    let prepared = prepare_fork(&*store, &programs, &branching).map_err(|e| told(cli, e))?;
    is_known_member(&*store, &prepared)?;
    loop {
        let id = next_fork_id(&*store, &args.id).map_err(|e| told(cli, e.into()))?;
        let mut plan = prepared.fork_plan(&store, &programs, &id).map_err(|e| told(cli, e))?;
        plan.price(|model, input, output| price(&config, model, input, output));
        let command = prepared.fork(id.clone());
        let going = Going { plan, command, change: &args.change, detach: args.detach, what: &id };
        if let Some(exit) = go(cli, &config, &store, going)? {
            return Ok(exit);
        }
        say(format!("`{id}` was begun by somebody else meanwhile; another id is tried"));
    }
}

/// `retry ID`: reopens a workflow that failed or was parked, and goes on.
pub fn retry(cli: &Cli, args: &RetryArgs) -> Result<Exit, Error> {
    let store = foldback::store::open_existing(&cli.store_url())?;
    let config = drive::load_config(cli)?;
    let change = &args.change;
    if change.definition.is_none() {
        tell_of_changed_file(cli, &*store, &args.id);
    }
    // What was taken back is done again, from where it was done first.
    let is_compensated = store.workflow(&args.id)?.is_some_and(|row| row.status == "compensated");
    let goes_back = is_compensated
        || args.from.is_some()
        || !change.edits.is_empty()
        || !change.rerun.is_empty()
        || change.definition.is_some();
    if !goes_back {
        if change.writes != "reuse" {
            return Err(Error::input(
                "a retry from the step that failed takes nothing from the past: --writes has no meaning in it",
                "--writes goes with --from, --edit, --rerun or --definition",
            ));
        }
        if change.dry_run {
            let programs = Definitions::default().with_redaction(config.redaction().clone());
            let plan = plan_retry(&store, &programs, &args.id).map_err(|e| told(cli, e))?;
            return print_plain(cli, &plan, &args.id, &kept(&*store, &args.id)?);
        }
        let workflow_id = Arc::from(args.id.as_str());
        let command = Command::Retry { workflow_id, reason: args.reason.clone(), back: None };
        let ends = drive::drive(cli, &config, &store, vec![command])?;
        return drive::finish(cli, &*store, ends);
    }
    let row = reading::row(cli, &*store, &args.id)?;
    let at =
        args.from.as_deref().map(|text| version(cli, &*store, &args.id, text, row.version)).transpose()?;
    let branching = branching(cli, &args.id, at, change)?;
    let programs = Definitions::default().with_redaction(config.redaction().clone());
    let prepared = prepare_retry(&*store, &programs, &branching).map_err(|e| told(cli, e))?;
    is_known_member(&*store, &prepared)?;
    let mut plan = prepared.retry_plan(&store, &programs).map_err(|e| told(cli, e))?;
    plan.price(|model, input, output| price(&config, model, input, output));
    let command = prepared.retry(&args.reason);
    let gone = go(cli, &config, &store, Going { plan, command, change, detach: false, what: &args.id })?;
    Ok(gone.unwrap_or(Exit::No))
}

/// Steps that are done, in the order of their asks, and that a retry from the step that failed builds on.
fn kept(store: &dyn Store, id: &str) -> Result<Vec<Key>, Error> {
    let ahead = reading::ahead(store, id, Version::MAX)?;
    let (mut rows, mut kept) = (Rows::knowing(&ahead), Vec::new());
    let mut take = |report: StepReport| {
        if matches!(report.status, ReportedStatus::Completed | ReportedStatus::Reused) {
            kept.push(report.key);
        }
    };
    reading::walk(store, id, Version::MAX, None, &mut |_, event| {
        if ahead.is_kept(event.version) {
            rows.read(event);
            rows.ready().into_iter().for_each(&mut take);
        }
        Ok(())
    })?;
    rows.finish().into_iter().for_each(take);
    Ok(kept)
}

/// Prints the plan of a retry from the step that failed.
fn print_plain(cli: &Cli, plan: &Plan, what: &str, kept: &[Key]) -> Result<Exit, Error> {
    let mut out = Out::new();
    if cli.json {
        let mut plan = serde_json::to_value(plan).map_err(|e| Error::machine(e.to_string()))?;
        plan["kept"] = json!(kept);
        out.json(&json!({"plan": plan}))?;
    } else {
        // What follows depends on answers that nobody has yet, for each step of such a plan.
        let mut known = plan.clone();
        known.unknown_behind.clear();
        let mut told = lines(&known, what);
        told[0] = format!("plan  {what}  goes on from the step that failed, behind version {}", plan.cut);
        if let Some(line) = keys_line("kept", kept, "  (done; nothing of them runs again)") {
            told.insert(1, line);
        }
        told.into_iter().try_for_each(|line| out.line(line))?;
    }
    out.flush()?;
    Ok(Exit::Done)
}

/// Says so where the file was changed that a workflow was loaded from: it goes on with the definition as it
/// was.
fn tell_of_changed_file(cli: &Cli, store: &dyn Store, id: &str) {
    // What cannot be read is the retry's to tell.
    let state = foldback::engine::state_seen(store, id, None).ok().flatten();
    let Some(file) = state.as_ref().and_then(|state| definition::changed_file(cli, state)) else { return };
    say(format!("note: {file} has changed; `{id}` goes on with the definition as it was"));
    say(format!(
        "hint: `{} retry {} --definition {}` goes on with the file as it is now",
        cli.again(),
        shell_word(id),
        shell_word(&file)
    ));
}

/// A plan that was made, and the command that carries it out.
struct Going<'a> {
    plan: Plan,
    command: Command,
    change: &'a ChangeArgs,
    detach: bool,
    /// Whose plan it is.
    what: &'a str,
}

/// Shows the plan, and carries it out. `None`: the id of the fork was taken meanwhile.
fn go(
    cli: &Cli,
    config: &foldback::connectors::Config,
    store: &Arc<dyn Store>,
    going: Going<'_>,
) -> Result<Option<Exit>, Error> {
    let Going { plan, command, change, detach, what } = going;
    let as_json = serde_json::to_value(&plan).map_err(|e| Error::machine(e.to_string()))?;
    if change.dry_run {
        let mut out = Out::new();
        if cli.json {
            out.json(&json!({"plan": as_json}))?;
        } else {
            lines(&plan, what).into_iter().try_for_each(|line| out.line(line))?;
        }
        out.flush()?;
        return Ok(Some(Exit::Done));
    }
    lines(&plan, what).into_iter().for_each(say);
    let ends = match detach {
        true => drive::leave(cli, config, store, vec![command])?,
        false => drive::drive(cli, config, store, vec![command])?,
    };
    if ends.iter().any(|end| matches!(end, Err(refusal) if refusal.is_taken)) {
        return Ok(None);
    }
    match detach {
        true => left(cli, ends, &as_json),
        false => drive::finish_with(cli, &**store, ends, Some(&as_json)),
    }
    .map(Some)
}

/// A fork that was made and is left to others.
fn left(cli: &Cli, ends: Vec<drive::End>, plan: &Value) -> Result<Exit, Error> {
    let mut out = Out::new();
    for end in ends {
        let rest = end.map_err(refused)?;
        match cli.json {
            true => out.json(&json!({
                "workflow_id": rest.workflow_id, "status": rest.status, "plan": plan,
            }))?,
            false => out.line(&*rest.workflow_id)?,
        }
        say(format!("`{} resume {}` goes on with it", cli.again(), shell_word(&rest.workflow_id)));
    }
    out.flush()?;
    Ok(Exit::Done)
}

/// A line of a plan that names steps; none where there are none.
fn keys_line(title: &str, keys: &[Key], why: &str) -> Option<String> {
    let named: Vec<&str> = keys.iter().take(KEYS_MAX).map(Key::as_str).collect();
    let more = match keys.len() - named.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let line = format!("  {title:<10} {:>3}  {}{more}{why}", keys.len(), named.join(", "));
    (!keys.is_empty()).then_some(line)
}

/// The plan for a person.
fn lines(plan: &Plan, what: &str) -> Vec<String> {
    let mut lines = vec![format!("plan  {what}  cut at version {}", plan.cut)];
    let mut keys = |title: &str, keys: &[Key], why: &str| lines.extend(keys_line(title, keys, why));
    keys("reused", &plan.reused, "");
    keys("failed", &plan.reused_failures, "  (their failures are reused; --rerun KEY asks again)");
    keys("run again", &plan.rerun, "");
    keys("undone", &plan.undone, "  (taken back since; done again they have fresh idempotency keys)");
    keys("behind", &plan.depending, "  (reused where the request stays the same)");
    keys("open", &plan.unknown_behind, "  (never answered there: what follows is not known)");
    keys("left done", &plan.left_done, "  (writes that nothing asks for any more; they stay as they are)");
    let waits: Vec<Key> = plan.waits.iter().map(|wait| wait.key.clone()).collect();
    let longest = plan.waits.iter().map(|wait| wait.ms).max().unwrap_or(0);
    keys(
        "waits",
        &waits,
        &format!("  (each starts over; the longest takes {})", crate::moment::span(longest)),
    );
    keys("listens", &plan.listens, "  (each waits for a new signal: those received there are not reused)");
    for calls in &plan.calls {
        lines.push(format!("  calls      {:>3}  {}{}", calls.count, calls.to, figures(calls)));
    }
    for write in &plan.writes {
        let what = match write.action {
            "reuse" => "its recorded outcome is taken, nothing is sent",
            "ask" => "waits for `foldback resolve`, nothing is sent before",
            "stub" => "taken for done, nothing is sent",
            "deny" => "fails, nothing is sent",
            _ => "PERFORMED",
        };
        let when = if write.when == "changed" { "if its request changes: " } else { "" };
        lines.push(format!("  write        {}  {when}{what}", write.key));
    }
    let unknown = match plan.unpriced {
        0 => "",
        _ => ", and calls whose price is unknown",
    };
    let cost = match (plan.estimated_micro_usd, plan.estimated_tokens) {
        (0, 0) if unknown.is_empty() => return lines,
        (0, _) if !unknown.is_empty() => {
            format!("price unknown: {} ask another model than there", plan.unpriced)
        }
        (0, tokens) => format!("{tokens} tokens at most, as recorded; no price is known"),
        (cost, tokens) => {
            format!("{} and {tokens} tokens at most, as recorded{unknown}", dollars(cost))
        }
    };
    lines.push(format!("  cost         {cost}"));
    lines
}

/// What calls are estimated to cost, and how many more there may be.
fn figures(calls: &PlannedCalls) -> String {
    let cost = match (calls.estimated_micro_usd, calls.estimated_tokens) {
        (0, 0) => String::new(),
        (0, tokens) => format!("  {tokens} tokens"),
        (cost, tokens) => format!("  {} and {tokens} tokens", dollars(cost)),
    };
    let unknown = match calls.unpriced {
        0 => String::new(),
        all if all == calls.count => "  price unknown".to_owned(),
        some => format!("  price of {some} unknown"),
    };
    let more = match calls.depending {
        0 => String::new(),
        more => format!("  (and {more} where the request changes)"),
    };
    cost + &unknown + &more
}

fn branching(cli: &Cli, id: &str, at: Option<Version>, change: &ChangeArgs) -> Result<Branching, Error> {
    let unreadable = |e: foldback::core::change::Unreadable| Error::input(e.message, e.hint);
    let mut edits = Vec::new();
    for text in &change.edits {
        let mut said = Said::parse(text).map_err(unreadable)?;
        if let Err(file) = &said.value {
            said.value = Ok(value_of(file)?);
        }
        edits.push(said);
    }
    let followed = match &change.definition {
        Some(file) => Some(definition::start(file, &definition::load(cli, file)?, "", Value::Null).into()),
        None => None,
    };
    Ok(Branching {
        workflow_id: Arc::from(id),
        at,
        wish: Wish {
            edits,
            writes: Writes::parse(&change.writes).map_err(unreadable)?,
            rerun: change.rerun.clone(),
            model_kind: foldback::connectors::LLM_KIND.to_owned(),
        },
        definition: followed,
    })
}

/// What a file behind `@` stands for: a text, or JSON where its name says so.
fn value_of(file: &str) -> Result<Value, Error> {
    if file.ends_with(".json") {
        return read_json(file, &format!("@{file}"));
    }
    bounded(file, std::fs::File::open(file)).map(Value::String)
}

/// A version as a person names it. Only what is no number needs the log.
fn version(cli: &Cli, store: &dyn Store, id: &str, text: &str, last: Version) -> Result<Version, Error> {
    let text = text.trim();
    if let Ok(number) = text.parse::<Version>() {
        return Ok(number);
    }
    if let Some(back) = text.strip_prefix('-').and_then(|back| back.parse::<Version>().ok()) {
        // Beyond the begin there is nothing; who reads the log says so.
        return Ok((last + 1).saturating_sub(back));
    }
    let row = reading::row(cli, store, id)?;
    reading::version(cli, store, &row, Some(text))
}

/// A member that no model call has is a slip of the pen, which would change nothing and cost a call.
fn is_known_member(store: &dyn Store, prepared: &Prepared) -> Result<(), Error> {
    use foldback::core::change::Target;
    let members = foldback::core::step::LLM_MEMBERS;
    for edit in &prepared.changes.edits {
        let is_model = match &edit.target {
            Target::Kind(_) => true,
            Target::Key(key) => asks_a_model(store, prepared, key)?,
        };
        let name = edit.path.split('/').nth(1).unwrap_or_default();
        if is_model && !members.contains(&name) {
            let hint = match nearest(name, members) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("a model call has {}", members.join(", ")),
            };
            return Err(Error::input(format!("a model call has no `{name}`"), hint));
        }
        if is_model && name == "fallback" {
            return Err(Error::input(
                "`fallback` cannot be edited: how often it is followed was recorded with the ask",
                "write it into the definition, and fork with --definition FILE",
            ));
        }
    }
    Ok(())
}

/// Whether the step of a key is a model call, by its last ask in the log; no where it was never asked.
fn asks_a_model(store: &dyn Store, prepared: &Prepared, key: &Key) -> Result<bool, Error> {
    use foldback::core::Fact;
    use foldback::core::change::Target;
    let mut is_model = false;
    reading::pages(store, &prepared.workflow_id, 0, &mut |page| {
        for recorded in page.iter().filter(|recorded| &*recorded.event.event_type == "StepAsked") {
            if let Ok(event) = foldback::engine::load::decode(recorded)
                && let Fact::StepAsked(asked) = &event.fact
                && Target::Key(key.clone()).means(&asked.key, "")
            {
                is_model = *asked.kind == *foldback::connectors::LLM_KIND;
            }
        }
        Ok(true)
    })?;
    Ok(is_model)
}

fn told(cli: &Cli, error: BranchError) -> Error {
    match error {
        BranchError::Refused(refusal) => refused(refusal),
        BranchError::Load(LoadError::Store(error)) => error.into(),
        BranchError::Load(error @ LoadError::Quarantined { .. }) => Error::no(
            format!("its log is quarantined: {error}"),
            format!("`{} audit` shows what is broken; nothing goes on from it", cli.again()),
        ),
        BranchError::Load(error @ LoadError::Erased { .. }) => {
            Error::no(format!("nothing goes on over an erased value: {error}"), "cut before it was used")
        }
    }
}
