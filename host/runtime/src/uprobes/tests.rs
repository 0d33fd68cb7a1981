//! What is probed, what is told of it, and for whom, without a kernel that takes the probes.

use super::{found::offsets, *};
use crate::symbols::elf::Elf;
use std::fs::File;

#[test]
fn functions_are_found_by_name_in_and_after_them() {
    let own = || File::open("/proc/self/exe").unwrap();
    let name = {
        let elf = Elf::read(own()).unwrap();
        let mut name = None;
        let mut look = |f: crate::symbols::elf::Function<'_>| {
            let text = String::from_utf8_lossy(f.name).into_owned();
            if text.contains("functions_are_found_by_name_in_and_after") {
                name.get_or_insert(text);
            }
        };
        elf.functions(&mut look).unwrap();
        name.unwrap()
    };
    let inside = format!("{name}+0x4");
    let beyond = format!("{name}+{}", u64::MAX);
    let found = offsets(own(), &[&name, &inside, &beyond, "0x40", "no_such_function"]).unwrap();
    assert!(!found.contains_key(&beyond));
    assert_eq!(found[&inside], found[&name] + 4);
    assert_eq!(found["0x40"], 0x40);
    assert!(!found.contains_key("no_such_function"));
}

#[test]
fn only_containers_that_could_have_been_probed_are_blind_spots() {
    let lack = |refused| Lack { file: "libc".into(), symbol: "malloc".into(), reason: "so".into(), refused };
    let note = |attached, refused| UprobeNote::Container {
        name: "web".into(),
        attached,
        missing: vec![lack(false), lack(refused)],
    };
    let all = [note(0, false), UprobeNote::More(3), UprobeNote::TooMany { name: "web".into() }, UprobeNote::Missed(5)];
    assert_eq!(all.map(|n| n.blind_spots()), [0, 0, 1, 5]);
    assert_eq!([note(0, true), note(3, true), note(3, false)].map(|n| n.blind_spots()), [1, 1, 0]);
}

#[test]
fn what_is_missing_is_said_with_file_function_and_reason() {
    let lacks = |file: &str, symbol: &str| Lack {
        file: file.to_owned(),
        symbol: symbol.to_owned(),
        reason: "there is no such library".to_owned(),
        refused: false,
    };
    let missing = vec![lacks("libssl", "SSL_write"), lacks("libssl", "SSL_read"), lacks("libgnutls", "x")];
    let note = UprobeNote::Container { name: "container web".into(), attached: 0, missing: missing.clone() };
    assert_eq!(
        note.to_string(),
        "warning: container web: nothing to probe, so none of its calls are seen: libgnutls (x): there is no such \
         library; libssl (SSL_read, SSL_write): there is no such library"
    );
    assert!(note.is_for_everybody());
    assert!(!UprobeNote::Container { name: "web".into(), attached: 1, missing }.is_for_everybody());
}

/// Probes of a kind of event that no kernel has, so that each is refused where the function is there.
fn refused(symbols: &[&str]) -> Attached {
    let probe = |symbol: &&str| Probe {
        program: "p".into(),
        fd: File::open("/dev/null").unwrap().into(),
        file: "libc".into(),
        symbol: (*symbol).to_owned(),
        at_return: false,
    };
    Attached {
        kind: u32::MAX,
        probes: symbols.iter().map(probe).collect(),
        proc: Some("/proc".into()),
        files: BTreeMap::new(),
        users: BTreeMap::new(),
        notes: Arc::default(),
        told: BTreeSet::new(),
        empty: 0,
        late: 0,
        closer: Closer::start().unwrap(),
    }
}

fn container(instance: u64) -> Arc<Container> {
    crate::containers::testing::container(instance, std::process::id())
}

fn notes(a: &Attached) -> Vec<UprobeNote> {
    std::mem::take(&mut a.notes.lock().unwrap())
}

#[test]
fn a_container_whose_probes_are_refused_is_told_at_the_last_try_and_the_next_with_its_library_too() {
    let mut a = refused(&["malloc", "no_such_function_at_all"]);
    assert_eq!(a.container(&container(1), false), Some(0));
    assert_eq!(notes(&a), []);
    for instance in [1, 2] {
        assert_eq!(a.container(&container(instance), true), Some(0));
        let told = notes(&a);
        let [UprobeNote::Container { attached: 0, missing, .. }] = &told[..] else { panic!("{told:?}") };
        assert!(missing.iter().any(|l| l.symbol == "malloc" && l.refused), "{missing:?}");
        assert!(missing.iter().any(|l| l.symbol != "malloc" && !l.refused), "{missing:?}");
        assert_eq!(told[0].blind_spots(), 1);
    }
    assert!(a.files.is_empty(), "a file without probes is not kept");
    // told once, however often it is looked at
    assert_eq!(a.container(&container(1), true), Some(0));
    assert_eq!(notes(&a), []);
}

#[test]
fn a_container_that_cannot_be_looked_at_is_told_and_one_that_has_ended_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let mut a = refused(&["malloc"]);
    a.proc = Some(dir.path().into());
    assert_eq!(a.container(&container(1), true), None);
    assert_eq!(notes(&a), []);
    // one that ran for long before it was looked at
    let mut ran = |first_exec| {
        let mut c = Container::clone(&container(7));
        c.first_exec = first_exec;
        a.container(&Arc::new(c), false)
    };
    let now = boot_time();
    // One that runs its first program in an hour is not late, however slow the machine is.
    let soon = now + 3_600_000_000_000;
    assert_eq!([ran(soon), ran(0), ran(now - 2 * LATE), ran(now - 2 * LATE)], [None; 4]);
    assert_eq!((notes(&a), a.late), (vec![UprobeNote::Missed(1)], 2));
    // something that is no directory, so that it is there and cannot be opened
    std::fs::create_dir(dir.path().join(std::process::id().to_string())).unwrap();
    File::create(dir.path().join(format!("{}/root", std::process::id()))).unwrap();
    assert_eq!(a.container(&container(1), false), Some(0));
    assert_eq!(notes(&a), []);
    assert_eq!(a.container(&container(1), true), Some(0));
    let told = notes(&a);
    assert_eq!(told.iter().map(UprobeNote::blind_spots).collect::<Vec<_>>(), [1]);
    assert!(told[0].to_string().contains("its files cannot be looked at"), "{}", told[0]);
}

#[test]
fn a_file_that_was_probed_in_part_is_tried_again_for_the_next_who_has_it() {
    let mut a = refused(&["malloc", "free"]);
    assert_eq!(a.container(&container(1), false), Some(0));
    // as if the first had been taken
    for key in a.users[&1].clone() {
        let events = BTreeMap::from([(0, File::open("/dev/null").unwrap().into())]);
        let missing = vec![Lack { file: "libc".into(), symbol: "free".into(), reason: "so".into(), refused: true }];
        a.files.insert(key, Probed { events, missing, users: BTreeSet::from([1]) });
    }
    assert!(a.container(&container(2), false).unwrap() > 0);
    let told = notes(&a);
    let [note @ UprobeNote::Container { attached: 1.., missing, .. }] = &told[..] else { panic!("{told:?}") };
    assert!(missing.iter().all(|l| l.symbol == "free" && l.reason.starts_with("the kernel refused")), "{missing:?}");
    assert!(note.is_for_everybody() && note.to_string().contains("some of its calls are not seen"), "{note}");
}

#[test]
fn those_that_ended_unnoticed_are_forgotten_and_the_host_is_not() {
    let mut a = refused(&["malloc"]);
    let key = (Inode::Numbers("8:1".into(), 7), "libc".to_owned());
    let users = BTreeSet::from([1, 2, HOST]);
    a.files.insert(key.clone(), Probed { events: BTreeMap::new(), missing: Vec::new(), users });
    a.users.extend([1, 2, HOST].map(|user| (user, vec![key.clone()])));
    a.keep(&BTreeSet::from([2, 3]));
    assert_eq!(a.files[&key].users, BTreeSet::from([2, HOST]));
    a.keep(&BTreeSet::new());
    assert_eq!(a.users.keys().copied().collect::<Vec<_>>(), [HOST]);
}
