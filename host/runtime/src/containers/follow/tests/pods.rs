//! Pods: their labels, their sandboxes, and who tells of them.

use super::*;

/// What a client says of a pod.
fn pod_news(labels: &[(&str, &str)]) -> News {
    let labels = labels.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
    let pod = Pod { name: "web-0".into(), namespace: "shop".into(), labels: Some(labels), ..Pod::default() };
    let d = Described { id: SANDBOX.into(), sandbox: Some(SANDBOX.into()), pod: Some(pod), ..Described::default() };
    News::Known(RuntimeName::Containerd, d)
}

fn shown_labels(c: &Container) -> Option<Vec<String>> {
    Some(c.pod_labels()?.iter().map(|(k, v)| format!("{k}={v}")).collect())
}

#[test]
fn a_pods_labels_are_waited_for_and_hold_for_all_its_containers() {
    let mut h = host();
    h.with_pods();
    h.launch(10, "k8s.io", SANDBOX, &pod_json("", "sandbox"));
    h.birth(task(7, 100, 12, 10));
    h.launch(20, "k8s.io", ID, &pod_json("nginx", "container"));
    h.birth(task(8, 200, 22, 20));
    let (sandbox, web) = (h.at(7, 100).unwrap(), h.at(8, 200).unwrap());
    assert_eq!((sandbox.name.as_deref(), sandbox.is_sandbox(), sandbox.complete), (Some("POD"), true, false));
    assert_eq!((web.name.as_deref(), web.is_sandbox(), web.complete), (Some("nginx"), false, false));
    let pod = web.pod.as_deref().unwrap();
    assert_eq!((&*pod.node, &*pod.name, &pod.labels), ("node-1", "web-0", &None));
    assert!(h.follower.todo.ask.contains(&(RuntimeName::Containerd, Question::Sandbox(SANDBOX.into()))));
    h.follower.news(pod_news(&[("app", "web")]), 300);
    for ns in [7, 8] {
        let c = h.at(ns, 300).unwrap();
        assert_eq!((shown_labels(&c), c.complete), (Some(vec!["app=web".to_owned()]), true), "{c:?}");
    }
    assert!(h.follower.todo.decide.contains(&(8, 200)), "its filters are decided anew");
    // Another container of the pod: nothing is asked any more.
    h.follower.todo = Todo::default();
    h.launch(30, "k8s.io", "other", &pod_json("sidecar", "container"));
    h.birth(task(9, 400, 32, 30));
    let c = h.at(9, 400).unwrap();
    assert_eq!((shown_labels(&c), c.complete), (Some(vec!["app=web".to_owned()]), true));
    assert!(!h.follower.todo.ask.iter().any(|(_, q)| matches!(q, Question::Sandbox(_))));
}

#[test]
fn labels_that_do_not_come_are_given_up_and_taken_late() {
    let mut h = host();
    h.with_pods();
    h.launch(20, "k8s.io", ID, &pod_json("nginx", "container"));
    h.birth(task(8, 200, 22, 20));
    assert!(!h.at(8, 200).unwrap().complete);
    h.follower.tick(200 + NAME_DEADLINE);
    let c = h.at(8, 200).unwrap();
    assert_eq!((c.complete, c.pod_labels()), (true, None));
    h.follower.news(pod_news(&[]), 5_000_000_000);
    assert_eq!(shown_labels(&h.at(8, 200).unwrap()), Some(Vec::new()), "a pod without labels is not an unknown one");
}

#[test]
fn without_anybody_who_knows_pods_nobody_waits() {
    let mut h = host();
    h.launch(20, "k8s.io", ID, &pod_json("nginx", "container"));
    h.birth(task(8, 200, 22, 20));
    assert!(h.at(8, 200).unwrap().complete);
    // There was somebody, and is no more.
    let mut h = host();
    h.with_pods();
    h.launch(20, "k8s.io", ID, &pod_json("nginx", "container"));
    h.birth(task(8, 200, 22, 20));
    assert!(!h.at(8, 200).unwrap().complete);
    let source = Source { number: 1, runtime: RuntimeName::Containerd };
    h.follower.news(News::Connected { source, pods: Some(true) }, 210);
    assert!(!h.at(8, 200).unwrap().complete);
    let socket = PathBuf::from("/s");
    h.follower.news(News::Lost(source, ClientError::StreamEnded { runtime: source.runtime, socket }), 220);
    assert!(h.at(8, 200).unwrap().complete);
}

#[test]
fn crio_writes_the_labels_of_the_pod_into_the_sandboxs_bundle() {
    let mut h = host();
    let annotations = |name: &str, kind: &str, labels: &str| {
        serde_json::json!({"annotations": {
            "io.kubernetes.cri-o.ContainerType": kind, "io.kubernetes.cri-o.SandboxID": SANDBOX,
            "io.kubernetes.cri-o.Labels": labels, "io.kubernetes.container.name": name,
            "io.kubernetes.pod.name": "web-0", "io.kubernetes.pod.namespace": "shop", "io.kubernetes.pod.uid": "u-1",
        }})
        .to_string()
    };
    let bundle = |id: &str| format!("/run/containers/storage/overlay-containers/{id}/userdata");
    let own = r#"{"app":"web","io.kubernetes.container.name":"POD","io.kubernetes.pod.name":"web-0"}"#;
    h.put(&format!("{}/config.json", bundle(SANDBOX)), &annotations("POD", "sandbox", own));
    h.put(&format!("{}/config.json", bundle(ID)), &annotations("nginx", "container", r#"{"not":"the pod's"}"#));
    h.exec_runtime(9, 0, HOST, &format!("conmon -c {ID} -n k8s_nginx_web-0_shop_u-1_0"));
    for (tgid, id, mntns) in [(10, SANDBOX, 7), (20, ID, 8)] {
        h.exec_runtime(tgid, 0, HOST, &format!("crun create --bundle {} {id}", bundle(id)));
        h.birth(task(mntns, 100, tgid + 1, tgid));
    }
    let (sandbox, web) = (h.at(7, 100).unwrap(), h.at(8, 100).unwrap());
    assert_eq!((sandbox.name.as_deref(), sandbox.is_sandbox()), (Some("POD"), true));
    assert_eq!((web.name.as_deref(), web.runtime), (Some("nginx"), RuntimeName::CriO));
    assert_eq!(web.pod.as_ref().unwrap().container_name, "nginx".into());
    for c in [sandbox, web] {
        assert_eq!(shown_labels(&c), Some(vec!["app=web".to_owned()]));
    }
}
