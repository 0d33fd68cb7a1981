//! What the image tests share: a tiny gadget's folder, and building it.

use std::fs;
use std::path::{Path, PathBuf};

use ig_runtime::image::{Arch, BuildRequest, Built, ImageContent, NameRules, Reference, Toolchain, build};
use tempfile::TempDir;

pub(crate) const PROGRAM: &str = r#"
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct event {
	__u64 when;
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} events SEC(".maps");

const volatile int verbose = 0;
const void *gadget_param_verbose __attribute__((unused));
const void *gadget_tracer_tiny___events___event __attribute__((unused));

SEC("raw_tp/sys_enter")
int tiny_enter(void *ctx)
{
	struct event *event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);

	if (!event)
		return 0;
	event->when = verbose ? bpf_ktime_get_ns() : 0;
	bpf_ringbuf_submit(event, 0);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
"#;

pub(crate) const METADATA: &str = "name: tiny gadget
description: one event per system call
homepageURL: https://example.org/
datasources:
  tiny:
    fields:
      when:
        annotations:
          columns.hidden: true
params:
  ebpf:
    verbose:
      key: verbose
      defaultValue: 0
";

/// A folder with a gadget whose metadata is `metadata`.
pub(crate) fn gadget_dir(metadata: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("gadget.yaml"), metadata).unwrap();
    fs::write(dir.path().join("program.bpf.c"), PROGRAM).unwrap();
    dir
}

pub(crate) fn try_build(dir: &Path, archs: &[Arch]) -> Result<Built, ig_runtime::image::BuildError> {
    let toolchain = Toolchain::default();
    build(&BuildRequest {
        dir,
        archs,
        toolchain: &toolchain,
        wasm: &|dir| Err(format!("no Wasm compiler in this test, asked for {}", dir.display()).into()),
        builder_version: "ig test",
        source_date_epoch: None,
    })
}

/// The tiny gadget, built for this machine.
pub(crate) fn tiny() -> ImageContent {
    let dir = gadget_dir(METADATA);
    try_build(dir.path(), &[Arch::host()]).unwrap().image
}

pub(crate) fn reference(text: &str) -> Reference {
    Reference::parse(text, &NameRules::default()).unwrap()
}

/// Every file below a directory, relative to it, sorted.
pub(crate) fn files(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(next) = todo.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                todo.push(path);
            } else {
                found.push(path.strip_prefix(dir).unwrap().display().to_string());
            }
        }
    }
    found.sort();
    found
}
