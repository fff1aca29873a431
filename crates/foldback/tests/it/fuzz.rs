//! Five kinds of input from outside, each with its seeds and with thousands of seeded mutations of
//! them: no panic, no hang. `make torture` gives the same five functions to libFuzzer for longer.
//!
//! A file in `fuzz/corpus` that once broke something stays there, so this runs it ever after.

#[path = "../../../../fuzz/src/targets/mod.rs"]
pub(crate) mod targets;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use targets::TARGETS;

/// Mutations of each seed, and of all seeds of a target.
const PER_SEED: usize = 150;
const PER_TARGET: usize = 6_000;

/// No input takes a hundredth of it; past it something runs for ever.
const HANGS: Duration = Duration::from_secs(60);

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % below.max(1) as u64) as usize
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Files of a folder, in the order of their names.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<(String, Vec<u8>)> = std::fs::read_dir(folder)
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
        .map(|entry| entry.expect("it is listed").path())
        .filter(|path| path.is_file())
        .map(|path| (path.display().to_string(), std::fs::read(&path).expect("it is read")))
        .collect();
    files.sort();
    files
}

/// The corpus of a target, and what the repository holds anyway: examples and golden events.
fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let mut seeds = files(&root().join("fuzz/corpus").join(target));
    match target {
        "definition" => {
            seeds.extend(files(&root().join("examples")));
            if let Some(specification) = std::env::var_os("FOLDBACK_OWS") {
                seeds.extend(files(&Path::new(&specification).join("examples")));
            }
        }
        "event" => {
            for (name, payload) in files(&root().join("crates/foldback-core/tests/golden")) {
                let event_type = name.rsplit('/').next().and_then(|name| name.split('.').next());
                let head = format!("{}\n", event_type.unwrap_or_default());
                seeds.push((name, [head.as_bytes(), &payload].concat()));
            }
        }
        _ => {}
    }
    assert!(seeds.len() >= 5, "{target} has seeds");
    seeds
}

/// Words of the target's language, from `fuzz/dict/NAME`: the dictionary that libFuzzer reads too.
fn words(target: &str) -> Vec<Vec<u8>> {
    let path = root().join("fuzz/dict").join(target);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let quoted = |line: &str| Some(unescaped(line.strip_prefix('"')?.strip_suffix('"')?));
    text.lines().filter_map(quoted).collect()
}

/// Escapes of a dictionary: `\"`, `\\` and `\xNN`.
fn unescaped(word: &str) -> Vec<u8> {
    let mut bytes = word.bytes();
    let mut out = Vec::new();
    while let Some(byte) = bytes.next() {
        match (byte, bytes.clone().next()) {
            (b'\\', Some(b'x')) => {
                let digits: Vec<u8> = bytes.by_ref().skip(1).take(2).collect();
                let digits = String::from_utf8(digits).expect("two digits");
                out.push(u8::from_str_radix(&digits, 16).expect("two digits"));
            }
            (b'\\', Some(_)) => out.extend(bytes.next()),
            _ => out.push(byte),
        }
    }
    out
}

/// One to four changes: a bit, a cut, a piece of another seed, a word, a piece once more.
fn mutated(seed: &[u8], seeds: &[(String, Vec<u8>)], words: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
    let mut data = seed.to_vec();
    for _ in 0..=dice.roll(4) {
        let at = dice.roll(data.len() + 1);
        let to = at + dice.roll(data.len() - at + 1).min(64);
        match dice.roll(8) {
            0 | 1 if at < data.len() => data[at] ^= 1 << dice.roll(8),
            2 => drop(data.drain(at..to)),
            3 if dice.roll(4) == 0 => data.truncate(at),
            4 => {
                let other = &seeds[dice.roll(seeds.len())].1;
                let from = dice.roll(other.len() + 1);
                let until = from + dice.roll(other.len() - from + 1).min(256);
                drop(data.splice(at..to, other[from..until].iter().copied()));
            }
            5 => {
                let piece = data[at..to].repeat(1 + dice.roll(40));
                drop(data.splice(at..at, piece));
            }
            6 => drop(data.splice(at..at, "[{(".repeat(dice.roll(90)).bytes())),
            _ => drop(data.splice(at..to, words[dice.roll(words.len())].iter().copied())),
        }
    }
    data
}

fn endures(name: &str) {
    let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).expect("a target");
    let (seeds, words) = (seeds(name), words(name));
    let tried = |data: &[u8], what: &str| {
        let began = Instant::now();
        // A panic is told with its input, so that it can be kept.
        let calm = std::panic::catch_unwind(|| target(data));
        if calm.is_err() {
            let kept = std::env::temp_dir().join(format!("foldback-fuzz-{name}"));
            let _ = std::fs::write(&kept, data);
            panic!("{name}: {what} panics; the input lies in {}", kept.display());
        }
        assert!(began.elapsed() < HANGS, "{name}: {what} took {:?}", began.elapsed());
    };
    for (file, data) in &seeds {
        tried(data, file);
    }
    let each = PER_SEED.min(PER_TARGET / seeds.len());
    for ((file, data), number) in seeds.iter().zip(1u64..) {
        for round in 0..each {
            let mut dice = Dice(number << 32 | round as u64);
            let changed = mutated(data, &seeds, &words, &mut dice);
            tried(&changed, &format!("mutation {round} of {file}"));
        }
    }
}

#[test]
fn any_definition_is_loaded_or_refused() {
    endures("definition");
}

#[test]
fn any_expression_has_a_value_or_an_error() {
    endures("jq");
}

#[test]
fn any_event_is_read_or_refused() {
    endures("event");
}

#[test]
fn any_file_is_imported_or_refused() {
    endures("import");
}

#[test]
fn any_configuration_is_read_or_refused() {
    endures("config");
}
