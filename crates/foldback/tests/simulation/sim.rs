//! The simulator: one thread that decides what happens next. It drives the real engine by its rounds,
//! and everything around the engine (time, the disk, the world, callers, other processes) by the dice.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use foldback::core::{Status, StepStatus, WorkflowState};
use foldback::engine::engine::{Message, ReplyTo, from_inbox};
use foldback::engine::{Command, state_at};
use foldback::store::Filter;

use crate::callers::Callers;
use crate::dice::Dice;
use crate::disk::{BAD_READ, Disk};
use crate::process::{Birth, Process};
use crate::story::Story;
use crate::world::World;

/// When simulated time begins, in microseconds since 1970.
const BEGINNING: i64 = 1_700_000_000_000_000;

/// Rounds of the healing after which a workflow that does not end is a failure.
const PATIENCE: u32 = 20_000;

pub struct Sim<'a> {
    pub story: &'a Story,
    pub disk: Arc<Disk>,
    pub world: World,
    pub callers: Callers,
    dice: Dice,
    clock: Arc<AtomicI64>,
    /// The owner last; those before it lost the shard and do not know.
    processes: Vec<Process>,
    serial: u64,
    is_healing: bool,
    trace: bool,
    /// How often each kind of move was made, for people who look.
    pub faults: u64,
}

type Checked = Result<(), String>;

impl<'a> Sim<'a> {
    pub fn new(story: &'a Story, seed: u64, disk: Arc<Disk>, trace: bool) -> Sim<'a> {
        let mut dice = Dice::new(seed ^ 0x0005_EED0_F570_A170);
        for (id, known) in story.undoing.iter().filter(|_| trace) {
            eprintln!("{id} follows {}", known.source);
        }
        Sim {
            story,
            disk,
            world: World::new(dice.fork(), story.is_volatile),
            callers: Callers::new(
                story,
                dice.fork(),
                Dice::new(seed ^ 0x00F0_4CED),
                Dice::new(seed ^ 0xE0D1),
            ),
            dice,
            clock: Arc::new(AtomicI64::new(BEGINNING)),
            processes: Vec::new(),
            serial: 0,
            is_healing: false,
            trace,
            faults: 0,
        }
    }

    fn say(&self, what: impl FnOnce() -> String) {
        if self.trace {
            eprintln!("{:>12} {}", self.clock.load(Ordering::Relaxed) - BEGINNING, what());
        }
    }

    /// The rough part: whatever happens, nothing may be wrong.
    pub fn suffer(&mut self) -> Checked {
        for _ in 0..self.story.moves {
            self.make_sure_of_an_owner()?;
            self.move_once()?;
            self.is_well()?;
        }
        Ok(())
    }

    /// The faults are off: everything comes to its end.
    pub fn heal(&mut self) -> Checked {
        self.is_healing = true;
        while self.processes.len() > 1 {
            self.die(0, "for the healing");
        }
        for _ in 0..PATIENCE {
            self.make_sure_of_an_owner()?;
            self.is_well()?;
            self.round(0)?;
            let Some(owner) = self.processes.first() else { continue };
            owner.shelf.bad_reads.store(0, Ordering::Relaxed);
            let alarm = owner.engine.next_alarm();
            let waiting = owner.shelf.waiting();
            let flights = self.world.awaited_by(owner.serial);
            if waiting != (0, 0) {
                owner.shelf.write(usize::MAX);
                owner.shelf.tell(usize::MAX);
            } else if let Some(flight) = flights.first() {
                self.world.answer(*flight);
            } else if !self.callers.are_quiet() {
                self.callers.speak(&mut self.processes[0], &self.disk, true)?;
                self.poll_inbox(0);
            } else if self.callers.resolve(&self.disk, &mut self.world)? {
                self.say(|| "a person resolves".into());
            } else if self.callers.settle(&self.disk, &mut self.world)? {
                self.say(|| "a person says what becomes of a write".into());
            } else if self.callers.put_right(&self.disk)? {
                self.say(|| "a person puts right".into());
            } else if self.callers.speak_up(&self.disk)? {
                self.say(|| "somebody answers".into());
            } else if self.branch()? {
                // What is wanted is said in the next round.
            } else if self.callers.reopen(&self.disk)? {
                self.say(|| "a person reopens what failed".into());
            } else if self.is_over()? {
                return Ok(());
            } else if let Some(due) = alarm {
                self.clock.fetch_max(due, Ordering::Relaxed);
            } else if !self.resume_all(0)? {
                return Err(format!("nothing moves any more: {}", self.standing()));
            }
        }
        Err(format!("comes to no rest: {}", self.standing()))
    }

    fn standing(&self) -> String {
        let rows = self.disk.store.workflows(&Filter::default()).unwrap_or_default();
        rows.iter().map(|row| format!("{} {} at {}, ", row.workflow_id, row.status, row.version)).collect()
    }

    fn is_over(&self) -> Result<bool, String> {
        let filter = Filter { only_unfinished: true, ..Filter::default() };
        let unfinished = self.disk.store.workflows(&filter).map_err(|e| e.to_string())?;
        for row in unfinished {
            if !self.callers.is_neglected(&row.workflow_id) {
                return Ok(false);
            }
            let state = state_at(&*self.disk.store, &row.workflow_id, None).map_err(|e| e.to_string())?;
            if !state.is_some_and(|state| waits_for_a_person(&state)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Somebody forks a workflow, or lets one that failed go back.
    fn branch(&mut self) -> Result<bool, String> {
        let said = self.callers.branch(&self.disk, &self.story.programs)?;
        if let Some(said) = &said {
            self.say(|| said.clone());
        }
        Ok(said.is_some())
    }

    /// Nothing went wrong so far.
    fn is_well(&mut self) -> Checked {
        let mut wrong = std::mem::take(&mut self.world.wrong);
        wrong.append(&mut self.disk.durable().wrong);
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
    }

    fn make_sure_of_an_owner(&mut self) -> Checked {
        self.find_owner()?;
        self.world.is_one_alive = self.processes.len() == 1;
        Ok(())
    }

    fn find_owner(&mut self) -> Checked {
        if self.processes.last().is_some_and(Process::is_owner) {
            return Ok(());
        }
        self.serial += 1;
        let birth = Birth {
            serial: self.serial,
            clock: self.clock.clone(),
            offset: if self.is_healing { 0 } else { self.time_of_day() },
            seed: self.dice.roll(),
            is_observed: self.story.is_observed,
            programs: self.story.programs.clone(),
        };
        let Some(process) = Process::start(&self.disk, birth)? else {
            return Err("the shard is taken though its owner is dead".into());
        };
        self.say(|| format!("process {} takes the shard", process.serial));
        self.processes.push(process);
        self.resume_all(self.processes.len() - 1).map(drop)
    }

    /// How far a machine's time of day is ahead: by seconds, or as somebody set it.
    fn time_of_day(&mut self) -> i64 {
        let seconds = self.dice.below(4_000_000) as i64 - 2_000_000;
        let jumps = [3_600, 86_400, 31_536_000].map(|seconds| seconds * 1_000_000);
        match self.dice.below(8) {
            way @ 0..=5 => seconds + jumps[way / 2] * if way % 2 == 0 { 1 } else { -1 },
            _ => seconds,
        }
    }

    /// Tells a process to go on with what is unfinished, as `serve` does. Says whether there is any.
    fn resume_all(&mut self, at: usize) -> Result<bool, String> {
        let filter = Filter { only_unfinished: true, ..Filter::default() };
        let rows = self.disk.store.workflows(&filter).map_err(|e| e.to_string())?;
        let mut any = false;
        for row in rows {
            if !self.is_healing && self.dice.one_in(5) {
                continue;
            }
            any = true;
            let command = Command::Resume { workflow_id: row.workflow_id };
            let (actor, from) = (Arc::from("simulation"), ReplyTo::Nobody);
            let _gone = self.processes[at].to.send(Message::Command { command, actor, from, watch: None });
        }
        Ok(any)
    }

    fn move_once(&mut self) -> Checked {
        if self.dice.one_in(self.story.fault_every) {
            self.faults += 1;
            return self.fault();
        }
        // Those who lost the shard go on as they like.
        let at = if self.dice.one_in(3) {
            self.dice.below(self.processes.len())
        } else {
            self.processes.len() - 1
        };
        let process = &self.processes[at];
        let serial = process.serial;
        match self.dice.below(20) {
            0..=5 => return self.round(at),
            6..=8 => {
                let most = self.dice.within(1, 4) as usize;
                let before = self.disk.durable().position;
                let (queued, _) = process.shelf.waiting();
                let stale = process.shelf.write(most);
                let all_refused = process.is_doomed || stale == most.min(queued);
                if !process.is_owner() && (!all_refused || self.disk.durable().position != before) {
                    return Err(format!("process {serial} lost the shard and still wrote"));
                }
            }
            9..=11 => process.shelf.tell(self.dice.within(1, 4) as usize),
            12..=14 if !self.world.flights.is_empty() => {
                let i = self.dice.below(self.world.flights.len());
                self.say(|| flight(&self.world, i));
                self.world.disturb(i);
            }
            15 => drop(self.clock.fetch_add(self.dice.within(1, 400_000) as i64, Ordering::Relaxed)),
            16 => {
                if let Some(due) = process.engine.next_alarm() {
                    self.clock.fetch_max(due, Ordering::Relaxed);
                }
            }
            17 | 18 if process.is_owner() => {
                self.callers.speak(&mut self.processes[at], &self.disk, false)?;
                self.callers.may_branch().then(|| self.branch()).transpose()?;
                if let Some(said) = self.callers.meddle(&self.disk)? {
                    self.say(|| said);
                }
                if self.dice.one_in(6) && self.processes.len() == 1 {
                    self.callers.settle(&self.disk, &mut self.world)?;
                    self.callers.resolve(&self.disk, &mut self.world)?;
                    if self.dice.one_in(3) {
                        self.callers.reopen(&self.disk)?;
                    }
                }
            }
            _ if process.is_owner() => self.poll_inbox(at),
            _ => {}
        }
        Ok(())
    }

    fn fault(&mut self) -> Checked {
        let at = self.dice.below(self.processes.len());
        match self.dice.below(11) {
            0..=2 => self.die(at, "killed"),
            3 | 4 => {
                let owner = self.processes.len() - 1;
                self.say(|| format!("process {} loses the lock", self.processes[owner].serial));
                self.processes[owner].guard = None;
            }
            5 | 6 => {
                self.say(|| format!("a commit of process {} is refused", self.processes[at].serial));
                self.processes[at].shelf.refuse();
            }
            7 => {
                let landed = self.dice.one_in(2);
                self.say(|| format!("the disk fails under process {}", self.processes[at].serial));
                self.processes[at].shelf.break_down(landed);
                self.processes[at].is_doomed = true;
            }
            8 => {
                let reads = self.dice.within(1, 3) as u32;
                let shelf = &self.processes[at].shelf;
                shelf.bad_reads.store(reads, Ordering::Relaxed);
                shelf.good_reads.store(self.callers.good_reads(), Ordering::Relaxed);
            }
            9 if self.dice.one_in(2) => {
                // Much time passes for everything: nothing may depend on how long it took.
                self.clock.fetch_add(self.dice.within(1, 600) as i64 * 1_000_000, Ordering::Relaxed);
            }
            9 => {
                let offset = self.time_of_day();
                self.say(|| format!("the time of day of process {} is set", self.processes[at].serial));
                self.processes[at].machine.offset.store(offset, Ordering::Relaxed);
            }
            _ => {
                self.say(|| format!("process {} winds down", self.processes[at].serial));
                self.processes[at].is_winding_down = true;
                let _gone = self.processes[at].to.send(Message::WindDown);
            }
        }
        Ok(())
    }

    /// A process ends; what it had not written is gone.
    fn die(&mut self, at: usize, how: &str) {
        let process = self.processes.remove(at);
        self.say(|| format!("process {} ends: {how}", process.serial));
        self.world.orphan(process.serial);
        self.callers.lost(process.serial);
    }

    /// One round of a process's engine, and what came of it.
    fn round(&mut self, at: usize) -> Checked {
        let process = &mut self.processes[at];
        let ended = process.engine.round();
        let (serial, is_owner) = (process.serial, process.is_owner());
        if is_owner && self.dice.one_in(16) {
            is_its_fold(process, &self.disk)?;
        }
        for (attempt, to) in process.machine.begun() {
            let call = &attempt.call;
            if self.trace {
                eprintln!("{serial:>12} begins {} {} attempt {}", call.workflow_id, call.key, call.attempt);
            }
            let is_told = process.shelf.has_told_of(&call.workflow_id);
            self.world.begin(serial, is_owner, attempt, to, &self.disk.durable(), is_told);
        }
        self.callers.listen(process, &self.disk)?;
        match ended {
            None if process.shelf.told_its_end() => {
                return Err(format!("process {serial} goes on though it cannot write any more"));
            }
            None => {}
            Some(Ok(())) if process.is_winding_down => self.die(at, "wound down"),
            Some(Err(_)) if process.is_doomed || !is_owner => self.die(at, "as it should"),
            // A past that cannot be read ends it, as a commit that fails does: of a fork, or to be taken back.
            Some(Err(error))
                if error.message == BAD_READ
                    && (self.callers.are_branching() || !self.story.undoing.is_empty()) =>
            {
                self.die(at, "over a past that it could not read");
            }
            Some(other) => return Err(format!("process {serial} ended without a cause: {other:?}")),
        }
        Ok(())
    }

    fn poll_inbox(&mut self, at: usize) {
        let rows = self.disk.store.commands(0).unwrap_or_default();
        let to = &self.processes[at].to;
        from_inbox(rows, to, &mut |row, reason| panic!("a command that cannot be read: {row:?} {reason}"));
    }
}

/// What a process keeps in memory is the fold of what is on disk, wherever the disk has caught up.
fn is_its_fold(process: &Process, disk: &Disk) -> Checked {
    let heads = disk.durable().heads.clone();
    for (id, (version, _)) in &heads {
        let (Some(kept), version) = (process.engine.state(id), *version) else { continue };
        if kept.version == 0 || kept.version != version {
            continue;
        }
        let folded = state_at(&*disk.store, id, None).map_err(|e| format!("{id}: {e}"))?;
        if folded.as_ref() != Some(kept) {
            return Err(format!("{id} at {version}: what is kept is not what the log folds to"));
        }
        let row = disk.store.workflow(id).map_err(|e| e.to_string())?.ok_or("no row")?;
        let (status, wake_at) = (kept.status().as_str(), kept.wake_at());
        if row.version == version && (row.status.as_str(), row.wake_at) != (status, wake_at) {
            return Err(format!(
                "{id} at {version}: the row says {row:?}, it is {status}, to wake {wake_at:?}"
            ));
        }
    }
    Ok(())
}

/// Whether nothing moves a workflow but somebody who says what becomes of a write.
pub fn waits_for_a_person(state: &WorkflowState) -> bool {
    let is_held = |key| state.step(key).is_some_and(|step| step.status == StepStatus::Held);
    state.status() == Status::Waiting && state.owes().is_empty() && state.open.iter().any(is_held)
}

fn flight(world: &World, i: usize) -> String {
    let call = &world.flights[i].attempt.call;
    format!("something becomes of {} {} attempt {}", call.workflow_id, call.key, call.attempt)
}
