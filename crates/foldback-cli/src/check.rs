//! `check`: whether a definition can be run, with line and column. It runs nothing and writes
//! nothing.

use std::path::Path;

use foldback::connectors::{Config, is_priced, providers};
use foldback::core::text::shell_word;
use foldback::ows::{Loaded, Problem};
use serde_json::{Value, json};

use crate::args::{CheckArgs, Cli};
use crate::definition;
use crate::drive::load_config;
use crate::error::{Error, Exit};
use crate::out::{Ink, Line, Out, say};

/// Characters of a line that are shown, and how many of them stand behind the column at least.
const EXCERPT_MAX: usize = 100;
const EXCERPT_AHEAD: usize = 30;

/// Checks a definition.
///
/// # Errors
/// The file cannot be read, or is refused: each problem was told on stderr then.
pub fn check(cli: &Cli, args: &CheckArgs) -> Result<Exit, Error> {
    let file = &args.file;
    let mut out = Out::new();
    let source = definition::source(file)?;
    let loaded = match definition::parse(cli, file, &source) {
        Ok(loaded) => loaded,
        Err(problems) => {
            problems.iter().for_each(|problem| tell(file, &source, "", problem));
            if cli.json {
                let problems: Vec<Value> = problems.iter().map(as_json).collect();
                out.json(
                    &json!({"ok": false, "name": null, "hash": null, "problems": problems, "warnings": []}),
                )?;
                out.flush()?;
            }
            let count = match problems.len() {
                1 => "a problem".to_owned(),
                n => format!("{n} problems"),
            };
            let hint = "mend what is named above; nothing was run".to_owned();
            return Err(Error::input(format!("{}: refused, {count}", file.display()), hint));
        }
    };
    let mut warnings = loaded.warnings.clone();
    let config = load_config(cli)?;
    warnings.extend(strangers(&config, &loaded.models));
    warnings.extend(unpriced(&config, &loaded));
    warnings.sort_by_key(|warning| (warning.line, warning.column));
    warnings.iter().for_each(|warning| tell(file, &source, "warning: ", warning));
    if cli.json {
        let warnings: Vec<Value> = warnings.iter().map(as_json).collect();
        let hash = loaded.hash.to_hex();
        out.json(
            &json!({"ok": true, "name": loaded.name, "hash": hash, "problems": [], "warnings": warnings}),
        )?;
    } else {
        let count = match warnings.len() {
            0 => String::new(),
            1 => ", 1 warning".to_owned(),
            n => format!(", {n} warnings"),
        };
        let short = &loaded.hash.to_hex()[..12];
        out.line(
            Line::new()
                .ink(Ink::Green, "✓ ")
                .plain(file.display().to_string())
                .plain(format!("  {}{count}", loaded.name))
                .dim(format!("  {short}")),
        )?;
    }
    out.flush()?;
    Ok(if args.strict && !warnings.is_empty() { Exit::No } else { Exit::Done })
}

/// Prints a problem or a warning: its place, the line where it stands, and the hint.
pub fn tell(file: &Path, source: &str, severity: &str, problem: &Problem) {
    say(format!("{}:{}:{}: {severity}{}", file.display(), problem.line, problem.column, problem.message));
    excerpt(source, problem).iter().for_each(say);
    if let Some(hint) = &problem.hint {
        say(format!("  hint: {hint}"));
    }
}

/// The line of a problem with a mark under its column. Of a long line the part around the column is shown.
fn excerpt(source: &str, problem: &Problem) -> Vec<String> {
    let line = source.lines().nth((problem.line as usize).saturating_sub(1));
    let Some(line) = line.filter(|line| !line.trim().is_empty()) else {
        return Vec::new();
    };
    let column = (problem.column as usize).saturating_sub(1);
    let from = (column + EXCERPT_AHEAD).saturating_sub(EXCERPT_MAX);
    // One character, one column: what is no plain one would move the mark.
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let shown: String = line.chars().skip(from).take(EXCERPT_MAX).map(plain).collect();
    let number = problem.line.to_string();
    let margin = " ".repeat(number.len());
    vec![
        format!("  {number} | {}", shown.trim_end()),
        format!("  {margin} | {}^", " ".repeat(column.saturating_sub(from))),
    ]
}

fn as_json(problem: &Problem) -> Value {
    json!({
        "line": problem.line,
        "column": problem.column,
        "pointer": problem.pointer,
        "message": problem.message,
        "hint": problem.hint,
    })
}

/// Models whose provider is not known here. It may be where the definition runs, so this is a
/// warning; `run` refuses it.
fn strangers(config: &Config, models: &[(String, u32, u32)]) -> Vec<Problem> {
    let known: Vec<String> = providers(config).into_iter().map(|status| status.name).collect();
    let mut found = Vec::new();
    for (model, line, column) in models {
        let provider = model.split('/').next().unwrap_or_default();
        if known.iter().any(|name| name == provider) {
            continue;
        }
        found.push(Problem {
            line: *line,
            column: *column,
            pointer: String::new(),
            message: format!("the provider of the model `{model}` is not known here"),
            hint: Some(format!(
                "known are {}; add [providers.{}] to foldback.toml",
                known.join(", "),
                shell_word(provider)
            )),
        });
    }
    found
}

/// Budgets in money that do not count a model, since nobody knows its price: calls to it never use
/// such a budget up.
pub fn unpriced(config: &Config, loaded: &Loaded) -> Vec<Problem> {
    let mut models: Vec<&str> = loaded.models.iter().map(|(model, ..)| model.as_str()).collect();
    models.retain(|model| !is_priced(config, model));
    models.dedup();
    let Some(first) = models.first() else { return Vec::new() };
    let provider = first.split('/').next().unwrap_or_default();
    let warning = |(line, column): &(u32, u32)| Problem {
        line: *line,
        column: *column,
        pointer: String::new(),
        message: format!(
            "a budget in money does not count {}: no price is known",
            models.iter().map(|model| format!("`{model}`")).collect::<Vec<_>>().join(", ")
        ),
        hint: Some(format!(
            "under [providers.{}.prices] in foldback.toml set input_usd_per_million_tokens and \
             output_usd_per_million_tokens; or set a budget of tokens too",
            shell_word(provider)
        )),
    };
    loaded.money_budgets.iter().map(warning).collect()
}
