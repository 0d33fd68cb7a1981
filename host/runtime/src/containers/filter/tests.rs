//! Selections of containers made for the test.

use super::*;
use crate::containers::container::{Pod, RuntimeName};
use std::sync::Arc;

fn container(name: Option<&str>, complete: bool) -> Container {
    let mut c = Container::new(1, "id".into(), RuntimeName::Docker, 1);
    c.name = name.map(Into::into);
    c.complete = complete;
    c
}

fn in_pod(labels: Option<&[(&str, &str)]>) -> Container {
    let mut c = container(Some("c"), true);
    let labels = labels.map(|all| all.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect());
    c.pod = Some(Arc::new(Pod {
        namespace: "shop".into(),
        name: "web-0".into(),
        container_name: "nginx".into(),
        labels,
        ..Pod::default()
    }));
    c
}

fn verdict(list: &str, name: &str) -> Verdict {
    Selector::parse(list).unwrap().verdict(&container(Some(name), true))
}

#[test]
fn lists_and_exclusions() {
    use Verdict::{No, Yes};
    for (list, name, expected) in [
        ("", "web", Yes),
        ("web", "web", Yes),
        ("web", "web2", No),
        ("web", "We", No),
        ("web,db", "db", Yes),
        (" web , db ", "db", Yes),
        ("!web", "db", Yes),
        ("!web", "web", No),
        ("!web,!db", "db", No),
        ("web,!db", "other", No),
        ("1000/web", "1000/web", Yes),
        ("web", "1000/web", No),
    ] {
        assert_eq!(verdict(list, name), expected, "`{list}` on {name}");
    }
}

#[test]
fn an_unknown_name_leaves_it_open_also_when_its_time_is_up() {
    for list in ["web", "!web"] {
        let s = Selector::parse(list).unwrap();
        assert_eq!(s.verdict(&container(None, false)), Verdict::Unknown);
        assert_eq!(s.verdict(&container(None, true)), Verdict::Unknown, "it may be the one");
    }
    assert_eq!(Selector::all().verdict(&container(None, false)), Verdict::Yes);
}

#[test]
fn senseless_lists_are_errors() {
    for list in [",", "web,", "!", "a,,b", " "] {
        assert!(matches!(Selector::parse(list), Err(SelectorError::Empty { .. })), "`{list}`");
    }
    let e = Selector::parse("a,!a").unwrap_err();
    assert_eq!(e.to_string(), "container name `a` is both asked for and excluded in `a,!a`");
}

#[test]
fn digests_are_compared_by_twelve_digits_or_more_with_or_without_their_algorithm() {
    let digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    for attribute in [Attribute::ImageDigest, Attribute::ImageId] {
        let mut c = container(Some("c"), true);
        let mut set = |value: Option<&str>, answer| {
            let place = if attribute == Attribute::ImageId { &mut c.image_id } else { &mut c.image_digest };
            *place = value.map(Into::into);
            c.image_answer = answer;
            c.clone()
        };
        let known = set(Some(digest), ImageAnswer::Given);
        let on = |list: &str, c: &Container| Selector::all().and(attribute, list).unwrap().verdict(c);
        for list in ["0123456789ab", "sha256:0123456789ab", "0123456789AB", digest, "ffffffffffff,0123456789abcd"] {
            assert_eq!(on(list, &known), Verdict::Yes, "{list}");
            assert_eq!(on(&format!("!{}", list.rsplit(',').next().unwrap()), &known), Verdict::No, "!{list}");
        }
        for list in ["1123456789ab", "0123456789abcc"] {
            assert_eq!(on(list, &known), Verdict::No, "{list}");
        }
        for answer in [ImageAnswer::Awaited, ImageAnswer::TimeUp] {
            let open = set(None, answer);
            assert_eq!(on("0123456789ab", &open), Verdict::Unknown);
            assert_eq!(on("!0123456789ab", &open), Verdict::Unknown);
        }
        let none = set(None, ImageAnswer::Given);
        assert_eq!(on("0123456789ab", &none), Verdict::No);
        assert_eq!(on("!0123456789ab", &none), Verdict::Yes);
    }
    for bad in ["0123456789a", "sha256:", "nginx", "0123456789ag", &"0".repeat(65)] {
        let e = Selector::all().and(Attribute::ImageId, bad).unwrap_err();
        assert!(matches!(e, SelectorError::NotADigest { .. }), "{bad}: {e}");
        assert!(e.hint().unwrap().contains("12"));
    }
}

#[test]
fn attributes_of_pods_rule_out_what_is_in_none() {
    use Verdict::{No, Unknown, Yes};
    for (attribute, value) in
        [(Attribute::PodNamespace, "shop"), (Attribute::PodName, "web-0"), (Attribute::PodContainerName, "nginx")]
    {
        let (is, is_not) = (value.to_owned(), format!("!{value}"));
        let on = |list: &str, c: &Container| Selector::all().and(attribute, list).unwrap().verdict(c);
        let pod = in_pod(None);
        assert_eq!((on(&is, &pod), on(&is_not, &pod), on("other", &pod), on("!other", &pod)), (Yes, No, No, Yes));
        let none = container(Some("c"), true);
        assert_eq!((on(&is, &none), on(&is_not, &none), on("!other", &none)), (No, No, No));
        let open = container(None, false);
        assert_eq!((on(&is, &open), on(&is_not, &open)), (Unknown, Unknown));
    }
}

#[test]
fn labels_must_all_hold_and_may_be_unknown() {
    use Verdict::{No, Unknown, Yes};
    let pod = in_pod(Some(&[("app", "web"), ("tier", "front"), ("empty", "")]));
    for (list, expected) in [
        ("app=web", Yes),
        ("app=web,tier=front", Yes),
        ("app=web,tier=back", No),
        ("!app=web", No),
        ("app=!web", No),
        ("app=!db,app=!cache", Yes),
        ("!app=db,tier=front", Yes),
        ("other=x", No),
        ("!other=x", Yes),
        ("empty=", Yes),
        (" app = web , tier = front ", Yes),
    ] {
        let s = Selector::all().and_labels(list).unwrap();
        assert_eq!(s.verdict(&pod), expected, "{list}");
        assert_eq!(s.verdict(&in_pod(None)), Unknown, "{list}");
        assert_eq!(s.verdict(&container(Some("c"), true)), No, "{list} outside every pod");
        assert_eq!(s.verdict(&container(None, false)), Unknown, "{list}");
    }
    for bad in ["app", "", "=web", "!=web", "!app=!web", "app=web,", "app==web"] {
        assert!(matches!(Selector::all().and_labels(bad), Err(SelectorError::NotALabel { .. })), "`{bad}`");
    }
    assert!(matches!(Selector::all().and_labels("a=1,a=2"), Err(SelectorError::TwoValues { .. })));
    assert!(matches!(Selector::all().and_labels("a=1,!a=1"), Err(SelectorError::Contradiction { .. })));
}

#[test]
fn several_conditions_must_all_hold_and_one_no_decides() {
    let s = Selector::parse("web").unwrap().and(Attribute::PodNamespace, "shop").unwrap();
    let mut c = in_pod(None);
    assert_eq!(s.verdict(&c), Verdict::No);
    c.name = Some("web".into());
    assert_eq!(s.verdict(&c), Verdict::Yes);
    c.name = None;
    assert_eq!(s.verdict(&c), Verdict::Unknown);
    c.pod = None;
    assert_eq!(s.verdict(&c), Verdict::No, "whatever its name will be");
}
