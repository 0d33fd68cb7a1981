//! Rows with a network namespace, with and without a mount namespace, against tables published by hand.

use super::*;
use crate::{
    containers::{
        Pod, Selector, TableReader,
        testing::{ByHand, HOST_NETNS},
    },
    enrich::container::{Include, MNTNS_TAG, NETNS_TAG, word},
};
use ig_event::{Batch, DataSource, FieldDef, FieldId, Kind, Reason, SourceKind, Storage, Value};

const HOST: u64 = 1;

struct Bench {
    hand: ByHand,
    enricher: ContainerEnricher,
    batch: Batch,
    name: FieldId,
    pod: FieldId,
    produced: u64,
}

fn bench_of(names: &str, host: bool) -> Bench {
    let mut s = DataSource::new("t", SourceKind::Events, 32);
    let record = |name, kind, offset, size| FieldDef::new(name, kind, Storage::Record { offset, size });
    s.add(record("mntns_id", Kind::U64, 0, 8).tag(MNTNS_TAG)).unwrap();
    s.add(FieldDef::new("timestamp_raw", Kind::U64, Storage::BootTime { offset: 8 })).unwrap();
    s.add(record("n", Kind::U64, 16, 8)).unwrap();
    s.add(record("netns_id", Kind::U32, 24, 4).tag(NETNS_TAG)).unwrap();
    let hand = ByHand::new(HOST);
    let reader = TableReader::new(hand.published.clone());
    let selector = Arc::new(Selector::parse(names).unwrap());
    let enricher = ContainerEnricher::with_reader(&mut s, reader, selector, Include { host, setup: false }).unwrap();
    let id = |name| s.find(name).unwrap().id;
    let (name, pod) = (id("runtime.containerName"), id("k8s.podName"));
    Bench { hand, enricher, batch: Batch::new(Arc::new(s)), name, pod, produced: 0 }
}

impl Bench {
    /// One turn of a pipeline with rows of (mount namespace, network namespace, time): (number, container, pod) of those
    /// that go on.
    fn turn(&mut self, rows: &[(u64, u64, u64)]) -> Vec<(u64, String, String)> {
        self.batch.clear();
        self.enricher.take_ready(&mut self.batch);
        for (mntns, netns, time) in rows {
            self.batch.push(&[*mntns, *time, self.produced, *netns].map(u64::to_le_bytes).concat());
            self.produced += 1;
        }
        self.enricher.process(&mut self.batch);
        let text = |row, field| match self.batch.value(row, field) {
            Value::Text(t) => String::from_utf8_lossy(&t).into_owned(),
            Value::Missing => "-".to_owned(),
            other => panic!("{other:?}"),
        };
        let number = |row| word(self.batch.record_bytes(row, 16, 8));
        self.batch.iter().map(|row| (number(row), text(row, self.name), text(row, self.pod))).collect()
    }

    fn container(&mut self, mntns: u64, netns: u64, birth: u64, name: Option<&str>) -> u64 {
        let instance = self.hand.birth(mntns, birth, name);
        self.hand.network(instance, netns, birth);
        instance
    }
}

fn seen(rows: &[(u64, &str, &str)]) -> Vec<(u64, String, String)> {
    rows.iter().map(|(n, name, pod)| (*n, (*name).to_owned(), (*pod).to_owned())).collect()
}

#[test]
fn a_row_without_a_program_is_of_the_container_of_its_network() {
    let mut b = bench_of("web", false);
    b.container(7, 70, 100, Some("web"));
    b.container(8, 80, 100, Some("proxy"));
    b.hand.publish(1000);
    let rows = b.turn(&[(0, 70, 200), (0, 80, 200), (0, HOST_NETNS, 200), (0, 90, 200), (HOST, 70, 300)]);
    assert_eq!(rows, seen(&[(0, "web", ""), (4, "web", "")]), "also where a program of the host sent it");
    assert_eq!(b.batch.loss.get(Reason::OtherContainer), 3);
}

#[test]
fn a_known_program_decides_where_a_network_is_shared() {
    let mut b = bench_of("web", false);
    b.container(7, 70, 100, Some("web"));
    b.container(8, 70, 150, Some("proxy"));
    b.hand.publish(1000);
    let rows = b.turn(&[(7, 70, 200), (8, 70, 200), (0, 70, 200), (0, 70, 120)]);
    assert_eq!(rows, seen(&[(0, "web", ""), (2, "", ""), (3, "web", "")]), "of both, or of one while it was alone");
    assert_eq!(b.batch.loss.get(Reason::Unlabelled), 1, "somebody's of the two");
}

#[test]
fn rows_from_before_and_after_the_end_of_one_of_two_are_told_apart_in_any_order() {
    for rows in [[(0, 70, 350), (0, 70, 250), (0, 70, 300)], [(0, 70, 300), (0, 70, 250), (0, 70, 350)]] {
        let mut b = bench_of("", false);
        let first = b.container(7, 70, 100, Some("first"));
        b.container(8, 70, 200, Some("second"));
        b.hand.end(first, 300);
        b.hand.publish(1000);
        let names: Vec<(u64, String)> = rows.iter().map(|r| r.2).zip(b.turn(&rows).into_iter().map(|r| r.1)).collect();
        for (time, name) in names {
            assert_eq!(name, if time > 300 { "second" } else { "" }, "{time}");
        }
    }
}

#[test]
fn in_a_pod_the_row_is_the_pods_or_that_of_its_only_container() {
    let mut b = bench_of("", false);
    let sandbox = b.container(7, 70, 100, Some("pause"));
    let web = b.container(8, 70, 110, Some("web"));
    let pod = || Some(Arc::new(Pod { name: "shop".into(), ..Pod::default() }));
    b.hand.change(sandbox, |c| {
        c.sandbox = Some(c.id.clone());
        c.pod = pod();
    });
    b.hand.change(web, |c| c.pod = pod());
    b.hand.publish(1000);
    assert_eq!(b.turn(&[(0, 70, 200)]), seen(&[(0, "web", "shop")]));
    let side = b.container(9, 70, 300, Some("side"));
    b.hand.change(side, |c| c.pod = pod());
    b.hand.publish(1000);
    assert_eq!(b.turn(&[(0, 70, 400), (0, 70, 200)]), seen(&[(1, "", "shop"), (2, "web", "shop")]));
    assert_eq!(b.batch.loss.get(Reason::Unlabelled), 0);
}

#[test]
fn rows_wait_for_a_name_and_a_reused_number_is_told_apart() {
    let mut b = bench_of("", false);
    let old = b.container(7, 70, 100, Some("old"));
    b.hand.end(old, 300);
    let new = b.container(8, 70, 400, None);
    b.hand.publish(1000);
    assert_eq!(b.turn(&[(0, 70, 500), (0, 70, 200), (0, 71, 2000)]), seen(&[(1, "old", "")]));
    assert_eq!(b.enricher.held(), 2, "one for its name, one for a container that may be on its way");
    b.hand.change(new, |c| {
        c.name = Some("new".into());
        c.complete = true;
    });
    b.hand.publish(3000);
    assert_eq!(b.turn(&[]), seen(&[(0, "new", "")]));
    assert_eq!(b.batch.loss.get(Reason::OtherContainer), 1, "the other is nobody's");
}

#[test]
fn with_the_host_its_packets_are_shown_without_a_container() {
    let mut b = bench_of("web", true);
    b.container(7, 70, 100, Some("web"));
    b.hand.publish(1000);
    let rows = b.turn(&[(0, HOST_NETNS, 200), (HOST, HOST_NETNS, 200), (0, 70, 200), (7, HOST_NETNS, 200)]);
    assert_eq!(rows, seen(&[(0, "-", "-"), (1, "-", "-"), (2, "web", ""), (3, "web", "")]));
}
