//! What containerd says: events, containers, manifests. The real daemon is in `tests/root_containerd.rs`.

use super::*;
use containerd_client::services::v1::Container;

fn container(id: &str, labels: &[(&str, &str)], spec: serde_json::Value) -> Container {
    let mut c = Container {
        id: id.into(),
        labels: labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        image: "docker.io/library/nginx:latest".into(),
        ..Container::default()
    };
    c.spec.get_or_insert_default().value = spec.to_string().into_bytes();
    c
}

/// A protobuf message on its way, as containerd sends it.
fn envelope(namespace: &str, topic: &str, value: Vec<u8>) -> Envelope {
    let mut e = Envelope { namespace: namespace.into(), topic: topic.into(), ..Envelope::default() };
    e.event.get_or_insert_default().value = value;
    e
}

#[test]
fn events_say_who_and_where() {
    let create = events::ContainerCreate { id: "web".into(), ..Default::default() }.encode_to_vec();
    let here = |pid| Some(Happening::Here { namespace: "red".into(), id: "web".into(), pid });
    assert_eq!(happening(envelope("red", "/containers/create", create.clone())), here(None));
    let start = events::TaskStart { container_id: "web".into(), pid: 7 }.encode_to_vec();
    assert_eq!(happening(envelope("red", "/tasks/start", start.clone())), here(Some(7)));
    let delete = events::ContainerDelete { id: "web".into() }.encode_to_vec();
    let gone = Some(Happening::Gone { id: "web".into() });
    assert_eq!(happening(envelope("red", "/containers/delete", delete.clone())), gone);
    assert_eq!(happening(envelope(MOBY, "/containers/delete", delete)), None, "Docker itself tells");
    assert_eq!(happening(envelope("red", "/tasks/exit", start)), None);
    assert_eq!(happening(envelope("red", "/containers/create", vec![0xff; 40])), None, "no message");
    assert_eq!(happening(envelope("red", "/containers/create", Vec::new())), None, "no id");
    assert_eq!(happening(Envelope { event: None, ..envelope("red", "/containers/create", create) }), None);
}

#[test]
fn names_come_from_the_specification_then_from_labels_then_from_the_id() {
    let empty = serde_json::json!({});
    let plain = described("red", &container("web", &[], empty.clone()));
    assert_eq!((plain.name.as_deref(), plain.pod, plain.namespace.as_deref()), (Some("web"), None, Some("red")));
    let nerd = described("red", &container("1234", &[("nerdctl/name", "web")], empty.clone()));
    assert_eq!(nerd.name.as_deref(), Some("web"));
    let kubernetes = [
        ("io.kubernetes.container.name", "nginx"),
        ("io.kubernetes.pod.name", "web-0"),
        ("io.kubernetes.pod.namespace", "shop"),
        ("io.kubernetes.pod.uid", "u-1"),
    ];
    let labelled = described("k8s.io", &container("1234", &kubernetes, empty));
    assert_eq!(labelled.name.as_deref(), Some("nginx"));
    let pod = labelled.pod.unwrap();
    assert_eq!((&*pod.namespace, &*pod.name, &*pod.container_name, pod.labels), ("shop", "web-0", "nginx", None));
    let annotations = serde_json::json!({"annotations": {
        "io.kubernetes.cri.container-name": "annotated",
        "io.kubernetes.cri.container-type": "container",
        "io.kubernetes.cri.image-name": "nginx:1",
        "io.kubernetes.cri.sandbox-id": "5678",
        "io.kubernetes.cri.sandbox-name": "web-1",
        "io.kubernetes.cri.sandbox-namespace": "shop",
    }});
    let d = described("k8s.io", &container("1234", &kubernetes, annotations));
    assert_eq!((d.name.as_deref(), d.image_name.as_deref()), (Some("annotated"), Some("nginx:1")));
    assert_eq!((d.sandbox.as_deref(), &*d.pod.unwrap().name), (Some("5678"), "web-1"));
}

#[test]
fn of_dockers_containers_nothing_is_told_but_that_they_are_there() {
    let labels = [("nerdctl/name", "fake"), ("io.kubernetes.pod.name", "fake")];
    let d = described(MOBY, &container("1234", &labels, serde_json::json!({})));
    let bare = Described { id: "1234".into(), namespace: Some(MOBY.into()), ..Described::default() };
    assert_eq!(d, bare);
}

#[test]
fn long_and_odd_text_is_cut_and_never_split() {
    let long = "ä".repeat(9000);
    let d = described("red", &container(&long, &[("nerdctl/name", "\u{1b}[31mred\n")], serde_json::json!({})));
    assert_eq!(d.id.len(), 4096);
    assert_eq!(d.name.as_deref(), Some("\u{1b}[31mred\n"), "escaping is the printer's business");
    let mut broken = container("x", &[], serde_json::json!({}));
    broken.spec.get_or_insert_default().value = b"{".to_vec();
    assert_eq!(described("red", &broken).name.as_deref(), Some("x"));
}

#[test]
fn an_index_names_this_machines_manifest() {
    let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let index = serde_json::json!({"manifests": [
        {"digest": "sha256:s390", "platform": {"architecture": "s390x", "os": "linux"}},
        {"digest": "sha256:mine", "platform": {"architecture": arch, "os": "linux"}},
    ]});
    let index: Manifest = serde_json::from_value(index).unwrap();
    assert_eq!(index.of_this_machine().as_deref(), Some("sha256:mine"));
    let manifest: Manifest = serde_json::from_value(serde_json::json!({"config": {"digest": "sha256:c"}})).unwrap();
    assert_eq!((manifest.of_this_machine(), manifest.config.unwrap().digest.as_str()), (None, "sha256:c"));
}

#[test]
fn only_the_wanted_namespaces_are_watched() {
    let all = ContainerdClient::new(Path::new("/s"), &[]).filters();
    assert_eq!(all[0], r#"topic=="/containers/create""#);
    assert_eq!(all.len(), TOPICS.len());
    let two = ContainerdClient::new(Path::new("/s"), &["red".into(), "a\"b".into()]).filters();
    assert_eq!(two.len(), 2 * TOPICS.len());
    assert_eq!(two[0], r#"namespace=="red",topic=="/containers/create""#);
    assert!(two[4].starts_with(r#"namespace=="a\"b","#), "{}", two[4]);
}
