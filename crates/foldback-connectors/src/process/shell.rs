//! The kind `shell`: one command line for `sh -c`.
//!
//! Arguments are the positional parameters of the command (`$1`, `$@`). A command that uses none
//! of them gets the arguments at its end, so that `command: ls` with `arguments: [-l]` does what
//! it says; they are passed as they are, and never parsed by the shell.

use std::sync::Arc;

use foldback_core::{Failure, Outcome, limits};
use foldback_engine::kind::{Call, Looking};
use serde_json::Value;

use super::{Common, FILES_OF_A_CHILD, arguments, orphans, outcome};
use crate::request::{Members, wrong};
use crate::work::{Work, failed};

/// The kind `shell`.
pub(crate) struct Shell {
    /// Variables that a child does not inherit.
    pub(crate) keys: Arc<[String]>,
}

impl Work for Shell {
    const RUN_AHEAD: u32 = limits::RUN_AHEAD_OTHER;
    const FILES: usize = FILES_OF_A_CHILD;

    fn end_orphans(&self, attempt_id: &str) -> Option<Looking> {
        Some(orphans::end(attempt_id.to_owned()))
    }

    async fn work(self: Arc<Self>, call: Call, request: Value) -> Outcome {
        let (common, line) = match read(&call, &request) {
            Ok(read) => read,
            Err(error) => return failed(error),
        };
        let output = common.output;
        match common.run("sh", line, &call, &self.keys).await {
            Ok(ended) => outcome(ended, output, |text| Ok(Value::String(text))),
            Err(outcome) => outcome,
        }
    }
}

fn read(call: &Call, request: &Value) -> Result<(Common, Vec<String>), Failure> {
    const KNOWN: [&str; 5] = ["command", "arguments", "environment", "stdin", "return"];
    let members = Members::of("shell", request, &KNOWN)?;
    let command = members.text("command")?.ok_or_else(|| wrong("shell", "`command` is missing"))?;
    let arguments = arguments("shell", &members)?;
    let command = if arguments.is_empty() || uses_arguments(command) {
        command.to_owned()
    } else {
        format!("{} \"$@\"", command.trim_end())
    };
    // The word after the command is `$0`, the name in the shell's own messages.
    let line = ["-c".to_owned(), command, "sh".to_owned()].into_iter().chain(arguments).collect();
    Ok((Common::read("shell", &members, call)?, line))
}

/// Whether a command names its positional parameters: `$1`, `${2}`, `$@`, `$*`, `$#`.
fn uses_arguments(command: &str) -> bool {
    command.split('$').skip(1).any(|rest| {
        let name = rest.strip_prefix('{').unwrap_or(rest).trim_start_matches('#');
        rest.starts_with('#') || name.starts_with(|c: char| matches!(c, '1'..='9' | '@' | '*' | '#'))
    }) || command.split_whitespace().any(|word| word == "shift")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positional_parameters_are_seen() {
        for (command, expected) in [
            ("echo $1", true),
            ("echo \"${2:-x}\"", true),
            ("printf '%s' \"$@\"", true),
            ("echo $# and $*", true),
            ("echo $HOME ${PATH} $$ $?", false),
            ("ls", false),
        ] {
            assert_eq!(uses_arguments(command), expected, "{command}");
        }
    }
}
