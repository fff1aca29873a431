//! `prune`: whole workflows that have ended go, by name or by age; each leaves one signed-off row. It never touches
//! one that has not ended, nor the past of a living fork, and never gives an id out again.

use foldback::core::Micros;
use foldback::core::report::Moment;
use foldback::core::text::shell_word;
use foldback::store::forgetting::{NotForgotten, Plan, plan, plan_named};
use foldback::store::{Ownership, Pruning, Store, StoreError, Swept};
use serde_json::json;

use crate::args::{Cli, PruneArgs};
use crate::drive::actor;
use crate::error::{Error, Exit};
use crate::moment::{self, with_seconds};
use crate::out::{Line, Out, say};
use crate::reading;

/// Prunes, or says what would be pruned.
///
/// # Errors
/// The time is none; another process owns the store; the store fails.
pub fn prune(cli: &Cli, args: &PruneArgs) -> Result<Exit, Error> {
    if args.ids.is_empty() && args.ended_before.is_none() {
        return Err(Error::input(
            "prune needs to be told what goes: the ids of workflows, or --ended-before TIME",
            format!("`{} prune --ended-before 2026-01-31 --dry-run` says what would go", cli.again()),
        ));
    }
    let before = args.ended_before.as_deref().map_or(Ok(Micros::MAX), |text| {
        moment::time(text).ok_or_else(|| {
            Error::input(
                format!("{text:?} is no time"),
                "a day such as 2026-01-31, or a moment such as 2026-01-31T09:15:00Z",
            )
        })
    })?;
    let store = reading::open(cli)?;
    // Planned under the lock: what is planned is what happens.
    let owned = match args.dry_run {
        true => None,
        false => Some(own(&*store, "prune")?),
    };
    let plan = match args.ids.is_empty() {
        true => plan(&*store, before)?,
        false => plan_named(&*store, &args.ids, before).map_err(|(id, why)| stays(cli, &*store, &id, why))?,
    };
    let swept = match &owned {
        None => Swept::default(),
        Some(owned) => carry_out(&*store, owned, &plan, before)?,
    };
    print(cli, args, &plan, swept)?;
    Ok(Exit::Done)
}

/// The shard, for a command that takes something away.
///
/// # Errors
/// Another process owns it; the store fails.
pub fn own(store: &dyn Store, command: &str) -> Result<Ownership, Error> {
    let taken = || {
        Error::input(
            "another process owns the store, and may need what would be taken away",
            format!("{command} when it is done; --dry-run needs no ownership"),
        )
    };
    store.acquire(0, command)?.ok_or_else(taken)
}

/// Each workflow is one transaction: what was pruned before an error stays pruned and signed off.
fn carry_out(store: &dyn Store, owned: &Ownership, plan: &Plan, before: Micros) -> Result<Swept, Error> {
    let at = now();
    for (row, _) in &plan.prunable {
        let workflow_id = row.workflow_id.clone();
        let actor = actor().to_string();
        let pruning = Pruning { shard: 0, epoch: owned.epoch, workflow_id, before, at, actor };
        store.prune(&pruning).map_err(|why| refused(&row.workflow_id, why))?;
    }
    store.sweep(0, owned.epoch).map_err(|why| refused("the sweep", why))
}

/// The clock.
pub fn now() -> Micros {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(since.unwrap_or_default().as_micros()).unwrap_or(i64::MAX)
}

/// Why a workflow that was named is not pruned; nothing was.
fn stays(cli: &Cli, store: &dyn Store, id: &str, why: NotForgotten) -> Error {
    let (again, name) = (cli.again(), shell_word(id));
    match why {
        NotForgotten::NotThere => match reading::row(cli, store, id) {
            Err(unknown) => unknown,
            Ok(_) => {
                Error::input(format!("no workflow `{id}`"), format!("`{again} list` shows what there is"))
            }
        },
        NotForgotten::NotEnded { status } => Error::input(
            format!("`{id}` has not ended: it is {status}; nothing was pruned"),
            format!("`{again} cancel {name}` ends it"),
        ),
        NotForgotten::TooYoung { ended_at } => Error::input(
            format!(
                "`{id}` ended {}, which is not before --ended-before; nothing was pruned",
                with_seconds(ended_at)
            ),
            "leave --ended-before out to prune what is named, whatever its age",
        ),
        NotForgotten::HasForks { forks } => Error::input(
            format!("`{id}` is the past of {}; nothing was pruned", forks.join(", ")),
            format!(
                "name them too: `{again} prune {name} {}`",
                forks.iter().map(shell_word).collect::<Vec<_>>().join(" ")
            ),
        ),
        why @ (NotForgotten::StaleEpoch { .. } | NotForgotten::Failed(_)) => refused(id, why),
    }
}

fn refused(what: &str, why: NotForgotten) -> Error {
    match why {
        NotForgotten::Failed(error) => error.into(),
        why => StoreError { message: format!("{what}: {why:?}"), hint: None, is_input: false }.into(),
    }
}

fn print(cli: &Cli, args: &PruneArgs, plan: &Plan, swept: Swept) -> Result<(), Error> {
    let mut out = Out::new();
    if cli.json {
        let pruned: Vec<_> = plan
            .prunable
            .iter()
            .map(|(row, ended_at)| json!({"workflow_id": row.workflow_id, "status": row.status, "versions": row.version, "ended_at": Moment(*ended_at)}))
            .collect();
        let kept: Vec<_> =
            plan.kept.iter().map(|(id, forks)| json!({"workflow_id": id, "forks": forks})).collect();
        out.json(&json!({"dry_run": args.dry_run, "pruned": pruned, "kept": kept, "payloads": swept.payloads, "bytes": swept.bytes}))?;
        return out.flush();
    }
    for (row, ended_at) in &plan.prunable {
        let text = format!(
            "{}  {}  {} events, ended {}",
            row.workflow_id,
            row.status,
            row.version,
            with_seconds(*ended_at)
        );
        out.line(Line::new().plain(text))?;
    }
    for (id, forks) in &plan.kept {
        out.line(Line::new().dim(format!("{id}  stays: the past of {}", forks.join(", "))))?;
    }
    out.flush()?;
    let workflows = plan.prunable.len();
    match args.dry_run {
        true => say(format!("{workflows} would be pruned; without --dry-run they are")),
        false => say(format!("{workflows} pruned, {} payloads with {} bytes", swept.payloads, swept.bytes)),
    }
    Ok(())
}
