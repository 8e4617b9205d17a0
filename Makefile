# make demo | test | check | bench | probe: each sets up what it needs (Debian, root, a Rust toolchain) and is quick when run again.
SHELL := /bin/sh
.DELETE_ON_ERROR:
.SUFFIXES:
.PHONY: all setup build check test test-node test-trust test-escape test-programs demo bench probe fuzz mutants audit clean

TARGET := x86_64-unknown-linux-musl
# One target folder, one target triple, so that nothing is built twice.
CARGO := cargo
BUILD := $(CARGO) build --locked --target $(TARGET)
PROGRAMS := -p containerd-shim-boltseal -p boltseal-gate -p boltseal-cli -p boltseal-fetch
BINARIES := containerd-shim-boltseal-v1 boltseal-runtime boltseal boltseal-fetch
# FEATURES=keyless: signatures by certificates of Sigstore's CA.
FEATURES ?=
with = $(foreach crate,gate cli fetch,--features boltseal-$(crate)/$(1))

all: build

setup:
	@integration/tools/setup.sh

# Static binaries in target/$(TARGET)/release/.
build: setup
	$(BUILD) --release $(PROGRAMS) $(if $(FEATURES),$(call with,$(FEATURES)))

check: setup
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets --target $(TARGET) -- -D warnings
	$(CARGO) clippy --locked $(PROGRAMS) $(call with,keyless) --all-targets --target $(TARGET) -- -D warnings
	@integration/tools/cargo-deny.sh --offline check bans licenses sources

# Unit tests, then the fuzz targets (corpora replayed, a minute of new input), then the main job on real containerds. One choice of
# crates for all three: another one has other features, and would be built anew from the bottom.
TESTS := $(CARGO) test --locked --workspace $(addprefix --exclude boltseal-,demo bench) --target $(TARGET)
test: build
	$(TESTS)
	$(TESTS) --test minute -- replay
	$(TESTS) --test minute -- run --seconds 60
	$(TESTS) --test main

# Every signature format with what must be accepted and refused: by boltseal, and by cosign, notation or sigstore-go side by side;
# keyless ones also at a start, by programs with the feature, which are kept in a folder of their own, and by those without.
TRUST := $(BUILD) --quiet -p boltseal-integration-tests $(PROGRAMS) $(addprefix --bin ,$(BINARIES))
test-trust: setup
	@$(TRUST) $(call with,keyless)
	@mkdir -p target/$(TARGET)/debug/keyless
	@cp $(addprefix target/$(TARGET)/debug/,$(BINARIES)) target/$(TARGET)/debug/keyless/
	@$(TRUST) --bin boltseal-test-trust
	@target/$(TARGET)/debug/boltseal-test-trust

# A virtual machine with measured boot, booted once for each thing that can be changed about it.
test-node: build
	integration/node/packages.sh
	$(BUILD) -p boltseal-test-node
	target/$(TARGET)/debug/boltseal-test-node

# Every known escape, on boltseal, on runc and crun, and on a control in which it succeeds; writes integration/cves/README.md.
test-escape: build
	@$(BUILD) --quiet -p boltseal-cves
	@target/$(TARGET)/debug/boltseal-cves

# Real programs out of Debian packages serve under the shipped policy; the allowances of profiles/allowances, each with its twin.
test-programs: build
	integration/tools/fetch-programs.sh
	$(CARGO) test --locked -p boltseal-integration-tests --target $(TARGET) --test programs

demo: build
	@$(BUILD) --quiet -p boltseal-demo
	@target/$(TARGET)/debug/boltseal-demo

bench: build
	integration/bench/peer.sh
	@$(BUILD) --quiet --profile quick -p boltseal-bench
	@target/$(TARGET)/quick/boltseal-bench

# What a container can still do under runc, crun, gVisor's runsc and boltseal, side by side.
probe: build
	@$(BUILD) --quiet -p boltseal-probe
	@target/$(TARGET)/debug/boltseal-score

# Another seed each time; the run says which. For hours: make fuzz SECONDS=14400.
fuzz: SECONDS ?= 600
fuzz: setup
	$(BUILD) -p boltseal-fuzz
	target/$(TARGET)/debug/boltseal-fuzz run --seconds $(SECONDS) --seed "$$(date +%s)"

# The code that decides, changed in one spot at a time: a unit test must notice. Hours, goes on where it was ended; see integration/mutants/.
mutants: setup
	@integration/tools/mutants.sh

# Known vulnerabilities of dependencies: needs the advisory database, and says so where it cannot be had.
audit: setup
	@integration/tools/cargo-deny.sh fetch || { echo 'audit: not run (the advisory database cannot be reached)'; exit 1; }
	@integration/tools/cargo-deny.sh check advisories

clean:
	$(CARGO) clean
