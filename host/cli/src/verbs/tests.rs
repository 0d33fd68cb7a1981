//! The table against the gadgets it names, and lines before and after.

use super::*;
use clap::CommandFactory;
use std::path::Path;

fn new(line: &str) -> String {
    let args: Vec<OsString> = line.split(' ').map(Into::into).collect();
    let translated = translate(&args).unwrap_or_else(|e| panic!("{line}: {}", e.message));
    let args = translated.unwrap_or_else(|| panic!("{line} has no verb")).args;
    args.iter().map(|a| a.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

fn refused(line: &str) -> CliError {
    let args: Vec<OsString> = line.split(' ').map(Into::into).collect();
    translate(&args).expect_err(line)
}

#[test]
fn a_verb_becomes_its_gadget_and_other_words_stay() {
    for (old, today) in [
        ("ig trace exec", "ig run trace_exec"),
        ("ig -v --store /s trace --config=c exec -c web", "ig -v --store /s --config=c run trace_exec -c web"),
        ("ig traceloop -t 3", "ig run traceloop -t 3"),
        ("ig trace exec -o custom-columns=pid -- x", "ig run trace_exec -o custom-columns=pid -- x"),
        ("ig top ebpf --sort -runtime", "ig run bpfstats --sort -runtime"),
        ("ig advise seccomp-profile --help", "ig run advise_seccomp --help"),
    ] {
        assert_eq!(new(old), today);
    }
    for line in
        ["ig", "ig run trace", "ig trace", "ig trace --help", "ig help trace", "ig --help trace exec", "ig trace exce"]
    {
        let args: Vec<OsString> = line.split(' ').map(Into::into).collect();
        assert!(translate(&args).unwrap().is_none(), "{line}");
    }
}

#[test]
fn old_flags_become_todays() {
    for (old, today) in [
        ("ig snapshot process -t", "ig run snapshot_process --threads=true"),
        ("ig snapshot process --threads=false --timeout 3", "ig run snapshot_process --threads=false --timeout 3"),
        ("ig trace exec --cwd", "ig run trace_exec --paths=true --fields=+cwd"),
        ("ig trace exec --cwd -o columns=pid,cwd", "ig run trace_exec --paths=true -o columns=pid,cwd"),
        ("ig trace exec --cwd -ocolumns=pid", "ig run trace_exec --paths=true -ocolumns=pid"),
        ("ig trace exec --cwd --fields cwd", "ig run trace_exec --paths=true --fields cwd"),
        ("ig trace open --full-path -- x", "ig run trace_open --paths=true --fields=+fpath -- x"),
        ("ig trace bind -P 80,443 -i=false", "ig run trace_bind --ports=80,443 --ignore-errors=false"),
        ("ig trace bind -iP80 -v", "ig run trace_bind --ignore-errors=true --ports=80 -v"),
        ("ig trace signal -fk --pid 3", "ig run trace_signal --failed=true --kill-only=true --pid 3"),
        ("ig trace signal -fo json", "ig run trace_signal --failed=true -o json"),
        ("ig top file --interval 5 --max-rows=3", "ig run top_file --interval=5s --max-entries=3"),
        ("ig top file --interval 500ms", "ig run top_file --interval=500ms"),
        ("ig top tcp --sort -f -f 4", "ig run top_tcp --sort -f --family=4"),
        ("ig profile tcprtt -m -p80 --rport 443", "ig run profile_tcprtt --ms=true --sport=80 --dport=443"),
        ("ig profile cpu -U", "ig run profile_cpu --user-stacks-only=true"),
    ] {
        assert_eq!(new(old), today);
    }
}

#[test]
fn what_is_no_more_says_what_to_do_instead() {
    for line in [
        "ig trace fsslower",
        "ig trace network -v",
        "ig script -e x",
        "ig prometheus",
        "ig profile tcprtt -mb",
        "ig trace dns --dns-timeout 5s",
        "ig trace dns --dns-timeout=5s",
    ] {
        let e = refused(line);
        assert!(e.hint.is_some(), "{line}: {}", e.message);
    }
    for line in ["ig top file --interval", "ig trace signal -f=maybe", "ig top file --max-rows", "ig trace bind -P"] {
        let e = refused(line);
        assert_eq!(e.kind, crate::error::Kind::User, "{line}");
        assert!(e.message.contains("ig t"), "{line}: {}", e.message);
    }
}

#[test]
fn every_verb_names_a_gadget_that_has_the_flags() {
    let gadgets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../gadgets");
    let run = crate::args::Cli::command();
    let run = run.find_subcommand("run").unwrap();
    for verb in VERBS {
        let yaml = std::fs::read_to_string(gadgets.join(verb.image).join("gadget.yaml"));
        let yaml = yaml.unwrap_or_else(|e| panic!("{verb}: gadget {}: {e}", verb.image));
        for flag in verb.flags.iter().copied().flatten() {
            let flags: Vec<String> = match flag.to {
                To::Flag(new) | To::Seconds(new) => vec![new.to_owned()],
                To::Shown { param, fields } => {
                    for field in fields {
                        assert!(yaml.contains(&format!("      {field}:\n")), "{verb}: no field {field}");
                    }
                    param.map(str::to_owned).into_iter().collect()
                }
                To::Nothing(_) => continue,
            };
            for flag in flags {
                let ours = run.get_arguments().any(|a| a.get_long() == Some(&flag));
                let tables = crate::tables::any_flags("").iter().any(|a| a.get_long() == Some(&flag));
                assert!(ours || tables || yaml.contains(&format!("key: {flag}\n")), "{verb}: no flag --{flag}");
            }
        }
    }
}

#[test]
fn verbs_are_in_order_and_clap_takes_them() {
    let key = |v: &&Verb| (v.category.is_empty(), v.category, v.name);
    assert!(VERBS.iter().collect::<Vec<_>>().is_sorted_by_key(key));
    assert!(CATEGORIES.is_sorted());
    let command = extend(crate::args::Cli::command());
    command.clone().debug_assert();
    for (category, _) in CATEGORIES {
        let found = command.find_subcommand(category).map(|c| c.get_subcommands().count());
        assert_ne!(found.unwrap_or(0), 0, "{category}");
    }
}

#[test]
fn help_lists_the_verbs() {
    let mut command = extend(crate::args::Cli::command()).term_width(100);
    let top = command.render_help().to_string();
    let commands = |text: &str| text.split("Commands:").nth(1).and_then(|t| t.split("\n\n").next()).map(str::to_owned);
    let mut text = format!("ig:{}\n", commands(&top).unwrap());
    for (category, _) in CATEGORIES {
        let help = command.find_subcommand_mut(category).unwrap().render_help().to_string();
        text.push_str(&format!("ig {category}:{}\n", commands(&help).unwrap()));
    }
    for verb in VERBS {
        let flags = old_flags(verb);
        if !flags.is_empty() {
            text.push_str(&format!("{verb} --help ends with:\n{flags}\n"));
        }
    }
    insta::assert_snapshot!(text);
}
