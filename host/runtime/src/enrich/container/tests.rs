//! Rows of many namespaces against tables published by hand.

use super::*;
use crate::containers::testing::ByHand;
use ig_event::Value;

const HOST: u64 = 1;

struct Bench {
    hand: ByHand,
    enricher: ContainerEnricher,
    batch: Batch,
    name: FieldId,
    produced: u64,
}

fn source(kind: SourceKind) -> DataSource {
    let mut s = DataSource::new("t", kind, 24);
    let ns = FieldDef::new("mntns_id", Kind::U64, Storage::Record { offset: 0, size: 8 }).tag(MNTNS_TAG);
    s.add(ns).unwrap();
    s.add(FieldDef::new("timestamp_raw", Kind::U64, Storage::BootTime { offset: 8 })).unwrap();
    s.add(FieldDef::new("n", Kind::U64, Storage::Record { offset: 16, size: 8 })).unwrap();
    s
}

fn bench_of(kind: SourceKind, names: &str, include_host: bool) -> Bench {
    let hand = ByHand::new(HOST);
    let mut s = source(kind);
    let reader = TableReader::new(hand.published.clone());
    let selector = Arc::new(Selector::parse(names).unwrap());
    let enricher =
        ContainerEnricher::with_reader(&mut s, reader, selector, Include { host: include_host, setup: false }).unwrap();
    let name = s.find("runtime.containerName").unwrap().id;
    Bench { hand, enricher, batch: Batch::new(Arc::new(s)), name, produced: 0 }
}

fn bench(names: &str) -> Bench {
    bench_of(SourceKind::Events, names, false)
}

impl Bench {
    /// One turn of a pipeline: what waited, then these rows; gives (number, container) of the rows that go on.
    fn turn(&mut self, rows: &[(u64, u64)]) -> Vec<(u64, String)> {
        self.batch.clear();
        self.enricher.take_ready(&mut self.batch);
        for (mntns, time) in rows {
            self.batch.push(&[*mntns, *time, self.produced].map(u64::to_le_bytes).concat());
            self.produced += 1;
        }
        self.enricher.process(&mut self.batch);
        self.seen()
    }

    fn end(&mut self) -> Vec<(u64, String)> {
        self.batch.clear();
        self.enricher.take_all(&mut self.batch);
        self.enricher.process(&mut self.batch);
        self.seen()
    }

    fn seen(&self) -> Vec<(u64, String)> {
        let text = |row| match self.batch.value(row, self.name) {
            Value::Text(t) => String::from_utf8_lossy(&t).into_owned(),
            Value::Missing => "-".to_owned(),
            other => panic!("{other:?}"),
        };
        self.batch.iter().map(|row| (word(self.batch.record_bytes(row, 16, 8)), text(row))).collect()
    }

    fn lost(&self, reason: Reason) -> u64 {
        self.batch.loss.get(reason)
    }
}

fn seen(rows: &[(u64, &str)]) -> Vec<(u64, String)> {
    rows.iter().map(|(n, name)| (*n, (*name).to_owned())).collect()
}

#[test]
fn rows_are_labelled_and_others_left_out_with_a_count() {
    let mut b = bench("web,db");
    b.hand.birth(7, 100, Some("web"));
    b.hand.birth(8, 100, Some("proxy"));
    b.hand.birth(9, 100, Some("db"));
    b.hand.host_birth(10, 100);
    b.hand.publish(1000);
    let rows = b.turn(&[(7, 200), (8, 200), (9, 200), (HOST, 200), (10, 200), (7, 300), (11, 500)]);
    assert_eq!(rows, seen(&[(0, "web"), (2, "db"), (5, "web")]));
    assert_eq!(b.lost(Reason::OtherContainer), 4);
    assert_eq!((b.enricher.held(), b.enricher.wait()), (0, None));
}

#[test]
fn with_the_host_its_rows_have_no_container() {
    let mut b = bench_of(SourceKind::Events, "web", true);
    b.hand.birth(7, 100, Some("web"));
    b.hand.birth(8, 100, Some("proxy"));
    b.hand.host_birth(10, 100);
    b.hand.publish(1000);
    let rows = b.turn(&[(7, 200), (8, 200), (HOST, 200), (10, 200), (11, 500)]);
    assert_eq!(rows, seen(&[(0, "web"), (2, "-"), (3, "-"), (4, "-")]));
}

#[test]
fn a_reused_number_is_told_apart_within_one_batch() {
    let mut b = bench("");
    b.hand.birth(7, 100, Some("old"));
    b.hand.birth(7, 300, Some("new"));
    b.hand.publish(1000);
    let rows = b.turn(&[(7, 350), (7, 200), (7, 400), (7, 299)]);
    assert_eq!(rows, seen(&[(0, "new"), (1, "old"), (2, "new"), (3, "old")]));
}

#[test]
fn a_row_after_the_end_waits_for_the_next_ones_birth() {
    let mut b = bench("");
    let first = b.hand.birth(7, 100, Some("first"));
    b.hand.publish(300);
    assert_eq!(b.turn(&[(7, 400)]), seen(&[(0, "first")]));
    b.hand.end(first, 500);
    b.hand.publish(600);
    assert_eq!(b.turn(&[(7, 450), (7, 550), (7, 700)]), seen(&[(1, "first"), (2, "first")]));
    b.hand.birth(7, 650, Some("second"));
    b.hand.publish(800);
    assert_eq!(b.turn(&[]), seen(&[(3, "second")]));
    // nobody came: what is left of the container ends after its first process
    let last = b.hand.birth(8, 800, Some("last"));
    b.hand.end(last, 900);
    b.hand.publish(900);
    assert_eq!((b.turn(&[(8, 950)]), b.enricher.held()), (Vec::new(), 1));
    b.hand.publish(1000);
    assert_eq!(b.turn(&[]), seen(&[(4, "last")]));
    assert_eq!(b.lost(Reason::Unlabelled), 0);
}

#[test]
fn rows_of_an_unnamed_container_wait_and_keep_their_order() {
    let mut b = bench("web");
    let c = b.hand.birth(7, 100, None);
    b.hand.birth(8, 100, Some("web"));
    b.hand.publish(1000);
    assert_eq!(b.turn(&[(7, 200), (8, 200), (7, 201)]), seen(&[(1, "web")]));
    assert_eq!((b.enricher.held(), b.batch.loss.is_empty()), (2, true));
    assert_eq!(b.enricher.wait(), Some(RETRY));
    assert_eq!(b.turn(&[(7, 202)]), seen(&[]));
    b.hand.change(c, |c| {
        c.name = Some("web".into());
        c.complete = true;
    });
    b.hand.publish(1001);
    assert_eq!(b.turn(&[(7, 203)]), seen(&[(0, "web"), (2, "web"), (3, "web"), (4, "web")]));
    assert_eq!((b.enricher.held(), b.batch.loss.is_empty()), (0, true));
}

#[test]
fn news_between_the_two_halves_of_a_turn_does_not_overtake() {
    let mut b = bench("");
    let c = b.hand.birth(7, 100, None);
    b.hand.publish(1000);
    b.turn(&[(7, 200)]);
    b.batch.clear();
    b.enricher.take_ready(&mut b.batch);
    b.hand.change(c, |c| {
        c.name = Some("web".into());
        c.complete = true;
    });
    b.hand.publish(1001);
    b.batch.push(&[7, 201, 1].map(u64::to_le_bytes).concat());
    b.produced = 2;
    b.enricher.process(&mut b.batch);
    assert_eq!(b.seen(), seen(&[]));
    assert_eq!(b.turn(&[]), seen(&[(0, "web"), (1, "web")]));
}

#[test]
fn a_namespace_that_the_tracker_has_not_reached_yet_waits_for_it() {
    let mut b = bench("");
    b.hand.publish(1000);
    assert_eq!(b.turn(&[(7, 1500)]), seen(&[]));
    b.hand.birth(7, 1400, Some("web"));
    b.hand.publish(1600);
    assert_eq!(b.turn(&[]), seen(&[(0, "web")]));
    b.turn(&[(8, 1700)]);
    assert_eq!(b.enricher.held(), 1);
    b.hand.publish(1800);
    assert_eq!(b.turn(&[]), seen(&[]), "nobody was born there: it is the host's");
    assert_eq!((b.enricher.held(), b.lost(Reason::OtherContainer)), (0, 1));
}

#[test]
fn where_the_tracker_missed_something_unknown_rows_are_shown() {
    let mut b = bench("web");
    b.hand.publish(1000);
    b.hand.miss_something();
    assert_eq!(b.turn(&[(7, 500)]), seen(&[(0, "-")]));
    assert_eq!(b.lost(Reason::Unlabelled), 1);
}

#[test]
fn at_the_end_nobody_waits_and_everything_is_accounted_for() {
    let mut b = bench("web");
    b.hand.birth(7, 100, None);
    b.hand.publish(1000);
    b.turn(&[(7, 200), (8, 2000), (7, 201)]);
    let mut rows = b.end();
    rows.sort();
    assert_eq!(rows, seen(&[(0, ""), (1, "-"), (2, "")]), "never dropped in silence");
    assert_eq!((b.lost(Reason::Unlabelled), b.enricher.held()), (3, 0));
}

#[test]
fn a_name_that_did_not_come_shows_the_id_and_is_flagged() {
    // Also where a name was asked for: it may be that one, and nothing may be missing in silence.
    for names in ["", "!web", "web"] {
        let mut b = bench(names);
        let c = b.hand.birth(7, 100, None);
        b.hand.change(c, |c| c.complete = true);
        b.hand.change(c, |c| c.image_answer = crate::containers::ImageAnswer::TimeUp);
        b.hand.publish(1000);
        assert_eq!(b.turn(&[(7, 200)]), seen(&[(0, "")]), "`{names}`");
        assert_eq!((b.lost(Reason::Unlabelled), b.lost(Reason::OtherContainer)), (1, 0));
    }
}

#[test]
fn too_many_rows_that_wait_are_counted_as_lost() {
    let mut b = bench("");
    b.hand.birth(7, 100, None);
    b.hand.birth(8, 100, None);
    b.hand.publish(1000);
    let rows: Vec<_> = (0..HELD_PER_NAMESPACE as u64 + 10).map(|t| (7, 200 + t)).chain([(8, 200)]).collect();
    assert_eq!(b.turn(&rows), seen(&[]));
    assert_eq!(b.lost(Reason::HoldOverflow), 10);
    assert_eq!(b.enricher.held(), HELD_PER_NAMESPACE + 1, "one namespace's storm is not another's");
    assert_eq!(b.end().len(), HELD_PER_NAMESPACE + 1);
    assert_eq!(b.enricher.held_bytes, 0);
}

#[test]
fn a_table_is_never_torn_apart_by_waiting() {
    let mut b = bench_of(SourceKind::Snapshot, "", false);
    b.hand.birth(7, 100, None);
    b.hand.birth(8, 100, Some("web"));
    b.hand.publish(1000);
    assert_eq!(b.turn(&[(7, 200), (8, 200)]), seen(&[(0, ""), (1, "web")]), "what is known so far is shown");
    assert_eq!(b.lost(Reason::Unlabelled), 1);
}

#[test]
fn short_records_belong_to_nobody() {
    let mut b = bench("");
    b.hand.publish(1000);
    b.batch.push(&[7]);
    b.enricher.process(&mut b.batch);
    assert_eq!((b.batch.live(), b.lost(Reason::OtherContainer)), (0, 1));
}

#[test]
fn only_sources_that_name_a_mount_namespace_get_the_fields() {
    let hand = ByHand::new(HOST);
    let mut s = DataSource::new("t", SourceKind::Events, 8);
    let reader = || TableReader::new(hand.published.clone());
    assert!(ContainerEnricher::with_reader(&mut s, reader(), Arc::default(), Include::default()).is_none());
    assert!(s.fields().is_empty());
    let mut s = source(SourceKind::Events);
    ContainerEnricher::with_reader(&mut s, reader(), Arc::default(), Include::default()).unwrap();
    let show = |f: &ig_event::Field| {
        let a = &f.def.annotations;
        let get = |k: &str| a.get(k).cloned().unwrap_or_default();
        let hidden = if f.hidden() { "hidden" } else { "" };
        format!("{} {:?} {} {} {hidden}", f.full_name, f.def.kind, get("columns.order"), get("columns.width"))
    };
    let fields: Vec<_> = s.fields().iter().map(show).collect();
    insta::assert_snapshot!(fields.join("\n"));
}

#[test]
fn rows_wait_for_the_digest_that_decides_and_are_shown_flagged_when_it_never_comes() {
    use crate::containers::{Attribute, ImageAnswer};
    let wanted = "sha256:0123456789abcdef";
    let mut b = bench("");
    b.enricher.selector = Arc::new(Selector::all().and(Attribute::ImageDigest, "0123456789ab").unwrap());
    let (web, db) = (b.hand.birth(7, 100, Some("web")), b.hand.birth(8, 100, Some("db")));
    let late = b.hand.birth(9, 100, Some("late"));
    b.hand.publish(1000);
    assert_eq!(b.turn(&[(7, 200), (8, 200), (9, 200)]), []);
    assert_eq!(b.enricher.held(), 3);
    let answer = |digest: &'static str| {
        move |c: &mut Container| {
            c.image_digest = Some(digest.into());
            c.image_answer = ImageAnswer::Given;
        }
    };
    b.hand.change(web, answer(wanted));
    b.hand.change(db, answer("sha256:ffffffffffffffff"));
    b.hand.publish(1000);
    assert_eq!(b.turn(&[(7, 300), (8, 300)]), seen(&[(0, "web"), (3, "web")]));
    assert_eq!(b.lost(Reason::OtherContainer), 2);
    b.hand.change(late, |c| c.image_answer = ImageAnswer::TimeUp);
    b.hand.publish(1000);
    assert_eq!(b.turn(&[(9, 300)]), seen(&[(2, "late"), (5, "late")]));
    assert_eq!((b.lost(Reason::Unlabelled), b.enricher.held()), (2, 0));
}

#[test]
fn what_a_runtime_does_before_the_first_program_is_left_out_and_counted() {
    let mut b = bench("");
    let c = b.hand.birth(7, 100, Some("web"));
    b.hand.change(c, |c| c.pid = 0);
    b.hand.publish(1000);
    assert_eq!(b.turn(&[(7, 200), (7, 290)]), seen(&[]), "whether a program runs yet is not known");
    assert_eq!(b.enricher.held(), 2);
    b.hand.change(c, |c| {
        c.pid = 42;
        c.first_exec = 290;
    });
    b.hand.publish(1001);
    assert_eq!(b.turn(&[(7, 300), (7, 289), (7, 301)]), seen(&[(1, "web"), (2, "web"), (4, "web")]));
    assert_eq!((b.lost(Reason::Setup), b.enricher.held()), (2, 0));
}

#[test]
fn a_set_up_without_a_program_ends_with_the_run() {
    let mut b = bench("");
    let c = b.hand.birth(7, 100, Some("web"));
    b.hand.change(c, |c| c.pid = 0);
    b.hand.publish(1000);
    assert_eq!(b.turn(&[(7, 200)]), seen(&[]));
    assert_eq!(b.end(), seen(&[]));
    assert_eq!((b.lost(Reason::Setup), b.enricher.held()), (1, 0));
}

#[test]
fn after_a_gap_of_the_tracker_no_program_is_taken_for_a_set_up() {
    let mut b = bench("");
    let c = b.hand.birth(7, 100, Some("web"));
    b.hand.change(c, |c| c.pid = 0);
    b.hand.miss_something();
    b.hand.publish(1000);
    // The first program may be what was missed: its rows must not go as nobody's.
    assert_eq!(b.turn(&[(7, 200)]), seen(&[(0, "web")]));
    assert_eq!((b.lost(Reason::Setup), b.enricher.held()), (0, 0));
}

#[test]
fn the_set_up_is_shown_to_those_who_ask_for_it() {
    let mut b = bench("");
    b.enricher.include.setup = true;
    let c = b.hand.birth(7, 100, Some("web"));
    b.hand.change(c, |c| c.first_exec = 290);
    b.hand.publish(1000);
    assert_eq!(b.turn(&[(7, 200), (7, 300)]), seen(&[(0, "web"), (1, "web")]));
}
