//! A process of the simulation: the real engine, on a machine whose clock, chance and performers
//! belong to the simulation.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};

use foldback::core::{Event, Key, Micros};
use foldback::engine::engine::{Engine, Message, Surroundings};
use foldback::engine::{
    Attempt, Call, Clocks, Look, Machine, Observer, Performing, Registry, Rest, StepKind,
};
use foldback::programs::Definitions;
use foldback::store::Ownership;

use crate::disk::{Disk, Shelf};
use crate::fronts::KIND;

/// One process: everything in it is lost when it dies.
pub struct Process {
    pub serial: u64,
    pub engine: Engine,
    pub to: Sender<Message>,
    pub shelf: Arc<Shelf>,
    pub machine: Arc<Simulated>,
    /// Those who wait for a workflow's rest.
    pub watching: Vec<Receiver<Rest>>,
    /// What holds the lock. Lost, not dropped with the engine: a process may live on without it.
    pub guard: Option<Box<dyn Send>>,
    pub is_winding_down: bool,
    /// Whether it has met an error that ends it.
    pub is_doomed: bool,
}

/// What a new process is born into.
pub struct Birth {
    pub serial: u64,
    pub clock: Arc<AtomicI64>,
    /// How much the time of day differs on it.
    pub offset: Micros,
    pub seed: u64,
    pub is_observed: bool,
    pub programs: Arc<Definitions>,
}

impl Process {
    /// A process that takes the shard; `None` while another holds it.
    pub fn start(disk: &Arc<Disk>, birth: Birth) -> Result<Option<Process>, String> {
        let owner = format!("process {}", birth.serial);
        let taken = disk.store.acquire(0, &owner).map_err(|e| format!("acquire: {e}"))?;
        let Some(Ownership { epoch, guard }) = taken else { return Ok(None) };
        let shelf = Shelf::new(disk);
        let machine = Arc::new(Simulated {
            clock: birth.clock,
            offset: AtomicI64::new(birth.offset),
            seed: birth.seed,
            started: Mutex::default(),
        });
        let observer = birth.is_observed.then(|| Arc::new(Eyes(disk.clone())) as Arc<dyn Observer>);
        let around = Surroundings {
            store: shelf.clone(),
            kinds: Registry::default().with(KIND, Nobody),
            programs: birth.programs,
            machine: machine.clone(),
            observer,
        };
        let (engine, to) = Engine::new(around, 0, Ownership { epoch, guard: Box::new(()) });
        Ok(Some(Process {
            serial: birth.serial,
            engine,
            to,
            shelf,
            machine,
            watching: Vec::new(),
            guard: Some(guard),
            is_winding_down: false,
            is_doomed: false,
        }))
    }

    pub fn is_owner(&self) -> bool {
        self.guard.is_some()
    }
}

/// The machine: a clock that the simulation moves, a time of day that somebody sets, chance from the seed, and attempts that wait
/// until the simulation lets something become of them.
pub struct Simulated {
    clock: Arc<AtomicI64>,
    /// How far the time of day is ahead of the time that passes.
    pub offset: AtomicI64,
    seed: u64,
    started: Mutex<Vec<(Attempt, Sender<Message>)>>,
}

impl Simulated {
    /// Attempts that began since the last look.
    pub fn begun(&self) -> Vec<(Attempt, Sender<Message>)> {
        std::mem::take(&mut *self.started.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Machine for Simulated {
    fn clocks(&self) -> Clocks {
        let steady = self.clock.load(Ordering::Relaxed);
        Clocks { wall: steady + self.offset.load(Ordering::Relaxed), steady }
    }

    fn seed(&self) -> u64 {
        self.seed
    }

    fn start(&self, attempt: Attempt, report_to: Sender<Message>) {
        self.started.lock().unwrap_or_else(PoisonError::into_inner).push((attempt, report_to));
    }

    fn look(&self, _look: Look, _report_to: Sender<Message>) {
        unreachable!("what the world performs leaves nothing on the machine of its engine")
    }
}

/// The step kind that the world performs.
struct Nobody;

impl StepKind for Nobody {
    fn perform(&self, _call: Call) -> Performing {
        unreachable!("the simulated machine starts no performer")
    }
}

/// Sees what is shown, and whether it is on disk.
struct Eyes(Arc<Disk>);

impl Observer for Eyes {
    fn committed(&self, workflow_id: &str, events: &[Event]) {
        let mut durable = self.0.durable();
        let last = durable.heads.get(workflow_id).map_or(0, |head| head.0);
        if let Some(early) = events.iter().find(|event| event.version > last) {
            durable.wrong.push(format!("{workflow_id}: version {} was shown at {last}", early.version));
        }
    }

    fn progress(&self, _workflow_id: &str, _key: &Key, _text: &str) {}
}
