//! The commands that move workflows: `run`, `resume`, `retry`, `resolve`. Each says its command to a
//! session, follows what happens on stderr, and prints the end on stdout.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use foldback::connectors::{Config, check_model, registry};
use foldback::core::state::{End as Ended, EntryBody};
use foldback::core::text::shell_word;
use foldback::core::value::is_too_deep;
use foldback::core::{Key, Status, StepStatus, Verdict as Settled, WorkflowState, limits};
use foldback::engine::{Command, Refusal, Rest, Session, SessionError, Start, load, state_seen, text_id};
use foldback::ows::Loaded;
use foldback::programs::Definitions;
use foldback::store::{Filter, Store};
use serde_json::{Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::args::{Cli, ResolveArgs, ResumeArgs, RunArgs, Verdict};
use crate::check::{tell, unpriced};
use crate::definition;
use crate::ending;
use crate::error::{Error, Exit};
use crate::now;
use crate::out::{Out, say, say_error};
use crate::progress::{Progress, split_hint};
use crate::reading;

/// `run FILE`: starts a workflow, or attaches to the one that was started alike.
pub fn run(cli: &Cli, args: &RunArgs) -> Result<Exit, Error> {
    let input = args
        .input
        .as_deref()
        .map_or(Ok(Value::Object(Default::default())), |text| read_json("--input", text))?;
    let config = load_config(cli)?;
    let loaded = definition::load(cli, &args.file)?;
    check_models(&config, &loaded, &args.file)?;
    unpriced(&config, &loaded)
        .iter()
        .for_each(|warning| tell(&args.file, &loaded.source, "warning: ", warning));
    loaded.check_input(&input).map_err(|why| {
        let what = if args.input.is_some() { "--input" } else { "without --input it is {}, which" };
        Error::input(
            format!("{what} misses the schema of {}: {why}", args.file.display()),
            "the definition's `input.schema` says what it takes; nothing was run",
        )
    })?;
    let id = args.id.clone().unwrap_or_else(|| text_id().to_string());
    Start::check_id(&id).map_err(refused)?;
    let url = cli.store_url();
    if matches!(&*url, "memory:" | ":memory:") {
        let hint = "name a file: --store sqlite:foldback.db";
        return Err(Error::input(
            "a store in memory is gone when this command ends, and its log with it",
            hint,
        ));
    }
    let store = foldback::store::open(&url)?;
    is_as_it_was(cli, &*store, &id, &loaded, &args.file)?;
    let command = Command::Start(definition::start(&args.file, &loaded, &id, input));
    let rests = drive(cli, &config, &store, vec![command])?;
    finish(cli, &*store, rests)
}

/// A workflow of this id follows this definition, if there is one.
///
/// # Errors
/// It follows another; where its file was changed, the hint says how to go on with that.
fn is_as_it_was(cli: &Cli, store: &dyn Store, id: &str, loaded: &Loaded, file: &Path) -> Result<(), Error> {
    let Some(row) = store.workflow(id)?.filter(|row| row.definition != Some(loaded.hash)) else {
        return Ok(());
    };
    let state = state_seen(store, id, None).ok().flatten();
    let changed = state.as_ref().and_then(|state| definition::changed_file(cli, state));
    let why = changed.map(|file| format!(": {file} has changed since")).unwrap_or_default();
    let (again, id, file) = (cli.again(), shell_word(id), shell_word(file.display().to_string()));
    let way = match &*row.status {
        "failed" | "parked" => format!("`{again} retry {id} --definition {file}` goes on with this one"),
        _ => format!("`{again} fork {id} --definition {file}` branches with this one"),
    };
    Err(Error::input(
        format!("workflow `{}` exists already, with another definition{why}", row.workflow_id),
        format!("{way}; another --id starts anew; `{again} show {id}` shows the one that is there"),
    ))
}

/// `resume [ID…]`: goes on with these, or with all that are unfinished.
pub fn resume(cli: &Cli, args: &ResumeArgs) -> Result<Exit, Error> {
    let config = load_config(cli)?;
    let store = foldback::store::open_existing(&cli.store_url())?;
    let ids: Vec<Arc<str>> = if args.ids.is_empty() {
        let unfinished = Filter { only_unfinished: true, ..Filter::default() };
        store.workflows(&unfinished)?.into_iter().rev().map(|row| row.workflow_id).collect()
    } else {
        args.ids.iter().map(|id| Arc::from(id.as_str())).collect()
    };
    for id in &args.ids {
        reading::row(cli, &*store, id)?;
    }
    if ids.is_empty() {
        say("nothing is unfinished");
        return Ok(Exit::Done);
    }
    let commands = ids.into_iter().map(|workflow_id| Command::Resume { workflow_id }).collect();
    let rests = drive(cli, &config, &store, commands)?;
    finish(cli, &*store, rests)
}

/// `resolve ID KEY landed [JSON] | didnt | live | stub [JSON] | deny`: settles an unknown outcome, or says
/// what becomes of a write that is held, and goes on.
pub fn resolve(cli: &Cli, args: &ResolveArgs) -> Result<Exit, Error> {
    let output = args.output.as_deref().map(|output| read_json("the output", output)).transpose()?;
    let (workflow_id, key) = (Arc::from(args.id.as_str()), Key::from(args.key.as_str()));
    let has_no_answer = args.verdict == Verdict::Landed && output.is_none();
    let command = match (args.verdict, output) {
        (Verdict::Landed, output) => {
            Command::Resolve { workflow_id, key, landed: Some(output.unwrap_or_default()) }
        }
        (Verdict::Stub, output) => Command::Settle { workflow_id, key, verdict: Settled::Stub, output },
        (Verdict::Didnt | Verdict::Live | Verdict::Deny, Some(_)) => {
            return Err(Error::input(
                "what did not happen, or is yet to happen, has no output",
                "leave the JSON out, or say `landed` or `stub`",
            ));
        }
        (Verdict::Didnt, None) => Command::Resolve { workflow_id, key, landed: None },
        (Verdict::Live, None) => Command::Settle { workflow_id, key, verdict: Settled::Live, output: None },
        (Verdict::Deny, None) => Command::Settle { workflow_id, key, verdict: Settled::Deny, output: None },
    };
    let store = foldback::store::open_existing(&cli.store_url())?;
    let config = load_config(cli)?;
    let state = state_seen(&*store, &args.id, None).ok().flatten();
    if has_no_answer && let Some(state) = &state {
        needs_no_answer(cli, state, &args.key)?;
    }
    // What is settled behind the end leads to what was wanted then: that all is taken back.
    let had_ended = state.is_some_and(|state| state.end.is_some());
    let rests = drive(cli, &config, &store, vec![command])?;
    if had_ended { finish_ended(cli, &*store, rests) } else { finish(cli, &*store, rests) }
}

/// An undo that was done by hand answers nothing.
///
/// # Errors
/// It is a step: the tasks after it, and its undo, may use what it answered. `null` has to be said.
fn needs_no_answer(cli: &Cli, state: &WorkflowState, key: &str) -> Result<(), Error> {
    let status = state.step(&Key::from(key)).map(|step| step.status);
    // Of all else the engine says why it cannot be settled.
    if !matches!(status, Some(StepStatus::Unknown | StepStatus::Running)) {
        return Ok(());
    }
    let way = format!("{} resolve {} {}", cli.again(), shell_word(&state.workflow_id), shell_word(key));
    Err(Error::input(
        format!("if `{key}` happened, it has an answer: the tasks after it and its undo may use it"),
        format!("say what it answered: `{way} landed 'JSON'`; where it answers nothing: `{way} landed null`"),
    ))
}

/// The configuration that the command line names, or the one that lies here.
///
/// # Errors
/// It cannot be used, with the place.
pub fn load_config(cli: &Cli) -> Result<Config, Error> {
    Config::load(cli.config.as_deref()).map_err(|e| Error { code: 2, message: e.message, hint: Some(e.hint) })
}

/// A literal model whose provider is not configured is found before the first event.
fn check_models(config: &Config, loaded: &Loaded, file: &Path) -> Result<(), Error> {
    for (model, line, column) in &loaded.models {
        check_model(config, model).map_err(|problem| Error {
            code: 2,
            message: format!("{}:{line}:{column}: {}", file.display(), problem.message),
            hint: Some(problem.hint),
        })?;
    }
    Ok(())
}

/// JSON as given, from `@FILE`, or from standard input (`-`). `what` names it where it is given.
///
/// # Errors
/// It is no JSON, with the place, or cannot be read.
pub fn read_json(what: &str, text: &str) -> Result<Value, Error> {
    let (source, text) = match text.strip_prefix('@') {
        Some("") => return Err(Error::input(format!("{what}: no file behind @"), "write @FILE, or JSON")),
        Some(path) => (path, bounded(path, std::fs::File::open(path))?),
        None if text == "-" => ("standard input", bounded("standard input", Ok(std::io::stdin()))?),
        None => (what, text.to_owned()),
    };
    let text = text.trim_start_matches('\u{feff}');
    let value = match foldback::core::json::parse_if_json(text.as_bytes()) {
        Some(Ok(value)) => value,
        Some(Err(e)) => {
            return Err(Error::input(
                format!("{source}:{}:{}: {}", e.line, e.column, e.message),
                "write a number outside 64 bits as a text, and each member once",
            ));
        }
        None => foldback::core::json::parse(text).map_err(|e| {
            Error::input(
                format!("{source}:{}:{}: not JSON: {}", e.line, e.column, e.message),
                "in a shell, quote it: '{\"topic\": \"lamps\"}'",
            )
        })?,
    };
    if is_too_deep(&value) {
        let most = limits::VALUE_DEPTH_MAX;
        return Err(Error::input(format!("{source}: nests deeper than {most} levels"), "flatten the data"));
    }
    Ok(value)
}

/// A text that is no longer than a value may be.
///
/// # Errors
/// It cannot be read, is too long, or is no UTF-8.
pub fn bounded(source: &str, from: std::io::Result<impl Read>) -> Result<String, Error> {
    let mut bytes = Vec::new();
    let most = limits::VALUE_MAX_BYTES;
    let read = from.and_then(|from| from.take(most as u64 + 1).read_to_end(&mut bytes));
    read.map_err(|e| Error::input(format!("{source}: {e}"), "name a file that holds JSON: @FILE"))?;
    if bytes.len() > most {
        let message = format!("{source}: is larger than {} MiB", most / (1024 * 1024));
        return Err(Error::input(message, "put the data in a file or a service and pass its address"));
    }
    String::from_utf8(bytes)
        .map_err(|_| Error::input(format!("{source}: is not UTF-8 text"), "JSON is UTF-8: convert it"))
}

/// How a command came out: where its workflow rests, or why it was refused.
pub type End = Result<Rest, Refusal>;

/// Says commands to a session, and follows their workflows until they rest.
///
/// # Errors
/// The store failed.
pub fn drive(
    cli: &Cli,
    config: &Config,
    store: &Arc<dyn Store>,
    commands: Vec<Command>,
) -> Result<Vec<End>, Error> {
    say_to_session(cli, config, store, commands, |session, commands| session.drive_each(commands))
}

/// Says commands to a session, and leaves the work that follows to whoever resumes it.
///
/// # Errors
/// The store failed.
pub fn leave(
    cli: &Cli,
    config: &Config,
    store: &Arc<dyn Store>,
    commands: Vec<Command>,
) -> Result<Vec<End>, Error> {
    say_to_session(cli, config, store, commands, |session, commands| session.tell_each(commands))
}

fn say_to_session(
    cli: &Cli,
    config: &Config,
    store: &Arc<dyn Store>,
    commands: Vec<Command>,
    say: impl FnOnce(&Session, Vec<Command>) -> Result<Vec<End>, SessionError>,
) -> Result<Vec<End>, Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(2)
        .thread_name("foldback-step")
        .build()
        .map_err(|e| Error::machine(format!("no threads for steps: {e}")))?;
    let ids = commands.iter().map(|c| c.workflow_id().to_string()).collect();
    let progress = Arc::new(Progress::new(ids, cli.again()));
    progress.watch();
    for command in &commands {
        let id = command.workflow_id();
        // What cannot be read is the loop's to tell; here it is only a name less to show.
        let _shown = reading::pages(&**store, id, 0, &mut |page| {
            page.iter().flat_map(load::decode).for_each(|event| progress.recall(id, &event));
            Ok(true)
        });
    }
    let stop = Arc::new(AtomicBool::new(false));
    let signals = {
        let _inside = runtime.enter();
        Signals::heard()
    };
    if let Some(signals) = signals {
        runtime.spawn(stop_on_signal(signals, stop.clone(), cli.again()));
    }
    let session = Session {
        store: store.clone(),
        kinds: registry(config),
        programs: Arc::new(Definitions::default().with_redaction(config.redaction().clone())),
        pool: runtime.handle().clone(),
        observer: Some(progress),
        actor: actor(),
        stop,
    };
    let rests = say(&session, commands).map_err(|error| match error {
        SessionError::Store(error) => Error::from(error),
        SessionError::Refused(refusal) => refused(refusal),
    });
    // Nothing is in flight any more, or the store failed: then nobody hears a report, and no process of a
    // step outlives us.
    let _ended = rests.is_err().then(foldback::connectors::end_processes);
    runtime.shutdown_background();
    rests
}

/// Who speaks, for the envelope: the person's login name.
pub fn actor() -> Arc<str> {
    let login = std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).unwrap_or_default();
    if login.is_empty() { Arc::from("user") } else { Arc::from(format!("user:{login}")) }
}

/// The same on Linux (but for MIPS), macOS and the BSDs.
const SIGXFSZ: i32 = 25;

/// The signals that stop a command, heard from the moment this is made.
struct Signals {
    terminate: Signal,
    /// The terminal was closed. `None` where whoever started us wants that to mean nothing (`nohup`).
    hangup: Option<Signal>,
    /// A file grew past what this process may write (`ulimit -f`). Heard, so that the write fails and is told;
    /// unheard, it would end the process without a word.
    _too_long: Option<Signal>,
}

impl Signals {
    fn heard() -> Option<Signals> {
        // Looked at before: from the first handler on it is ours.
        let is_ignored = ignores(SignalKind::hangup()).unwrap_or(true);
        let hangup = (!is_ignored).then(|| signal(SignalKind::hangup()).ok()).flatten();
        let too_long = signal(SignalKind::from_raw(SIGXFSZ)).ok();
        Some(Signals { terminate: signal(SignalKind::terminate()).ok()?, hangup, _too_long: too_long })
    }

    /// The next word to stop. A closed terminal says it once, however often it is sent.
    async fn next(&mut self) {
        let hung_up = async {
            match &mut self.hangup {
                Some(hangup) => drop(hangup.recv().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            interrupted = tokio::signal::ctrl_c() => if interrupted.is_err() { std::future::pending().await },
            _ = self.terminate.recv() => {}
            () = hung_up => self.hangup = None,
        }
    }
}

/// Says whether this process was started with a signal ignored; `None` where nobody can tell. Such a
/// signal is left as it is.
fn ignores(kind: SignalKind) -> Option<bool> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
    let mask = u64::from_str_radix(mask.trim(), 16).ok()?;
    Some(mask >> (kind.as_raw_value() - 1) & 1 == 1)
}

/// The first Ctrl-C, SIGTERM or hangup lets steps in flight report and then ends; the second ends now.
async fn stop_on_signal(mut signals: Signals, stop: Arc<AtomicBool>, again: String) {
    signals.next().await;
    say(format!("stopping: steps in flight may report; once more to end at once. `{again} resume` goes on"));
    stop.store(true, Ordering::Relaxed);
    signals.next().await;
    let _ended = foldback::connectors::end_processes();
    std::process::exit(130);
}

/// A refusal as the error that ends a command.
pub fn refused(refusal: Refusal) -> Error {
    Error {
        code: if refusal.is_quarantined || refusal.needs_erased { 1 } else { 2 },
        message: refusal.message,
        hint: Some(refusal.hint).filter(|hint| !hint.is_empty()),
    }
}

/// Prints where each workflow came to rest. A refusal of one hides nothing of the others.
///
/// # Errors
/// The last refusal, or the store failed.
pub fn finish(cli: &Cli, store: &dyn Store, ends: Vec<End>) -> Result<Exit, Error> {
    finish_with(cli, store, ends, None)
}

/// As [`finish`], where ending so is what was asked for.
///
/// # Errors
/// As [`finish`].
pub fn finish_ended(cli: &Cli, store: &dyn Store, ends: Vec<End>) -> Result<Exit, Error> {
    let is_done = |status| matches!(status, Status::Cancelled | Status::Compensated);
    finish_each(cli, store, ends, None, &is_done)
}

/// As [`finish`], with the plan that was made before, for scripts.
///
/// # Errors
/// As [`finish`].
pub fn finish_with(
    cli: &Cli,
    store: &dyn Store,
    ends: Vec<End>,
    plan: Option<&Value>,
) -> Result<Exit, Error> {
    let is_done = |status| matches!(status, Status::Completed | Status::Waiting | Status::Paused);
    finish_each(cli, store, ends, plan, &is_done)
}

fn finish_each(
    cli: &Cli,
    store: &dyn Store,
    ends: Vec<End>,
    plan: Option<&Value>,
    is_done: &dyn Fn(Status) -> bool,
) -> Result<Exit, Error> {
    let mut out = Out::new();
    let mut exit = Exit::Done;
    let mut refusals = Vec::new();
    for end in ends {
        let rest = match end {
            Ok(rest) => rest,
            Err(refusal) => {
                refusals.push(refusal);
                continue;
            }
        };
        let state = state_seen(store, &rest.workflow_id, None);
        let state = state
            .map_err(|e| Error::no(format!("`{}`: {e}", rest.workflow_id), "`foldback audit` says more"))?;
        let Some(state) = state else {
            let why = match rest.reason.as_deref() {
                None | Some("stopped") => "stopped before it was taken up; nothing was started",
                Some(reason) => reason,
            };
            say(format!("{}: {why}", rest.workflow_id));
            exit = Exit::No;
            continue;
        };
        let status = if rest.status == Status::Quarantined { rest.status } else { state.status() };
        // A reason says that it does not rest: somebody stopped us, or its log cannot be read.
        if !is_done(status) || rest.reason.is_some() {
            exit = Exit::No;
        }
        if cli.json {
            let mut document = result(&state, status);
            if let Some(plan) = plan {
                document["plan"] = plan.clone();
            }
            out.json(&document)?;
        } else {
            print_result(&mut out, cli, &state, &rest, is_done(status))?;
        }
    }
    out.flush()?;
    // The last is told as the error that ends the command.
    let last = refusals.pop();
    for refusal in refusals {
        say_error(&refused(refusal));
    }
    last.map_or(Ok(exit), |refusal| Err(refused(refusal)))
}

/// The document that scripts read.
fn result(state: &WorkflowState, status: Status) -> Value {
    let mut document =
        json!({"workflow_id": &*state.workflow_id, "status": status.as_str(), "version": state.version});
    match &state.end {
        Some(Ended::Completed { output }) => document["output"] = (*output.get()).clone(),
        Some(Ended::Failed { error }) => {
            document["error"] = serde_json::to_value(error.plain()).unwrap_or_default()
        }
        Some(Ended::Parked { key, recorded, asked }) => {
            document["error"] = json!({
                "type": "parked", "status": 409, "title": "The program and its log disagree",
                "detail": format!("recorded {recorded}, asked {asked}"), "key": key,
            });
        }
        Some(Ended::Cancelled { reason }) => {
            document["error"] = json!({
                "type": "cancelled", "status": 499, "title": "A person ended it", "detail": reason,
            });
        }
        None => {}
    }
    document
}

/// Writes that wait for a person to say what becomes of them.
fn held(state: &WorkflowState) -> impl Iterator<Item = &Key> {
    let is_held = |key: &&Key| match state.entries.get(*key).map(|entry| &entry.body) {
        Some(EntryBody::Step(step)) => step.status == StepStatus::Held,
        _ => false,
    };
    state.open.iter().filter(is_held)
}

fn print_result(
    out: &mut Out,
    cli: &Cli,
    state: &WorkflowState,
    rest: &Rest,
    is_as_asked: bool,
) -> Result<(), Error> {
    let (name, id) = (&state.workflow_id, shell_word(&state.workflow_id));
    let again = cli.again();
    match &state.end {
        // What it gave, or failed of before, is no news where something it did is still to be known.
        Some(end) if matches!(state.status(), Status::Compensating | Status::Unknown) => {
            ending::say_unsettled(&again, state, end, rest.reason.as_deref());
        }
        // What it gave, or failed of before, is no result any more where taking it back was asked for.
        Some(end) if state.is_compensated && (is_as_asked || !matches!(end, Ended::Failed { .. })) => {
            say(format!("{name} was taken back; `{again} show {id}` says what became of each thing it did"));
        }
        Some(Ended::Completed { .. } | Ended::Cancelled { .. }) if state.stuck().is_some() => {}
        Some(Ended::Completed { output }) => {
            let text = serde_json::to_string_pretty(&*output.get()).unwrap_or_default();
            for line in text.lines() {
                out.line(line)?;
            }
        }
        Some(Ended::Failed { error }) => {
            let (detail, hint) = split_hint(error.detail.as_deref().unwrap_or_default());
            let key = error.key.as_ref().map(|key| format!(" at {key}")).unwrap_or_default();
            say(format!("error: {} {}{key}", error.status, error.title));
            for line in detail.lines().take(10) {
                say(format!("  {line}"));
            }
            if let Some(instance) = &error.instance {
                say(format!("  in the definition: {instance}"));
            }
            if let Some(hint) = hint {
                say(format!("hint: {hint}"));
            }
            // What is still being taken back is not retried, and who is stuck is told below what goes on.
            if matches!(state.status(), Status::Failed | Status::Compensated) {
                say(format!(
                    "hint: `{again} state {id} --at failure` shows what the failing step got; `{again} retry {id}` goes on from there"
                ));
            }
        }
        None if state.pause.is_some() => {
            let reason = state.pause.as_ref().map(|pause| pause.reason.as_str()).unwrap_or_default();
            let why = if reason.is_empty() { String::new() } else { format!(": {reason}") };
            say(format!("{name} is paused{why}"));
            let raise = ending::raise(state.pause.as_ref().and_then(|pause| pause.budget.as_ref()));
            say(format!("hint: `{again} unpause {id}{raise}` goes on"));
        }
        Some(Ended::Cancelled { reason }) => {
            let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
            say(format!("{name} was cancelled{reason}"));
        }
        Some(Ended::Parked { recorded, asked, .. }) => {
            say(format!("error: the program and its log disagree: recorded {recorded}, asked {asked}"));
            say(format!(
                "hint: `{again} verify {id}` shows where; go on with the build that wrote it, or with a definition that \
                 fits: `{again} retry {id} --definition FILE`"
            ));
        }
        None => match &rest.reason {
            Some(reason) => {
                say(format!("{name} is {}: {reason}; `{again} resume {id}` goes on", state.status().as_str()))
            }
            None => {
                say(format!(
                    "{name} is {}; `{again} show {id}` says what it waits for",
                    state.status().as_str()
                ));
                for (key, names, wants) in state.listeners() {
                    if let Some(due) = state.deadline(key) {
                        let until = now::until(due, None);
                        say(format!("  {key} waits for {}, {until}", names.join(", ")));
                    }
                    for (command, _) in ending::answers(&again, &id, names, &wants.get()) {
                        say(format!("hint: `{command}` answers it"));
                    }
                }
                for key in held(state) {
                    say(format!(
                        "hint: `{again} resolve {id} {} live` performs the write; also `stub [JSON]` and `deny`",
                        shell_word(key.as_str())
                    ));
                }
            }
        },
    }
    if let Some((undo, failure)) = state.stuck() {
        say(format!("error: {} could not be taken back: {} {}", undo.key, failure.status, failure.title));
        say(format!(
            "hint: mend what stands in its way, then `{again} compensate {id}` goes on there; or do it by hand, and say so: \
             `{again} resolve {id} {} landed`",
            shell_word(undo.key.undo().as_str())
        ));
    }
    Ok(())
}
