//! The command line as data. What each command does stands in the room of its name.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use foldback::core::text::shell_word;

/// The store that is used when nobody names one.
const DEFAULT_STORE: &str = "sqlite:foldback.db";

/// An event-sourced engine for AI workflows: what each step got, what was decided and why, and
/// how to go on from exactly there.
#[derive(Debug, Parser)]
#[command(name = "foldback", version = env!("FOLDBACK_VERSION"), subcommand_required = true, arg_required_else_help = true)]
#[command(
    after_help = "Exit codes: 0 done, 1 the workflow failed or the answer is no, 2 bad usage or input, \
3 the store or the machine failed.\n\nTimes are printed and read in UTC.\n\nVERSION is N, -N (from the end), a time, `failure` (just before the failing \
step's first ask), KEY (just before its first ask) or KEY:end (just after its completion)."
)]
pub struct Cli {
    /// Where the log is: sqlite:PATH. Also FOLDBACK_STORE; sqlite:foldback.db unless told otherwise
    #[arg(long, global = true, value_name = "URL")]
    pub store: Option<String>,
    /// The configuration file. Also FOLDBACK_CONFIG; foldback.toml where there is one
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print JSON: one document, or one a line where the output is a sequence
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// The store's URL: as told, from `FOLDBACK_STORE`, or the default.
    pub fn store_url(&self) -> String {
        let from_environment = || std::env::var("FOLDBACK_STORE").ok().filter(|url| !url.trim().is_empty());
        self.store.clone().or_else(from_environment).unwrap_or_else(|| DEFAULT_STORE.to_owned())
    }

    /// How a person calls this program again for the same store: for hints.
    pub fn again(&self) -> String {
        match &self.store {
            Some(url) => format!("foldback --store {}", shell_word(url)),
            None => "foldback".to_owned(),
        }
    }

    /// A hint of a room that does not know the command line, with the store that it named.
    pub fn with_store(&self, hint: &str) -> String {
        const CALL: &str = "`foldback ";
        let mut parts = hint.split(CALL);
        let mut told = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let is_complete = part.starts_with('-') || STORELESS.iter().any(|word| part.starts_with(word));
            told += &if is_complete { CALL.to_owned() } else { format!("`{} ", self.again()) };
            told += part;
        }
        told
    }
}

/// Commands that know no store.
const STORELESS: [&str; 5] = ["init", "check", "bench", "completions", "man"];

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write a commented first pipeline
    Init(InitArgs),
    /// Say what is reachable and configured
    Doctor,
    /// Check a definition, with line and column
    Check(CheckArgs),
    /// Start a workflow and follow it to its end, or to a wait
    Run(RunArgs),
    /// Go on with whatever is unfinished
    Resume(ResumeArgs),
    /// List workflows, newest first
    List(ListArgs),
    /// Summarise a workflow as a tree of steps with cost and time
    Show(StepArgs),
    /// Print the log of a workflow
    Events(EventsArgs),
    /// Print the log with what each event changed in the state
    Replay(ReplayArgs),
    /// Print the state of a workflow
    State(AtArgs),
    /// What each step got and gave; one of them whole, with its prompt, attempts and place
    Steps(StepArgs),
    /// What was decided, and why
    Decisions(AtArgs),
    /// Branch from any version, with changes: a prompt, a model, an output, the input, a definition
    #[command(after_help = FORK_HELP)]
    Fork(ForkArgs),
    /// Reopen a workflow that failed or was parked, and go on from the step that failed
    #[command(
        after_help = "With --from, --edit, --rerun or --definition it goes back to before what that touches; what lies \
behind is asked for again, and takes its recorded outcome where its request is unchanged. EDIT and POLICY: see \
`foldback fork --help`."
    )]
    Retry(RetryArgs),
    /// Take back what a workflow did, newest first
    #[command(
        after_help = "Of a workflow that has ended, however it ended. What was done after --down-to and not after \
--from is taken back. Where an undo has failed, saying this again goes on with it."
    )]
    Compensate(CompensateArgs),
    /// End a workflow: what is under way is told or waited for, then what was done is taken back
    Cancel(CancelArgs),
    /// Let nothing more begin; what is under way ends
    Pause(CancelArgs),
    /// Let a paused workflow go on, with a budget that is raised
    Unpause(UnpauseArgs),
    /// Answer a workflow that listens, or tell it something before it does
    Signal(SignalArgs),
    /// Settle an unknown outcome, say that an undo was done by hand, or what becomes of a write that is held
    Resolve(ResolveArgs),
    /// Check hashes, gaps, payloads and snapshots
    Audit(AuditArgs),
    /// Compare two workflows: where they part first, and what differs at each step and decision
    #[command(
        after_help = "Exit code 1 when they differ. Time, tokens and cost are told, and make no difference."
    )]
    Diff(DiffArgs),
    /// Whether a definition makes of the recorded stimuli what the log says; performs and writes nothing
    Verify(VerifyArgs),
    /// Write a workflow with its definitions, values and, of a fork, its ancestors to stdout, as JSON lines
    Export(ExportArgs),
    /// Read a workflow that `export` wrote
    #[command(
        after_help = "Two stores that hold the same workflow also hold the same idempotency keys: resume it in one of them only."
    )]
    Import(ImportArgs),
    /// Views over all workflows: what there is, their rows, your own
    Projection(ProjectionArgs),
    /// Take away whole ended workflows, by name or by age; each leaves one signed-off row
    Prune(PruneArgs),
    /// Take a value out of the store and leave a tombstone; the chain still verifies
    Erase(EraseArgs),
    /// Measure this machine on a file of its own
    Bench(BenchArgs),
    /// Print a script that completes commands and flags in a shell
    #[command(after_help = COMPLETIONS_HELP)]
    Completions(CompletionsArgs),
    /// Print the manual page, or write one for each command into a directory
    #[command(
        after_help = "Read it with `foldback man | man -l -`; `foldback man ~/.local/share/man/man1` installs all."
    )]
    Man(ManArgs),
}

/// `init`
#[derive(Debug, Args)]
pub struct InitArgs {
    /// Where to write; the current directory unless told otherwise
    pub dir: Option<PathBuf>,
}

/// `check`
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The definition: YAML or JSON
    pub file: PathBuf,
    /// Exit 1 where there is a warning
    #[arg(long)]
    pub strict: bool,
}

/// `run`
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The definition: YAML or JSON
    pub file: PathBuf,
    /// Its input: JSON, @FILE, or - for standard input
    #[arg(long, value_name = "JSON|@FILE|-", allow_negative_numbers = true)]
    pub input: Option<String>,
    /// The workflow's id. The same id with the same input attaches to it
    #[arg(long, value_name = "ID")]
    pub id: Option<String>,
}

/// `resume`
#[derive(Debug, Args)]
pub struct ResumeArgs {
    /// Which workflows; all that are unfinished when none is named
    #[arg(value_name = "ID")]
    pub ids: Vec<String>,
}

/// `compensate`
#[derive(Debug, Args)]
pub struct CompensateArgs {
    /// The workflow
    #[arg(value_name = "ID")]
    pub id: String,
    /// The newest that is taken back was done at or before this version; the end unless told otherwise
    #[arg(long, value_name = "VERSION", allow_hyphen_values = true)]
    pub from: Option<String>,
    /// What was done up to this version stays; nothing does unless told otherwise. A KEY is the version before
    /// it: it is undone too; KEY:end keeps it
    #[arg(long, value_name = "VERSION", allow_hyphen_values = true)]
    pub down_to: Option<String>,
    /// Only say what would be taken back, in its order
    #[arg(long)]
    pub dry_run: bool,
    /// Why, for the log
    #[arg(long, value_name = "REASON", default_value = "")]
    pub reason: String,
}

/// `unpause`
#[derive(Debug, Args)]
pub struct UnpauseArgs {
    /// The workflow
    #[arg(value_name = "ID")]
    pub id: String,
    /// How much there is from now on, in all: tokens=N, micro_usd=N, wall_ms=N or steps=N; of a scope: KEY:tokens=N
    #[arg(long = "budget", value_name = "[KEY:]MEASURE=N")]
    pub budgets: Vec<String>,
    /// Why, for the log
    #[arg(long, value_name = "REASON", default_value = "")]
    pub reason: String,
}

/// `signal`
#[derive(Debug, Args)]
pub struct SignalArgs {
    /// The workflow
    #[arg(value_name = "ID")]
    pub id: String,
    /// What it listens for: the type of the event
    #[arg(value_name = "NAME")]
    pub name: String,
    /// The data: JSON, @FILE, or - for standard input; null unless told otherwise
    #[arg(value_name = "JSON", allow_negative_numbers = true)]
    pub data: Option<String>,
    /// The sender's id for it, such as a webhook's: the workflow hears it once, however often it is sent
    #[arg(long, value_name = "ID")]
    pub event_id: Option<String>,
    /// Fail the wait, so that a `catch` may act: a text, or {"type", "status", "title", "detail"}
    #[arg(long, value_name = "JSON|@FILE|-", conflicts_with = "data")]
    pub error: Option<String>,
}

/// `cancel` and `pause`
#[derive(Debug, Args)]
pub struct CancelArgs {
    /// The workflow
    #[arg(value_name = "ID")]
    pub id: String,
    /// Why, for the log
    #[arg(long, value_name = "REASON", default_value = "")]
    pub reason: String,
}

/// `list`
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only with this status
    #[arg(long, value_name = "STATUS")]
    pub status: Option<String>,
    /// Only of this definition: its name (`order`), with its version or without, or the beginning of its hash
    #[arg(long, value_name = "NAME")]
    pub definition: Option<String>,
    /// At most this many; 0 for all
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub limit: usize,
    /// As a tree: forks below what they branched from, each with what was changed in it
    #[arg(long)]
    pub tree: bool,
}

/// `state`, `decisions`
#[derive(Debug, Args)]
pub struct AtArgs {
    /// The workflow
    #[arg(value_name = "ID")]
    pub id: String,
    /// As it was at this version
    #[arg(long, value_name = "VERSION", allow_negative_numbers = true)]
    pub at: Option<String>,
    /// Print everything whole, however long
    #[arg(long)]
    pub full: bool,
}

/// `show`, `steps`
#[derive(Debug, Args)]
pub struct StepArgs {
    /// The workflow
    #[arg(value_name = "ID")]
    pub id: String,
    /// Only this step, task or decision, whole: what it got, asked, was answered and gave
    #[arg(value_name = "KEY")]
    pub key: Option<String>,
    /// As it was at this version
    #[arg(long, value_name = "VERSION", allow_negative_numbers = true)]
    pub at: Option<String>,
    /// Print everything whole, however long
    #[arg(long)]
    pub full: bool,
}

/// `events`
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// The workflow
    #[arg(value_name = "ID")]
    pub id: String,
    /// Up to and with this version
    #[arg(long, value_name = "VERSION", allow_negative_numbers = true, conflicts_with = "follow")]
    pub to: Option<String>,
    /// Go on printing until the workflow ends
    #[arg(long)]
    pub follow: bool,
    /// Print everything whole, however long
    #[arg(long)]
    pub full: bool,
}

/// `replay`
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// The workflow
    #[arg(value_name = "ID")]
    pub id: String,
    /// Up to and with this version
    #[arg(long, value_name = "VERSION", allow_negative_numbers = true)]
    pub to: Option<String>,
    /// Print everything whole, however long
    #[arg(long)]
    pub full: bool,
}

/// What `fork --help` ends with.
const FORK_HELP: &str = "EDIT is TARGET:PATH=VALUE. TARGET is a step's key (`[*]` for any index), `*` (every model \
call) or `input`; PATH is a member of its request, or `output` of what it gave. VALUE is JSON, or @FILE: a text, or JSON \
where its name ends in .json.\n\n  --edit 'draft:template=@new.md'\n  --edit '*:temperature=0'\n  --edit \
'critique:output.score=0.4'\n  --edit 'input:topic=\"lamps\"'\n\nAn edit cuts: the past is shared up to the first \
fact that it touches. Behind the cut a step takes its recorded outcome where its request is unchanged.\n\nPOLICY says \
what becomes of a write whose request is another: reuse (default) and ask wait for `foldback resolve`, stub takes it \
for done, deny lets it fail, live performs it; ask also asks about unchanged ones. By key: reuse,publish=live.";

/// What changes in a fork, or in a retry that goes back.
#[derive(Debug, Args)]
pub struct ChangeArgs {
    /// What is changed: TARGET:PATH=JSON|@FILE
    #[arg(long = "edit", value_name = "EDIT")]
    pub edits: Vec<String>,
    /// Another definition from there on
    #[arg(long, value_name = "FILE")]
    pub definition: Option<PathBuf>,
    /// What becomes of writes whose outcome cannot be taken
    #[arg(long, value_name = "POLICY", default_value = "reuse")]
    pub writes: String,
    /// A step that runs again though nothing about it changed; * for all
    #[arg(long = "rerun", value_name = "KEY|*")]
    pub rerun: Vec<String>,
    /// Print the plan, and touch nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `fork`
#[derive(Debug, Args)]
pub struct ForkArgs {
    /// The workflow
    #[arg(value_name = "ID")]
    pub id: String,
    /// The version up to which the past is shared; the end unless told otherwise
    #[arg(long, value_name = "VERSION", allow_negative_numbers = true)]
    pub at: Option<String>,
    #[command(flatten)]
    pub change: ChangeArgs,
    /// Make the fork, and leave it to `resume`
    #[arg(long)]
    pub detach: bool,
}

/// `retry`
#[derive(Debug, Args)]
pub struct RetryArgs {
    /// The workflow
    #[arg(value_name = "ID")]
    pub id: String,
    /// Why, for the log
    #[arg(long, value_name = "REASON", default_value = "")]
    pub reason: String,
    /// From before the first ask of this step, or from another VERSION
    #[arg(long, value_name = "KEY", allow_negative_numbers = true)]
    pub from: Option<String>,
    #[command(flatten)]
    pub change: ChangeArgs,
}

/// `resolve`
#[derive(Debug, Args)]
pub struct ResolveArgs {
    /// The workflow
    #[arg(value_name = "ID")]
    pub id: String,
    /// The step
    #[arg(value_name = "KEY")]
    pub key: String,
    /// Whether it happened; or what becomes of a write that is held
    #[arg(value_enum)]
    pub verdict: Verdict,
    /// What it answered, where it landed (null for nothing), or is taken to have answered, where it is stubbed: JSON
    #[arg(value_name = "JSON", allow_negative_numbers = true)]
    pub output: Option<String>,
}

/// What a person says of an unknown outcome, or of a write that is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Verdict {
    /// It happened.
    Landed,
    /// It did not happen; it is done again.
    Didnt,
    /// It is performed.
    Live,
    /// It is taken for done; nothing happens.
    Stub,
    /// It fails; nothing happens.
    Deny,
}

/// `audit`
#[derive(Debug, Args)]
pub struct AuditArgs {
    /// Which workflows; all when none is named
    #[arg(value_name = "ID")]
    pub ids: Vec<String>,
}

/// `diff`
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// The one; behind an @ the version up to which it is compared
    #[arg(value_name = "A[@VERSION]")]
    pub a: String,
    /// The other
    #[arg(value_name = "B[@VERSION]")]
    pub b: String,
    /// Print everything whole, however long
    #[arg(long)]
    pub full: bool,
}

/// `verify`
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Workflows, or files that `export` wrote. When none is named: all; with --definition all that
    /// are unfinished under its name
    #[arg(value_name = "ID|FILE")]
    pub targets: Vec<String>,
    /// Verify against this definition instead of the one that the log names: the check before a deploy
    #[arg(long, value_name = "FILE")]
    pub definition: Option<PathBuf>,
}

/// `export`
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// The workflow
    #[arg(value_name = "ID")]
    pub id: String,
}

/// `import`
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// The file; - for standard input
    #[arg(value_name = "FILE|-")]
    pub file: PathBuf,
}

/// `projection`
#[derive(Debug, Args)]
pub struct ProjectionArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: ProjectionCommand,
}

/// `projection …`
#[derive(Debug, Subcommand)]
pub enum ProjectionCommand {
    /// Which there are, how far each has read, and why one stands still
    List,
    /// Print the rows of one
    Show {
        /// Its name
        name: String,
    },
    /// Make the rows of one anew, beside the ones that are there, and put them in their place
    Rebuild {
        /// Its name
        name: String,
    },
    /// Add one of your own, or another version of it
    Add {
        /// Its file: YAML with name, events, key and reduce
        file: PathBuf,
    },
}

/// `prune`
#[derive(Debug, Args)]
pub struct PruneArgs {
    /// These workflows; without any, all that ended before --ended-before
    #[arg(value_name = "ID")]
    pub ids: Vec<String>,
    /// Only workflows whose last event is older: 2026-01-31, or 2026-01-31T09:15:00Z
    #[arg(long, value_name = "TIME")]
    pub ended_before: Option<String>,
    /// Say what would be pruned, and touch nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `erase`
#[derive(Debug, Args)]
pub struct EraseArgs {
    /// The workflow
    #[arg(value_name = "ID")]
    pub id: String,
    /// Whose value: KEY, KEY:input, KEY:output or KEY:request; :input and :output are the workflow's own
    #[arg(value_name = "KEY[:SIDE]")]
    pub target: String,
    /// Why, for the tombstone
    #[arg(long, value_name = "REASON", default_value = "")]
    pub reason: String,
    /// Say what would be erased and what would remain, and touch nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// The end of `completions --help`.
const COMPLETIONS_HELP: &str = "\
bash  foldback completions bash > ~/.local/share/bash-completion/completions/foldback
zsh   foldback completions zsh > \"${fpath[1]}/_foldback\"
fish  foldback completions fish > ~/.config/fish/completions/foldback.fish";

/// `completions`
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}

/// `man`
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Where to write a page for each command
    #[arg(value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// `bench`
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Which rows; all unless some are named
    #[arg(value_name = "ROW")]
    pub rows: Vec<String>,
}
