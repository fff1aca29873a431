//! One child process and its group: started, fed, listened to, and ended.

use std::io;
use std::process::Stdio;
use std::sync::{Mutex, MutexGuard, PoisonError};

use foldback_core::limits;
use foldback_engine::kind::Progress;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child as Process, ChildStdin, Command};

use super::orphans::{MARK, mark};

/// Bytes of stderr that are kept: the newest.
const STDERR_MAX_BYTES: usize = 1024 * 1024;

/// A line on stderr that is longer than this is passed on in pieces of it.
const LINE_MAX_BYTES: usize = 8 * 1024;

/// A child to be run.
pub(super) struct Child<'a> {
    pub(super) program: &'a str,
    pub(super) arguments: Vec<String>,
    /// Variables that are not inherited, beside those of secrets.
    pub(super) keys: &'a [String],
    /// Variables beyond the inherited ones.
    pub(super) environment: Vec<(String, String)>,
    /// The name by which a later engine finds it, and all that it starts.
    pub(super) attempt_id: &'a str,
    /// What it reads; nothing where there is none.
    pub(super) stdin: Option<Vec<u8>>,
}

/// How a child ended.
pub(crate) struct Ended {
    /// Its exit code, unless a signal ended it.
    pub(crate) code: Option<i32>,
    /// The signal that ended it.
    pub(crate) signal: Option<i32>,
    /// All that it wrote.
    pub(crate) stdout: Vec<u8>,
    /// The newest of what it wrote to stderr.
    pub(crate) stderr: Vec<u8>,
}

/// Why a child could not be run to its end.
pub(super) enum Trouble {
    NotFound,
    NotStarted(io::Error),
    /// It wrote more than this many bytes.
    TooLong(usize),
    Broken(io::Error),
}

/// Ends a process group when dropped, so that a step that is given up (its time ran out, its
/// workflow was cancelled) leaves nothing behind.
///
/// The group's number is the leader's process id, which the system does not give out anew while
/// any process of the group lives. Where none does, the signal finds nobody.
struct Group(Option<Pid>);

/// Every group that lives: a process that ends at once drops nothing.
static LIVING: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

fn living() -> MutexGuard<'static, Vec<Pid>> {
    LIVING.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Group {
    /// Starts a child that leads a group. None starts while all are being ended.
    fn start(command: &mut Command) -> io::Result<(Process, Group)> {
        let mut living = living();
        let child = command.spawn()?;
        let leader = child.id().and_then(|id| Pid::from_raw(id as i32));
        living.extend(leader);
        Ok((child, Group(leader)))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // An error says that the group has ended already.
            let _ = kill_process_group(leader, Signal::KILL);
            living().retain(|other| *other != leader);
        }
    }
}

/// Ends every child and all that they started, for a process that is about to end without waiting.
/// While the answer is held no step reports how its child ended, and none starts: what we ended
/// ourselves is not what happened in the world.
#[must_use = "hold it until the process ends"]
pub fn end_all() -> impl Sized {
    let living = living();
    for leader in &*living {
        let _ = kill_process_group(*leader, Signal::KILL);
    }
    living
}

impl Child<'_> {
    /// Runs it to its end. Dropping the future ends it and all that it started.
    pub(super) async fn run(self, progress: &Progress) -> Result<Ended, Trouble> {
        let mut command = Command::new(self.program);
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("FOLDBACK_SECRET_") || self.keys.iter().any(|key| *key == text) {
                command.env_remove(name);
            }
        }
        command
            .args(self.arguments)
            .envs(self.environment)
            // Last: nothing may take it away.
            .env(MARK, mark(self.attempt_id))
            .stdin(if self.stdin.is_some() { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            // The group is ended by `Group`; this has the runtime collect the child itself.
            .kill_on_drop(true);
        let (mut child, group) = Group::start(&mut command).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Trouble::NotFound,
            _ => Trouble::NotStarted(error),
        })?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let waiting = async {
            let status = child.wait().await;
            // What it left in the background keeps the pipes open: it ends with the step.
            drop(group);
            status.map_err(Trouble::Broken)
        };
        let (status, (), stdout, stderr) = tokio::try_join!(
            waiting,
            async {
                feed(stdin, self.stdin).await;
                Ok(())
            },
            take_all(stdout),
            take_newest(stderr, progress),
        )?;
        Ok(Ended {
            code: status.code(),
            signal: std::os::unix::process::ExitStatusExt::signal(&status),
            stdout,
            stderr,
        })
    }
}

/// Writes all of stdin. A child that does not read it is no error.
async fn feed(stdin: Option<ChildStdin>, bytes: Option<Vec<u8>>) {
    if let (Some(mut stdin), Some(bytes)) = (stdin, bytes) {
        let _ = stdin.write_all(&bytes).await;
        let _ = stdin.shutdown().await;
    }
}

/// Reads to the end, or fails at the bound.
async fn take_all(pipe: Option<impl AsyncRead + Unpin>) -> Result<Vec<u8>, Trouble> {
    const MAX: usize = limits::STEP_OUTPUT_MAX_BYTES;
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        pipe.take(MAX as u64 + 1).read_to_end(&mut bytes).await.map_err(Trouble::Broken)?;
    }
    if bytes.len() > MAX { Err(Trouble::TooLong(MAX)) } else { Ok(bytes) }
}

/// Reads to the end, passes lines on as they come, and keeps the newest bytes.
async fn take_newest(pipe: Option<impl AsyncRead + Unpin>, progress: &Progress) -> Result<Vec<u8>, Trouble> {
    let Some(mut pipe) = pipe else {
        return Ok(Vec::new());
    };
    let (mut kept, mut is_cut) = (Vec::new(), false);
    let mut line = Vec::new();
    let mut chunk = [0; LINE_MAX_BYTES];
    loop {
        let n = pipe.read(&mut chunk).await.map_err(Trouble::Broken)?;
        if n == 0 {
            break;
        }
        kept.extend_from_slice(&chunk[..n]);
        if kept.len() > 2 * STDERR_MAX_BYTES {
            kept.drain(..kept.len() - STDERR_MAX_BYTES);
            is_cut = true;
        }
        for part in chunk[..n].split_inclusive(|byte| *byte == b'\n') {
            line.extend_from_slice(part);
            if line.ends_with(b"\n") || line.len() >= LINE_MAX_BYTES {
                progress(&String::from_utf8_lossy(&line));
                line.clear();
            }
        }
    }
    if !line.is_empty() {
        progress(&String::from_utf8_lossy(&line));
    }
    let surplus = kept.len().saturating_sub(STDERR_MAX_BYTES);
    kept.drain(..surplus);
    if is_cut || surplus > 0 {
        // The cut may have gone through a character.
        let rest = kept.iter().take(3).take_while(|byte| **byte & 0xc0 == 0x80).count();
        kept.drain(..rest);
    }
    Ok(kept)
}
