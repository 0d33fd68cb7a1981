//! The writing half of advise_networkpolicy: the flows stay rows, and at the end there is a Kubernetes NetworkPolicy for each
//! pod, or for each container that is in none, which allows exactly these flows.
//!
//! Peers are written as addresses, because no API server is asked whose they are; what that cannot say stands as a comment in the
//! policy. Names are resolved at the address of a Service, so that port 53 is allowed to every peer. Everything foreign goes into the YAML as a
//! double-quoted string, whose escapes are those of JSON.

use gadget_sdk::{
    Answer, BytesField, Decoder, Error, Level, NumberField, Rows, Setup,
    host::{self, Container, Document, Owner},
    log, text,
};
use std::collections::{BTreeMap, BTreeSet};

/// Flows and pods that are kept; beyond that it is said, and counted as lost, how many are missing.
const MOST_FLOWS: usize = 1 << 18;

/// Port of name servers.
const DNS: u16 = 53;

/// Labels that a controller gives its pods anew with each rollout, each run or each pod: a policy that selects by them would
/// select nothing soon.
const PASSING_LABELS: [&str; 7] = [
    "pod-template-hash",
    "controller-revision-hash",
    "pod-template-generation",
    "statefulset.kubernetes.io/pod-name",
    "apps.kubernetes.io/pod-index",
    "controller-uid",
    "job-name",
];
const PASSING_PREFIX: &str = "batch.kubernetes.io/";

const ABOUT_PEERS: &str = "\
# Peers are addresses as the pod saw them. Where one is the address of a Service or of a pod, put a podSelector or
# namespaceSelector in its place: most network plugins compare the pod behind the Service (and its port), some match no
# pod by address, and pods' addresses change.
";

/// One direction, peer and port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Flow {
    egress: bool,
    /// `10.0.0.1/32`.
    cidr: String,
    port: u16,
    proto: &'static str,
}

/// Who a policy is for: namespace and pod, or nothing and the container's name.
type Place = (String, String);

#[derive(Default)]
struct Policy {
    labels: Vec<(String, String)>,
    flows: BTreeSet<Flow>,
}

pub struct Advise {
    addr: BytesField,
    port: NumberField<u16>,
    proto: NumberField<u16>,
    version: NumberField<u8>,
    egress: NumberField<u8>,
    mntns: NumberField<u64>,
    time: NumberField<u64>,
    policies: BTreeMap<Place, Policy>,
    flows: usize,
    /// Flows of nobody that is known, and those that found no room.
    nobodys: u64,
    left_out: u64,
}

impl Decoder for Advise {
    fn open(setup: &mut Setup) -> Result<Self, Error> {
        let flows = setup.source("flows")?;
        Ok(Advise {
            addr: flows.bytes("endpoint.addr_raw")?,
            port: flows.number("endpoint.port")?,
            proto: flows.number("endpoint.proto_raw")?,
            version: flows.number("endpoint.version")?,
            egress: flows.number("egress")?,
            mntns: flows.number("mntns_id")?,
            time: flows.number("timestamp_raw")?,
            policies: BTreeMap::new(),
            flows: 0,
            nobodys: 0,
            left_out: 0,
        })
    }

    fn decode(&mut self, rows: &Rows, _out: &mut Answer) -> Result<(), Error> {
        for row in rows {
            let flow = flow(
                row.bytes(self.addr),
                row.number(self.version),
                row.number(self.port),
                row.number(self.proto),
                row.number(self.egress) != 0,
            );
            let (mntns, time) = (row.number(self.mntns), row.number(self.time));
            let owner = if mntns == 0 { Owner::Nobody } else { host::owner(mntns, time) };
            match (flow, owner) {
                (_, Owner::LeftOut) => {}
                (Some(flow), Owner::Container(container)) => self.keep(flow, container),
                _ => self.nobodys += 1,
            }
        }
        Ok(())
    }

    fn stop(&mut self) -> Result<(), Error> {
        if self.nobodys > 0 {
            let text = format!("{} flows are of no container that is known, and are in no policy", self.nobodys);
            log(Level::Warn, &text);
        }
        if self.left_out > 0 {
            log(Level::Warn, &format!("{} flows found no room and are in no policy", self.left_out));
            host::lost(self.left_out);
        }
        for (place, policy) in &self.policies {
            document(place, policy).publish()?;
        }
        Ok(())
    }
}

impl Advise {
    fn keep(&mut self, flow: Flow, container: Container) {
        let place = match container.pod_name.as_str() {
            "" if container.name.is_empty() => (String::new(), container.id.chars().take(12).collect()),
            "" => (String::new(), container.name),
            _ => (container.pod_namespace, container.pod_name),
        };
        if self.flows == MOST_FLOWS {
            self.left_out += 1;
            return;
        }
        let policy = self.policies.entry(place).or_default();
        if policy.labels.is_empty() {
            policy.labels = container.pod_labels;
            policy.labels.sort();
        }
        self.flows += usize::from(policy.flows.insert(flow));
    }
}

/// `None` for what a policy cannot say.
fn flow(addr: &[u8], version: u8, port: u16, proto: u16, egress: bool) -> Option<Flow> {
    let mut cidr = Vec::new();
    match version {
        4 => text::ipv4(*addr.first_chunk()?, &mut cidr),
        6 => text::ipv6(*addr.first_chunk()?, &mut cidr),
        _ => return None,
    }
    // It is sent by mistake or on purpose, and Kubernetes refuses a policy with it.
    if port == 0 {
        return None;
    }
    cidr.extend_from_slice(if version == 4 { b"/32" } else { b"/128" });
    let proto = match proto {
        6 => "TCP",
        17 => "UDP",
        _ => return None,
    };
    Some(Flow { egress, cidr: String::from_utf8(cidr).ok()?, port, proto })
}

fn document(place: &Place, policy: &Policy) -> Document {
    let (namespace, name) = place;
    let annotations = if namespace.is_empty() { Vec::new() } else { vec![("namespace".to_owned(), namespace.clone())] };
    Document {
        name: name.clone(),
        media_type: "application/yaml".into(),
        annotations,
        text: yaml(namespace, name, policy),
    }
}

fn yaml(namespace: &str, name: &str, policy: &Policy) -> String {
    let mut y = String::from(ABOUT_PEERS);
    y.push_str("apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n");
    y.push_str(&format!("  name: {}\n", quoted(&object_name(name))));
    if !namespace.is_empty() {
        y.push_str(&format!("  namespace: {}\n", quoted(namespace)));
    }
    y.push_str("spec:\n  podSelector:\n    matchLabels:\n");
    let labels: Vec<_> = policy.labels.iter().filter(|(key, _)| stays(key)).collect();
    if labels.is_empty() {
        y.push_str(&format!(
            "      # No labels are known that stay: put those of the pod here.\n      \"app\": {}\n",
            quoted(&label_value(name))
        ));
    }
    for (key, value) in labels {
        y.push_str(&format!("      {}: {}\n", quoted(key), quoted(value)));
    }
    y.push_str("  policyTypes:\n  - Ingress\n  - Egress\n");
    for (egress, heading, peers) in [(false, "ingress", "from"), (true, "egress", "to")] {
        rules(&mut y, policy, egress, heading, peers);
    }
    y
}

/// One rule a port, with all peers that use it.
fn rules(y: &mut String, policy: &Policy, egress: bool, heading: &str, peers: &str) {
    let mut by_port: BTreeMap<(u16, &str), Vec<&str>> = BTreeMap::new();
    for f in policy.flows.iter().filter(|f| f.egress == egress) {
        by_port.entry((f.port, f.proto)).or_default().push(&f.cidr);
    }
    let names: Vec<_> = by_port.extract_if(.., |(port, _), _| egress && *port == DNS).collect();
    if by_port.is_empty() && names.is_empty() {
        // Nothing was seen, so nothing is allowed.
        y.push_str(&format!("  {heading}: []\n"));
        return;
    }
    y.push_str(&format!("  {heading}:\n"));
    if !names.is_empty() {
        y.push_str(
            "  # Names are resolved at a Service's address: to every peer. Long answers come by TCP.\n  - ports:\n",
        );
        for proto in ["TCP", "UDP"] {
            y.push_str(&format!("    - port: {DNS}\n      protocol: {proto}\n"));
        }
        for cidr in names.iter().flat_map(|(_, cidrs)| cidrs).collect::<BTreeSet<_>>() {
            y.push_str(&format!("    # seen: {cidr}\n"));
        }
    }
    for ((port, proto), cidrs) in by_port {
        y.push_str(&format!("  - ports:\n    - port: {port}\n      protocol: {proto}\n    {peers}:\n"));
        for cidr in cidrs {
            y.push_str(&format!("    - ipBlock:\n        cidr: {}\n", quoted(cidr)));
        }
    }
}

/// Whether a label is still the pod's after a rollout.
fn stays(key: &str) -> bool {
    !PASSING_LABELS.contains(&key) && !key.starts_with(PASSING_PREFIX)
}

/// What Kubernetes takes as the value of a label: up to 63 letters, digits, hyphens, dots and underscores, beginning and
/// ending with a letter or digit.
fn label_value(name: &str) -> String {
    let fits = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    let cut: String =
        name.trim_start_matches(|c: char| !c.is_ascii_alphanumeric()).chars().map(fits).take(63).collect();
    cut.trim_end_matches(['-', '_', '.']).to_owned()
}

/// What Kubernetes takes as the name of an object: up to 253 lower-case letters, digits and hyphens, beginning and ending
/// with no hyphen. Cut no shorter, because replicas differ at the end.
fn object_name(name: &str) -> String {
    let fits = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let cut: String = name.chars().map(fits).take(245).collect();
    let cut = cut.trim_matches('-');
    if cut.is_empty() { "network".to_owned() } else { format!("{cut}-network") }
}

/// A double-quoted YAML scalar.
fn quoted(text: &str) -> String {
    let mut q = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => q.extend(['\\', c]),
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}') => {
                q.push_str(&format!("\\u{:04x}", c as u32))
            }
            c => q.push(c),
        }
    }
    q.push('"');
    q
}

gadget_sdk::export!(Advise);

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> Policy {
        let mut p = Policy::default();
        for (addr, port, proto, egress) in [
            ([10, 0, 0, 7], 443, 6, true),
            ([10, 0, 0, 3], 443, 6, true),
            ([10, 0, 0, 1], 53, 17, true),
            ([10, 0, 0, 9], 8080, 6, false),
        ] {
            p.flows.insert(flow(&addr, 4, port, proto, egress).unwrap());
        }
        p
    }

    #[test]
    fn a_policy_allows_what_was_seen_and_nothing_else() {
        let mut p = policy();
        let labels = [
            ("app", "shop \"1\""),
            ("pod-template-hash", "7d9f"),
            ("statefulset.kubernetes.io/pod-name", "shop-0"),
            ("batch.kubernetes.io/job-name", "shop-1"),
        ];
        p.labels = labels.map(|(k, v)| (k.into(), v.into())).into();
        assert_eq!(
            yaml("prod", "shop-7d9", &p),
            ABOUT_PEERS.to_owned()
                + r#"apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: "shop-7d9-network"
  namespace: "prod"
spec:
  podSelector:
    matchLabels:
      "app": "shop \"1\""
  policyTypes:
  - Ingress
  - Egress
  ingress:
  - ports:
    - port: 8080
      protocol: TCP
    from:
    - ipBlock:
        cidr: "10.0.0.9/32"
  egress:
  # Names are resolved at a Service's address: to every peer. Long answers come by TCP.
  - ports:
    - port: 53
      protocol: TCP
    - port: 53
      protocol: UDP
    # seen: 10.0.0.1/32
  - ports:
    - port: 443
      protocol: TCP
    to:
    - ipBlock:
        cidr: "10.0.0.3/32"
    - ipBlock:
        cidr: "10.0.0.7/32"
"#
        );
        let nothing = yaml("", "x", &Policy::default());
        assert!(nothing.contains("  ingress: []\n  egress: []\n") && nothing.contains("\"app\": \"x\""), "{nothing}");
    }

    #[test]
    fn a_server_of_names_names_its_clients() {
        let mut p = Policy::default();
        p.flows.insert(flow(&[10, 0, 0, 9], 4, 53, 17, false).unwrap());
        let y = yaml("", "dns", &p);
        assert!(y.contains("protocol: UDP\n    from:\n    - ipBlock:\n        cidr: \"10.0.0.9/32\""), "{y}");
        assert!(y.ends_with("  egress: []\n"), "{y}");
    }

    #[test]
    fn labels_that_pass_are_none() {
        let mut p = policy();
        p.labels = vec![("pod-template-hash".into(), "7d9f".into())];
        let y = yaml("prod", "-shop_", &p);
        assert!(
            y.contains("      # No labels are known that stay: put those of the pod here.\n      \"app\": \"shop\"\n"),
            "{y}"
        );
        assert!(!y.contains("7d9f"), "{y}");
        assert_eq!(label_value(&format!("{}-_.", "y".repeat(61))).len(), 61);
    }

    #[test]
    fn only_what_a_policy_can_say_is_a_flow() {
        let mut six = [0; 16];
        six[0] = 0xfd;
        six[15] = 1;
        assert_eq!(flow(&six, 6, 1, 17, false).unwrap().cidr, "fd00::1/128");
        assert!(flow(&six, 5, 1, 17, false).is_none());
        assert!(flow(&six, 6, 1, 58, false).is_none());
        assert!(flow(&[1, 2], 4, 1, 6, false).is_none());
        assert!(flow(&six, 6, 0, 17, false).is_none(), "no port");
    }

    #[test]
    fn foreign_names_cannot_break_out_of_the_yaml() {
        assert_eq!(quoted("a\"\n- b: \\\u{85}"), "\"a\\\"\\u000a- b: \\\\\\u0085\"");
        assert_eq!(object_name("Web_1.example"), "web-1-example-network");
        assert_eq!(object_name("___"), "network");
        assert!(object_name(&"x".repeat(300)).len() == 253);
    }
}
