//! The kind `script`: code in a language whose interpreter is on the PATH.
//!
//! The code goes to the interpreter on its command line; where it is too long for one argument,
//! by a file in a private directory that is removed with the step. In Python the arguments are
//! `sys.argv[1:]`, in JavaScript `process.argv.slice(2)`, in a shell `$1` and on.

use std::io;
use std::sync::Arc;

use foldback_core::step::error_type;
use foldback_core::{Failure, Outcome, limits};
use foldback_engine::kind::{Call, Looking};
use serde_json::Value;
use tempfile::TempDir;

use super::{Common, FILES_OF_A_CHILD, arguments, orphans, outcome};
use crate::request::{Members, is_no_room, no_room, wrong};
use crate::work::{Work, failed};

/// Linux takes at most 128 KiB in one argument.
const INLINE_CODE_MAX_BYTES: usize = 96 * 1024;

/// The kind `script`.
pub(crate) struct Script {
    /// Variables that a child does not inherit.
    pub(crate) keys: Arc<[String]>,
}

/// An interpreter, and how code is given to it.
struct Interpreter {
    program: &'static str,
    /// The option before code on the command line.
    inline: &'static str,
    /// What stands between the code and the arguments.
    between: &'static [&'static str],
    /// The ending of a file with code.
    ending: &'static str,
}

fn interpreter(language: &str) -> Option<Interpreter> {
    Some(match language.to_ascii_lowercase().as_str() {
        "python" | "python3" => Interpreter { program: "python3", inline: "-c", between: &[], ending: "py" },
        // With `-e` there is no file's name in `process.argv`: a word stands in its place.
        "javascript" | "js" | "node" => {
            Interpreter { program: "node", inline: "-e", between: &["--", "script"], ending: "js" }
        }
        "sh" | "shell" => Interpreter { program: "sh", inline: "-c", between: &["script"], ending: "sh" },
        "bash" => Interpreter { program: "bash", inline: "-c", between: &["script"], ending: "sh" },
        _ => return None,
    })
}

impl Work for Script {
    const RUN_AHEAD: u32 = limits::RUN_AHEAD_OTHER;
    const FILES: usize = FILES_OF_A_CHILD;

    fn end_orphans(&self, attempt_id: &str) -> Option<Looking> {
        Some(orphans::end(attempt_id.to_owned()))
    }

    async fn work(self: Arc<Self>, call: Call, request: Value) -> Outcome {
        let Plan { common, interpreter, code, arguments } = match Plan::read(&call, &request) {
            Ok(plan) => plan,
            Err(error) => return failed(error),
        };
        // Kept to the end of the step: dropping it removes the file.
        let (_directory, line) = match command_line(&interpreter, code, arguments).await {
            Ok(line) => line,
            Err(why) => {
                let detail = format!("the code could not be written to a file: {why}");
                if is_no_room(&why) {
                    return failed(no_room(detail));
                }
                return failed(Failure::new(error_type::RUNTIME, 500, "Script not started", detail));
            }
        };
        let output = common.output;
        match common.run(interpreter.program, line, &call, &self.keys).await {
            Ok(ended) => {
                outcome(ended, output, |text| match foldback_core::json::parse_if_json(text.as_bytes()) {
                    Some(Ok(value)) => Ok(value),
                    Some(Err(why)) => {
                        let detail = format!("the output is JSON that cannot be kept as it is: {why}");
                        Err(Failure::new(error_type::RUNTIME, 500, "Output not kept", detail))
                    }
                    None => Ok(Value::String(text)),
                })
            }
            Err(outcome) => outcome,
        }
    }
}

struct Plan {
    common: Common,
    interpreter: Interpreter,
    code: String,
    arguments: Vec<String>,
}

impl Plan {
    fn read(call: &Call, request: &Value) -> Result<Plan, Failure> {
        const KNOWN: [&str; 6] = ["language", "code", "arguments", "environment", "stdin", "return"];
        let members = Members::of("script", request, &KNOWN)?;
        let language = members.text("language")?.ok_or_else(|| wrong("script", "`language` is missing"))?;
        let interpreter = interpreter(language).ok_or_else(|| {
            wrong("script", &format!("`language` is `{language}`; python, javascript, bash and sh are known"))
        })?;
        let code = members.text("code")?.ok_or_else(|| wrong("script", "`code` is missing"))?;
        Ok(Plan {
            common: Common::read("script", &members, call)?,
            interpreter,
            code: code.to_owned(),
            arguments: arguments("script", &members)?,
        })
    }
}

async fn command_line(
    interpreter: &Interpreter,
    code: String,
    arguments: Vec<String>,
) -> io::Result<(Option<TempDir>, Vec<String>)> {
    if code.len() <= INLINE_CODE_MAX_BYTES {
        let between = interpreter.between.iter().map(|word| (*word).to_owned());
        let line =
            [interpreter.inline.to_owned(), code].into_iter().chain(between).chain(arguments).collect();
        return Ok((None, line));
    }
    let name = format!("script.{}", interpreter.ending);
    let written = tokio::task::spawn_blocking(move || {
        let directory = tempfile::Builder::new().prefix("foldback-").tempdir()?;
        let path = directory.path().join(name);
        std::fs::write(&path, code)?;
        Ok((directory, path.to_string_lossy().into_owned()))
    });
    let (directory, path) = written.await.unwrap_or_else(|stopped| Err(io::Error::other(stopped)))?;
    Ok((Some(directory), [path].into_iter().chain(arguments).collect()))
}
