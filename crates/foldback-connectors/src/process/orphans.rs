//! Orphans: processes of an attempt that outlived their engine, found and ended.
//!
//! Every process of an attempt carries the attempt's name in its environment ([`MARK`]), and whatever it
//! starts inherits it, also in a session of its own. So nothing has to be written down that a kill could
//! lose: who takes the store over looks through `/proc`. What carries the mark is ended, with all that
//! descends from it. This never ends the process it runs in, nor one that started it.
//!
//! A step may run an engine itself. What that one starts carries the names of both attempts: either engine's
//! successor finds it. It is looked for by one name alone, that of an attempt of the own log.
//!
//! A process runs as long as one of its threads does, also where the first one has ended.
//!
//! Not found: what cleared its environment and whose parents are gone, what this user may not look
//! into, and what runs on another host. The words of the answer say what was looked for.

use std::ffi::OsString;
use std::io;

use foldback_engine::kind::{Looking, Remains};

/// The variable that holds the names of attempts, the outermost first.
pub(super) const MARK: &str = "FOLDBACK_ATTEMPT";

/// Stands between two names. A name is made of hexadecimal digits.
const BETWEEN: &str = ":";

/// What a child of an attempt carries: the names that this process carries itself, and the attempt's.
pub(super) fn mark(attempt_id: &str) -> OsString {
    let mut mark = std::env::var_os(MARK).unwrap_or_default();
    if !mark.is_empty() {
        mark.push(BETWEEN);
    }
    mark.push(attempt_id);
    mark
}

/// Looks for what is left of an attempt, and ends it.
pub(super) fn end(attempt_id: String) -> Looking {
    Box::pin(async move {
        let looked = tokio::task::spawn_blocking(move || found::end(&attempt_id)).await;
        looked
            .unwrap_or_else(|stopped| Ok(not_looked(&io::Error::other(stopped))))
            .unwrap_or_else(|e| not_looked(&e))
    })
}

fn not_looked(why: &io::Error) -> Remains {
    Remains::Nothing { found: format!("whether its process still runs could not be seen: {why}") }
}

#[cfg(not(target_os = "linux"))]
mod found {
    use std::io;

    use foldback_engine::kind::Remains;

    pub(super) fn end(_attempt_id: &str) -> io::Result<Remains> {
        Err(io::Error::other("this system has no /proc; look with `ps` before you go on"))
    }
}

#[cfg(target_os = "linux")]
mod found {
    use std::collections::{BTreeMap, BTreeSet};
    use std::io::{self, Read};
    use std::path::Path;
    use std::sync::{Arc, Mutex, PoisonError};
    use std::time::{Duration, Instant};

    use foldback_engine::kind::Remains;
    use rustix::process::{Pid, PidfdFlags, Signal, getpid, kill_process, pidfd_open, pidfd_send_signal};

    use super::{BETWEEN, MARK};

    /// How long a process that was told to end may take. One that waits for a device takes longer, and is
    /// said to run.
    const PATIENCE: Duration = Duration::from_secs(5);

    /// Between two looks at processes that are ending.
    const LOOK_AGAIN: Duration = Duration::from_millis(10);

    /// Bytes of an environment that are looked at. Linux takes a quarter of the stack at most.
    const ENVIRONMENT_MAX_BYTES: u64 = 16 * 1024 * 1024;

    /// Ends what carries this attempt's mark, and says what there was.
    pub(super) fn end(attempt_id: &str) -> io::Result<Remains> {
        let deadline = Instant::now() + PATIENCE;
        let mut ended: BTreeMap<i32, u64> = BTreeMap::new();
        loop {
            let census = Census::since(Instant::now())?;
            let of_it = census.of(attempt_id);
            if of_it.is_empty() {
                return Ok(gone(&ended, census.shut));
            }
            let spared = census.line_of(getpid().as_raw_nonzero().get());
            let mut refused = Vec::new();
            for process in &of_it {
                if spared.contains(&process.pid) {
                    refused.push((process.pid, "this command was started by it".to_owned()));
                    continue;
                }
                match process.end() {
                    Ok(()) => drop(ended.insert(process.pid, process.began)),
                    Err(why) => refused.push((process.pid, format!("it cannot be ended: {why}"))),
                }
            }
            if refused.len() == of_it.len() || Instant::now() >= deadline {
                let late = || (of_it[0].pid, "it does not end".to_owned());
                let (pid, why) = refused.into_iter().next().unwrap_or_else(late);
                return Ok(Remains::Running { found: format!("still runs (pid {pid}): {why}") });
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    fn gone(ended: &BTreeMap<i32, u64>, shut: usize) -> Remains {
        let Some((eldest, _)) = ended.iter().min_by_key(|(pid, began)| (**began, **pid)) else {
            let shut = match shut {
                0 => String::new(),
                1 => " (1 process of another user could not be looked into)".to_owned(),
                n => format!(" ({n} processes of other users could not be looked into)"),
            };
            return Remains::Nothing { found: format!("no process with its {MARK} runs on this host{shut}") };
        };
        let further = match ended.len() - 1 {
            0 => String::new(),
            n => format!(", and {n} that it had started"),
        };
        Remains::Ended { found: format!("its process was ended (pid {eldest}{further})") }
    }

    /// A process as it was seen.
    struct Process {
        pid: i32,
        parent: i32,
        /// When it began, in the kernel's ticks: a number that is given out anew has another.
        began: u64,
        /// The attempts that it belongs to.
        marks: Option<String>,
    }

    impl Process {
        /// One that has ended, or cannot be seen, is `None`. `shut` counts those that may not be looked
        /// into.
        fn seen(pid: i32, shut: &mut usize) -> Option<Process> {
            let Stat { parent, began, is_headless } = stat(pid)?;
            let environment = if is_headless { environment_of_threads(pid) } else { environment(pid) };
            let marks = match environment {
                Ok(environment) => marks_in(&environment),
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    *shut += 1;
                    None
                }
                // It has ended meanwhile.
                Err(_) => return None,
            };
            Some(Process { pid, parent, began, marks })
        }

        /// Ends it, and never another one that was given its number meanwhile. One that has ended is
        /// ended.
        fn end(&self) -> io::Result<()> {
            let Some(pid) = Pid::from_raw(self.pid) else { return Ok(()) };
            let sent = match pidfd_open(pid, PidfdFlags::empty()) {
                Ok(file) if stat(self.pid).is_some_and(|seen| seen.began == self.began) => {
                    pidfd_send_signal(file, Signal::KILL)
                }
                Ok(_) | Err(rustix::io::Errno::SRCH) => return Ok(()),
                // An older kernel knows processes by their numbers alone.
                Err(_) => kill_process(pid, Signal::KILL),
            };
            match sent {
                Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
                Err(refused) => Err(refused.into()),
            }
        }
    }

    /// What the system says of a process that runs.
    struct Stat {
        parent: i32,
        began: u64,
        /// Whether its first thread has ended and others run.
        is_headless: bool,
    }

    /// `None` where the process has ended. A zombie has, unless it has further threads: then only the first
    /// one has.
    fn stat(pid: i32) -> Option<Stat> {
        let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may hold anything; what follows the last one are numbers.
        let rest =
            String::from_utf8_lossy(&stat[stat.iter().rposition(|byte| *byte == b')')? + 1..]).into_owned();
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let threads: u64 = fields.get(17)?.parse().ok()?;
        let is_headless = match *fields.first()? {
            "Z" if threads > 1 => true,
            "Z" | "X" | "x" => return None,
            _ => false,
        };
        Some(Stat { parent: fields.get(1)?.parse().ok()?, began: fields.get(19)?.parse().ok()?, is_headless })
    }

    fn environment(pid: i32) -> io::Result<Vec<u8>> {
        read_environment(Path::new(&format!("/proc/{pid}/environ")))
    }

    /// The environment of a process whose first thread has ended: that one has none any more.
    fn environment_of_threads(pid: i32) -> io::Result<Vec<u8>> {
        for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
            match read_environment(&thread?.path().join("environ")) {
                Ok(environment) if !environment.is_empty() => return Ok(environment),
                Err(refused) if refused.kind() == io::ErrorKind::PermissionDenied => return Err(refused),
                // It has ended meanwhile, or is the first one.
                Ok(_) | Err(_) => {}
            }
        }
        Ok(Vec::new())
    }

    fn read_environment(place: &Path) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        std::fs::File::open(place)?.take(ENVIRONMENT_MAX_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn marks_in(environment: &[u8]) -> Option<String> {
        let mut variables = environment.split(|byte| *byte == 0);
        let marks =
            variables.find_map(|variable| variable.strip_prefix(MARK.as_bytes())?.strip_prefix(b"="))?;
        Some(String::from_utf8_lossy(marks).into_owned())
    }

    /// All processes that run on this host, as they were seen at one look.
    struct Census {
        processes: Vec<Process>,
        /// How many may not be looked into.
        shut: usize,
    }

    impl Census {
        /// A look that began at this moment or later. Many attempts may be looked for at once: they share
        /// one.
        fn since(moment: Instant) -> io::Result<Arc<Census>> {
            static LAST: Mutex<Option<(Instant, Arc<Census>)>> = Mutex::new(None);
            let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((_, census)) = last.as_ref().filter(|(began, _)| *began >= moment) {
                return Ok(census.clone());
            }
            let began = Instant::now();
            let census = Arc::new(Census::take()?);
            *last = Some((began, census.clone()));
            Ok(census)
        }

        fn take() -> io::Result<Census> {
            // Where even our own is not there, this is no /proc that says anything.
            std::fs::File::open("/proc/self/environ")?;
            let mut census = Census { processes: Vec::new(), shut: 0 };
            for entry in std::fs::read_dir(Path::new("/proc"))? {
                let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else {
                    continue;
                };
                census.processes.extend(Process::seen(pid, &mut census.shut));
            }
            Ok(census)
        }

        /// What carries an attempt's mark, and what descends from that; the eldest first.
        fn of(&self, attempt_id: &str) -> Vec<&Process> {
            let mut found: BTreeSet<i32> = BTreeSet::new();
            loop {
                let is_new = |process: &&Process| {
                    let carries = |marks: &str| marks.split(BETWEEN).any(|mark| mark == attempt_id);
                    let is_of_it =
                        process.marks.as_deref().is_some_and(carries) || found.contains(&process.parent);
                    is_of_it && !found.contains(&process.pid)
                };
                let new: Vec<i32> = self.processes.iter().filter(is_new).map(|process| process.pid).collect();
                if new.is_empty() {
                    break;
                }
                found.extend(new);
            }
            let mut of_it: Vec<&Process> =
                self.processes.iter().filter(|process| found.contains(&process.pid)).collect();
            of_it.sort_by_key(|process| (process.began, process.pid));
            of_it
        }

        /// A process and those that it descends from.
        fn line_of(&self, pid: i32) -> BTreeSet<i32> {
            let parents: BTreeMap<i32, i32> =
                self.processes.iter().map(|process| (process.pid, process.parent)).collect();
            let mut line = BTreeSet::from([pid]);
            let mut at = pid;
            while let Some(parent) = parents.get(&at).filter(|parent| line.insert(**parent)) {
                at = *parent;
            }
            line
        }
    }
}
