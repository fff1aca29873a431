//! The files of a store: who may read them, what the lock file leaves alone, and that an owner whose files
//! went away writes nothing.
#![cfg(unix)]

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use crate::desk::{Desk, event, url};
use foldback_store::{CommitError, Expected, open, open_existing};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

#[test]
fn a_new_store_is_its_owners_alone() {
    let dir = tempfile::tempdir().unwrap();
    let desk = Desk::at(&dir);
    desk.append("a", Expected::NoStream, vec![event("1")]).unwrap();
    for name in ["foldback.db", "foldback.db-wal", "foldback.db-shm", "foldback.db-lock"] {
        assert_eq!(mode(&dir.path().join(name)), 0o600, "{name}");
    }
    let link = dir.path().join("link.db");
    symlink(dir.path().join("behind.db"), &link).unwrap();
    open(&link.display().to_string()).unwrap();
    assert_eq!(mode(&dir.path().join("behind.db")), 0o600, "found through a link");
}

#[test]
fn a_lock_is_as_open_to_others_as_its_database() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(&url(&dir)).unwrap());
    fs::set_permissions(dir.path().join("foldback.db"), std::os::unix::fs::PermissionsExt::from_mode(0o640))
        .unwrap();
    let _desk = Desk::at(&dir);
    assert_eq!(mode(&dir.path().join("foldback.db-lock")), 0o640);
}

#[test]
fn a_lock_file_follows_no_link_and_takes_nothing_out_of_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let (lock, precious) = (dir.path().join("foldback.db-lock"), dir.path().join("precious"));
    let store = open(&url(&dir)).unwrap();
    for target in [&precious, &dir.path().join("not there")] {
        fs::write(&precious, "years of work").unwrap();
        symlink(target, &lock).unwrap();
        let Err(refused) = store.acquire(0, "me") else { panic!("it was locked through a link") };
        assert!(refused.message.contains("is a link") && refused.hint.is_some(), "{refused}");
        assert!(!dir.path().join("not there").exists(), "a file was made through a link");
        assert_eq!(fs::read_to_string(&precious).unwrap(), "years of work");
        fs::remove_file(&lock).unwrap();
    }
    fs::hard_link(&precious, &lock).unwrap();
    drop(store.acquire(0, "me").unwrap().expect("nobody has it"));
    assert_eq!(fs::read_to_string(&precious).unwrap(), "years of work");
}

#[test]
fn a_link_in_the_place_of_a_file_of_the_store_is_told_as_one() {
    for name in ["foldback.db-wal", "foldback.db-shm"] {
        for target in ["elsewhere", "not there"] {
            let dir = tempfile::tempdir().unwrap();
            drop(open(&url(&dir)).unwrap());
            let link = dir.path().join(name);
            let _ = fs::remove_file(&link);
            fs::write(dir.path().join("elsewhere"), "years of work").unwrap();
            symlink(dir.path().join(target), &link).unwrap();
            for opened in [open(&url(&dir)), open_existing(&url(&dir))] {
                let Err(refused) = opened else { panic!("{name} was followed to {target}") };
                assert!(refused.message.contains(&format!("{name} is a link")), "{name}: {refused}");
                assert!(refused.hint.is_some() && refused.is_input, "{name}: {refused}");
            }
            assert_eq!(fs::read_to_string(dir.path().join("elsewhere")).unwrap(), "years of work");
            assert!(!dir.path().join("not there").exists(), "a file was made through a link");
        }
    }
}

#[test]
fn an_owner_whose_files_went_away_writes_nothing() {
    type Harm = fn(&Path);
    let harms: [(&str, Harm); 8] = [
        ("moved", |dir| fs::rename(dir.join("foldback.db"), dir.join("other.db")).unwrap()),
        ("removed", |dir| fs::remove_file(dir.join("foldback.db")).unwrap()),
        ("replaced", |dir| {
            fs::copy(dir.join("foldback.db"), dir.join("copy")).unwrap();
            fs::rename(dir.join("copy"), dir.join("foldback.db")).unwrap();
        }),
        ("unlocked", |dir| fs::remove_file(dir.join("foldback.db-lock")).unwrap()),
        ("locked anew", |dir| {
            fs::write(dir.join("fresh"), "").unwrap();
            fs::rename(dir.join("fresh"), dir.join("foldback.db-lock")).unwrap();
        }),
        ("the index of its log removed", |dir| fs::remove_file(dir.join("foldback.db-shm")).unwrap()),
        ("its log cut", |dir| drop(fs::File::create(dir.join("foldback.db-wal")).unwrap())),
        ("its log removed", |dir| fs::remove_file(dir.join("foldback.db-wal")).unwrap()),
    ];
    for (what, harm) in harms {
        let dir = tempfile::tempdir().unwrap();
        let desk = Desk::at(&dir);
        desk.append("a", Expected::NoStream, vec![event("1")]).unwrap();
        desk.store.still_there().unwrap();
        harm(dir.path());
        let asked = desk.store.still_there().expect_err(what);
        let Err(CommitError::Failed(refused)) = desk.append("a", Expected::Exact(1), vec![event("2")]) else {
            panic!("{what}: it was written");
        };
        assert_eq!(asked, refused, "{what}");
        assert!(
            refused.message.contains("was moved, removed, replaced or cut") && !refused.is_input,
            "{refused}"
        );
    }
    // Who has let go of a store needs no lock file.
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Desk::at(&dir).give_up();
    fs::remove_file(dir.path().join("foldback.db-lock")).unwrap();
    store.still_there().unwrap();
}
