# The front door. Each target installs what it needs (Debian packages, see scripts/setup); the logic is in scripts/ and in ig itself.
.PHONY: help run build gadgets test test-fast test-full test-vm vm-shell fuzz bench setup
out := $(or $(CARGO_TARGET_DIR),target)/release
# Downloads of crates are tried again when the registry is away for a moment.
export CARGO_NET_RETRY ?= 10
# One place for what building guests leaves, so that the Wasm standard library is built once.
export IG_WASM_TARGET_DIR := $(abspath $(or $(CARGO_TARGET_DIR),target))/wasm

help:
	@echo "make run        build, then trace every program that starts, with a demo workload"
	@echo "make build      static $(out)/ig and $(out)/gadgetctl, the gadget catalogue embedded"
	@echo "make gadgets    only the gadgets, into the binary that is built already"
	@echo "make test       everything: format, lints, unit tests, end-to-end tests as root"
	@echo "make test-fast  what needs neither root nor a release build"
	@echo "make test-full  the end-to-end tests at full scale (100,000 execs, 1,000,000 opens)"
	@echo "make test-vm    all tests of all gadgets on other kernels in QEMU: 5.10, 6.1, 6.12 and Debian's newest"
	@echo "make vm-shell   a shell in such a machine; KERNEL=bullseye|bookworm|trixie|sid"
	@echo "make fuzz       fuzz the parsers of foreign bytes, FUZZ_SECONDS=60 of each"
	@echo "make bench      measure against opensnoop and the floor reader; report in target/bench/report.md"

setup:
	@scripts/setup build run test vm bench

build:
	@scripts/setup build
	@scripts/build all

gadgets:
	@scripts/setup build
	@scripts/build gadgets

run:
	@scripts/setup build run
	@scripts/build all
	@scripts/demo

test-fast:
	@scripts/setup build
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo test --workspace --lib --bins --locked
	cargo test --workspace --doc --locked
	cargo test --workspace --test house --locked

test: test-fast
	@scripts/setup build test vm fuzz
	@scripts/fuzz check
	@scripts/build all
	@scripts/e2e

test-full:
	@scripts/setup build test vm
	@scripts/build all
	@IG_TEST_SCALE=full scripts/e2e

test-vm:
	@scripts/setup build vm
	@scripts/build all
	@IG_VM_EVERY=$${IG_VM_EVERY:-1} IG_BIN=$$(realpath $(out)/ig) cargo test -p ig-tests --test vm --locked -- --test-threads=1 --include-ignored --nocapture

KERNEL ?= bookworm
vm-shell:
	@scripts/setup build vm
	@scripts/build all
	@cargo build -q -p ig-tests --bins --locked
	@IG_BIN=$$(realpath $(out)/ig) cargo run -q -p ig-tests --bin vm --locked -- $(KERNEL)

fuzz:
	@scripts/setup build fuzz
	@scripts/fuzz $(or $(FUZZ_SECONDS),60)

bench:
	@scripts/setup build bench
	@scripts/build all
	@tests/bench/run
