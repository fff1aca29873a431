//! tmp
use foldback_store::*;
use foldback_core::EventId;
use std::sync::Arc; use std::sync::mpsc; use std::time::*;
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let secs: f64 = args[1].parse().unwrap(); let rounds: usize = args[2].parse().unwrap();
    let dir = std::env::temp_dir().join("fbbench"); 
    if rounds == 0 { let _ = std::fs::remove_dir_all(&dir); std::fs::create_dir_all(&dir).unwrap(); println!("{:?}", ours(dir.join("o.db").to_str().unwrap(), 1000, args[3].parse().unwrap(), secs)); return; }
    for _ in 0..rounds {
        for per in [1000usize] {
            let _ = std::fs::remove_dir_all(&dir); std::fs::create_dir_all(&dir).unwrap();
            let c = cpu("tmpbench"); let r = raw::raw_append_loop(&dir.join("raw.db"), per, secs).unwrap();
            println!("raw {per:5} {r:9.0}/s cpu {:.2} us/row", (cpu("tmpbench") - c) * 1e6 / (r * secs));
        }
        for flight in [1000usize] { for together in [2usize] {
            let _ = std::fs::remove_dir_all(&dir); std::fs::create_dir_all(&dir).unwrap();
            let (rate, lat, drv) = ours(dir.join("o.db").to_str().unwrap(), flight, together, secs);
            println!("ours flight={flight} together={together} {rate:9.0} events/s  p50 {lat} us driver busy {drv:.2}");
        } }
    }
}
fn cpu(name: &str) -> f64 { let mut t = 0.0; for e in std::fs::read_dir("/proc/self/task").unwrap() { let p = e.unwrap().path(); let Ok(c) = std::fs::read_to_string(p.join("schedstat")) else { continue }; let comm = std::fs::read_to_string(p.join("comm")).unwrap_or_default(); if comm.trim() == name { t += c.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9; } } t }
fn ours(path: &str, flight: usize, together: usize, secs: f64) -> (f64, u128, f64) {
    let store = open(path).unwrap();
    let own = store.acquire(0, "bench").unwrap().unwrap();
    let (tx, rx) = mpsc::channel::<(usize, Instant)>();
    let mut seed = 0x9E37_79B9_7F4A_7C15u64;
    let pay: Vec<String> = (0..4096).map(|i| { let t: String = (0..9).map(|_| { seed ^= seed << 13; seed ^= seed >> 7; seed ^= seed << 17; format!("{seed:016x}") }).collect(); format!("{{\"key\":\"step{i:05}\",\"attempt\":1,\"output\":{{\"inline\":{{\"text\":\"{t}\"}}}}}}") }).collect();
    let mut next = 0u64; let mut pos = 0u64;
    let mut places: Vec<(Arc<str>, u64)> = (0..flight).map(|_| { next += 1; (Arc::from(format!("wf-{next:016x}").as_str()), 0) }).collect();
    let (ty, actor, codec): (Arc<str>, Arc<str>, Arc<str>) = ("StepCompleted".into(), "engine".into(), "json".into());
    let c0 = cpu("tmpbench"); let start = Instant::now(); let mut n = 0u64; let mut lats = Vec::new(); let mut busy = Duration::ZERO;
    let mut send = |i: usize| {
        let (id, v) = &mut places[i];
        if *v >= 22 { next += 1; *id = format!("wf-{next:016x}").as_str().into(); *v = 0; }
        let events = (0..together).map(|_| { pos += 1; let mut e = [0u8;16]; e[8..].copy_from_slice(&pos.to_be_bytes()); let e = EventId(e);
            NewEvent { id: e, is_id_supplied: false, event_type: ty.clone(), schema_version: 1, payload: pay[pos as usize % 4096].clone(), timestamp: 1_700_000_000_000_000 + pos as i64, causation_id: Some(e), correlation_id: Some(e), actor: actor.clone(), codec: codec.clone(), key_id: None } }).collect();
        let a = Append { workflow_id: id.clone(), expected: Expected::Exact(*v), events, begins: None, status: None };
        *v += together as u64;
        let tx = tx.clone(); let t = Instant::now();
        store.commit(Commit { epoch: own.epoch, appends: vec![a], ..Commit::default() }, Box::new(move |r| { r.unwrap(); let _ = tx.send((i, t)); }));
    };
    for i in 0..flight { send(i); }
    let mut out = flight;
    while out > 0 {
        let (i, t) = rx.recv().unwrap(); let b = Instant::now(); out -= 1; n += together as u64; lats.push(t.elapsed().as_micros());
        if start.elapsed().as_secs_f64() < secs { send(i); out += 1; }
        busy += b.elapsed();
    }
    let el = start.elapsed().as_secs_f64(); lats.sort();
    println!("   writer cpu {:.2} us/event, driver {:.2}", cpu("foldback-writer") * 1e6 / n as f64, (cpu("tmpbench") - c0) * 1e6 / n as f64); (n as f64 / el, lats[lats.len()/2], busy.as_secs_f64() / el)
}
