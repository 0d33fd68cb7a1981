//! What listings show of containers made for the test, with a host root made for it too.

use super::*;
use crate::containers::container::RuntimeName;
use ig_event::{FieldSelection, HostNames, OutputMode, PrinterEnv, printer};

fn put(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// Each with everything known: of a pod and of root, and the bare word of a user.
fn rows(root: &Path) -> Vec<Row> {
    put(root, "srv/web/config.json", r#"{"annotations":{"io.kubernetes.cri.sandbox-id":"5a"}}"#);
    put(root, "proc/42/cgroup", "5:pids:/kubepods/web\n0::/kubepods/web\n");
    std::fs::create_dir_all(root.join("proc/42/ns")).unwrap();
    std::os::unix::fs::symlink("mnt:[7]", root.join("proc/42/ns/mnt")).unwrap();
    let mut web = Container::new(1, "ab12".into(), RuntimeName::Containerd, 7);
    web.name = Some("web".into());
    (web.pid, web.netns, web.cgroup_id, web.started_at) = (42, 99, 500, 1_700_000_000_123_456_789);
    web.sandbox = Some("5a".into());
    web.bundle = Some("/srv/web".into());
    web.image_name = Some("nginx:1".into());
    web.image_id = Some("sha256:01".into());
    web.image_digest = Some("sha256:02".into());
    web.pod = Some(Arc::new(Pod {
        namespace: "shop".into(),
        name: "web-0".into(),
        uid: "u1".into(),
        container_name: "nginx".into(),
        labels: Some([("app".into(), "web".into())].into()),
        ..Pod::default()
    }));
    let mut hostile = Container::new(2, "1000/x".into(), RuntimeName::Podman, 8);
    hostile.name = Some(format!("1000/\x1b[2J\n\u{202e}日本{}", "n".repeat(40)).into());
    hostile.bundle = Some("/srv/web".into());
    hostile.pid = 42;
    let hierarchies = Cgroups::at(Some(root.join("sys/fs/cgroup")), None);
    let host = Host { root: root.to_owned(), proc: Some(root.join("proc")), hierarchies };
    [web, hostile].map(|c| Row::new(c.seal(), &host)).into()
}

fn shown(listing: &Listing, rows: &[Row], mode: OutputMode, fields: &str, width: Option<usize>) -> String {
    let mut batch = Batch::new(listing.source().clone());
    rows.iter().for_each(|r| listing.push(&mut batch, r));
    let fields = FieldSelection::parse(fields, listing.source()).unwrap();
    let names = Arc::new(HostNames::default());
    let env = PrinterEnv { names, zone: jiff_utc(), width };
    let mut out = Vec::new();
    let mut printer = printer(listing.source(), mode, &fields, env).unwrap();
    printer.header(&mut out);
    printer.batch(&batch, &mut out);
    String::from_utf8(out).unwrap()
}

fn jiff_utc() -> ig_event::output::TimeZone {
    ig_event::output::TimeZone::UTC
}

#[test]
fn columns_fit_their_content_and_cannot_steer_the_terminal() {
    let root = tempfile::tempdir().unwrap();
    let rows = rows(root.path());
    let wide = shown(&Listing::table(&rows, false), &rows, OutputMode::Columns, "", None);
    let narrow = shown(&Listing::table(&rows, true), &rows, OutputMode::Columns, "", Some(100));
    assert!(narrow.lines().all(|l| cell_width(l) <= 100 + 8), "{narrow}");
    insta::assert_snapshot!(format!("{wide}\n{narrow}"));
}

#[test]
fn every_field_can_be_asked_for() {
    let root = tempfile::tempdir().unwrap();
    let rows = rows(root.path());
    let fields = "mntns,netns,hostNetwork,cgroupID,cgroupV1,cgroupV2,bundle,sandboxId,containerImageDigest";
    insta::assert_snapshot!(shown(&Listing::table(&rows, false), &rows, OutputMode::Columns, fields, None));
}

#[test]
fn changes_have_a_time_and_an_event() {
    let root = tempfile::tempdir().unwrap();
    let mut rows = rows(root.path());
    rows[0].event = Some(("CREATED", 1_700_000_000_000_000_000));
    rows[1].event = Some(("DELETED", 1_700_000_001_000_000_000));
    insta::assert_snapshot!(shown(&Listing::changes(), &rows, OutputMode::Columns, "", None));
}

#[test]
fn objects_have_the_known_keys_and_no_guesses() {
    let root = tempfile::tempdir().unwrap();
    let rows = rows(root.path());
    let objects: Vec<_> = rows.iter().map(Row::object).collect();
    let text = serde_json::to_string_pretty(&objects).unwrap();
    insta::assert_snapshot!(text);
    assert_eq!(rows[1].details, Details::default(), "another process has the number, and the bundle is not root's");
}
