//! `shell` and `script`: one child process, run to its end.
//!
//! Invariants: a child leads a process group of its own, and the whole group ends with the step,
//! whether the child exits, runs too long or writes too much; none is left behind as a zombie.
//! What is started with `setsid` leaves the group, and is on its own while its engine lives. A process
//! that ended is a known outcome, also where a signal ended it. What outlives its engine is found by the
//! mark in its environment and ended by the next one (`orphans`).
//!
//! A child inherits the environment of the engine, without the variables of secrets
//! (`FOLDBACK_SECRET_*`) and of the providers' keys: a secret reaches it only where the request says so. It is told
//! `FOLDBACK_WORKFLOW_ID`, `FOLDBACK_KEY`, `FOLDBACK_ATTEMPT_NUMBER` and, for a `write`,
//! `FOLDBACK_IDEMPOTENCY_KEY`. `FOLDBACK_ATTEMPT` is the attempt's mark, behind those that the engine carries
//! itself. Lines on stderr are progress.
//!
//! Output, by `return`: `stdout` (default), `stderr`, `code`, `all` (`{code, stdout, stderr}`) or
//! `none` (`null`). Without its last line break, `stdout` is a text for a shell command; for a
//! script it is JSON where it parses, else a text. Bytes that are no UTF-8 become a `data:` URI that
//! holds all of them ([`foldback_core::media`]). An exit code other than 0 is an error, unless
//! the code is part of the output (`code`, `all`).

mod child;
mod orphans;
mod script;
mod shell;

use foldback_core::step::{STEP_VARIABLES, error_type};
use foldback_core::{Failure, Outcome, media};
use foldback_engine::kind::Call;
use serde_json::{Value, json};

use crate::request::{Members, is_no_room, no_room, text_of, wrong};
use crate::work::failed;
pub(crate) use child::Ended;
pub use child::end_all;
use child::{Child, Trouble};
pub(crate) use script::Script;
pub(crate) use shell::Shell;

/// Files that a child takes: three pipes, of which it has the other ends while it is started.
const FILES_OF_A_CHILD: usize = 8;

/// Lines of stderr that an error shows.
const ERROR_LINES: usize = 20;

/// Characters of stderr that an error shows.
const ERROR_CHARS: usize = 4_000;

/// What of a finished process becomes the step's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Return {
    Stdout,
    Stderr,
    Code,
    All,
    Nothing,
}

/// What shell commands and scripts have in common.
struct Common {
    kind: &'static str,
    environment: Vec<(String, String)>,
    stdin: Option<Vec<u8>>,
    output: Return,
}

impl Common {
    fn read(kind: &'static str, members: &Members<'_>, call: &Call) -> Result<Common, Failure> {
        let output = match members.text("return")? {
            None | Some("stdout") => Return::Stdout,
            Some("stderr") => Return::Stderr,
            Some("code") => Return::Code,
            Some("all") => Return::All,
            Some("none") => Return::Nothing,
            Some(_) => {
                return Err(wrong(kind, "`return` is none of stdout, stderr, code, all, none"));
            }
        };
        let mut environment = vec![
            ("FOLDBACK_WORKFLOW_ID".to_owned(), call.workflow_id.to_string()),
            ("FOLDBACK_KEY".to_owned(), call.key.as_str().to_owned()),
            ("FOLDBACK_ATTEMPT_NUMBER".to_owned(), call.attempt.to_string()),
        ];
        if let Some(key) = &call.idempotency_key {
            environment.push(("FOLDBACK_IDEMPOTENCY_KEY".to_owned(), key.clone()));
        }
        for (name, value) in members.object("environment")?.into_iter().flatten() {
            let value = text_of(value);
            if STEP_VARIABLES.contains(&name.as_str()) {
                let what = format!(
                    "`environment`: `{name}` tells the process which step it is; choose another name"
                );
                return Err(wrong(kind, &what));
            }
            if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
                return Err(wrong(
                    kind,
                    &format!("`environment`: `{name}` cannot be a variable, or holds a NUL"),
                ));
            }
            environment.push((name.clone(), value.into_owned()));
        }
        let stdin = members.value("stdin").map(|value| text_of(value).into_owned().into_bytes());
        Ok(Common { kind, environment, stdin, output })
    }

    /// Runs a program to its end and tells how it ended.
    async fn run(
        self,
        program: &str,
        arguments: Vec<String>,
        call: &Call,
        keys: &[String],
    ) -> Result<Ended, Outcome> {
        if arguments.iter().any(|argument| argument.contains('\0')) {
            return Err(failed(wrong(self.kind, "an argument holds a NUL")));
        }
        let (environment, stdin, attempt_id) = (self.environment, self.stdin, &call.attempt_id);
        let child = Child { program, arguments, environment, stdin, keys, attempt_id };
        child.run(&call.progress).await.map_err(|trouble| failed(self::trouble(program, trouble)))
    }
}

fn trouble(program: &str, trouble: Trouble) -> Failure {
    match trouble {
        Trouble::NotFound => Failure::new(
            error_type::CONFIGURATION,
            400,
            "Program not found",
            format!("`{program}` is not on the PATH of the engine: install it, or add its directory to PATH"),
        ),
        Trouble::NotStarted(why) if is_no_room(&why) => {
            no_room(format!("`{program}` could not be started: {why}"))
        }
        Trouble::NotStarted(why) => Failure::new(
            error_type::CONFIGURATION,
            400,
            "Program not started",
            format!("`{program}` could not be started: {why}"),
        ),
        Trouble::TooLong(max) => Failure::new(
            error_type::RUNTIME,
            500,
            "Output too long",
            format!("`{program}` wrote more than {max} bytes to stdout, and was ended"),
        ),
        Trouble::Broken(why) => {
            Failure::new(error_type::RUNTIME, 500, "Process lost", format!("`{program}`: {why}"))
        }
    }
}

/// What a process wrote: text without its last line break, or a `data:` URI where it is no text.
fn written(bytes: Vec<u8>, parse: impl Fn(String) -> Result<Value, Failure>) -> Result<Value, Failure> {
    match String::from_utf8(bytes) {
        Ok(text) => parse(without_line_break(text)),
        Err(error) => Ok(Value::String(media::write("application/octet-stream", error.as_bytes()))),
    }
}

/// As [`written`], where text is a text.
fn text(bytes: Vec<u8>) -> Value {
    written(bytes, |text| Ok(Value::String(text))).unwrap_or_default()
}

fn without_line_break(mut text: String) -> String {
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    text
}

/// The outcome of a process that ended.
fn outcome(ended: Ended, output: Return, parse: impl Fn(String) -> Result<Value, Failure>) -> Outcome {
    let shows_code = matches!(output, Return::Code | Return::All);
    if ended.code != Some(0) && !(shows_code && ended.code.is_some()) {
        return failed(refusal(&ended));
    }
    let output = match output {
        Return::Stdout => match written(ended.stdout, parse) {
            Ok(value) => value,
            Err(failure) => return failed(failure),
        },
        Return::Stderr => text(ended.stderr),
        Return::Code => json!(ended.code),
        Return::All => json!({
            "code": ended.code,
            "stdout": text(ended.stdout),
            "stderr": text(ended.stderr),
        }),
        Return::Nothing => Value::Null,
    };
    Outcome::Completed { output, usage: None }
}

fn refusal(ended: &Ended) -> Failure {
    let end = match (ended.code, ended.signal) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("ended by signal {signal}"),
        (None, None) => "ended without a code".to_owned(),
    };
    let stderr = String::from_utf8_lossy(&ended.stderr);
    let lines: Vec<&str> = stderr.lines().collect();
    let tail = lines[lines.len().saturating_sub(ERROR_LINES)..].join("\n");
    let skipped = tail.chars().count().saturating_sub(ERROR_CHARS);
    let tail: String = tail.chars().skip(skipped).collect();
    let detail = if tail.is_empty() { end.clone() } else { format!("{end}\n{tail}") };
    Failure::new(error_type::RUNTIME, 500, "Process failed", detail)
}

/// Arguments of a request: a list is taken as it is; of a map, `name: value` becomes
/// `--name=value` (`--name` for `true` and `null`, nothing for `false`), and a name that starts
/// with a dash stays as it is.
fn arguments(kind: &'static str, members: &Members<'_>) -> Result<Vec<String>, Failure> {
    match members.value("arguments") {
        None => Ok(Vec::new()),
        Some(Value::Array(items)) => Ok(items.iter().map(|item| text_of(item).into_owned()).collect()),
        Some(Value::Object(map)) => Ok(map
            .iter()
            .filter(|(_, value)| **value != Value::Bool(false))
            .map(|(name, value)| {
                let flag = if name.starts_with('-') { name.clone() } else { format!("--{name}") };
                match value {
                    Value::Null | Value::Bool(true) => flag,
                    value => format!("{flag}={}", text_of(value)),
                }
            })
            .collect()),
        Some(_) => Err(wrong(kind, "`arguments` is neither a list nor an object")),
    }
}
