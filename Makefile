# Everything a newcomer needs: `make demo` to see it work, `make test` to know that it does.
# Each target installs what it needs on a Debian machine that has a Rust toolchain, and says what it installs.

SHELL := /bin/bash
CARGO ?= cargo
# Reproducible builds: Cargo.lock is law. `make test CARGO_FLAGS=--offline` adds to it.
CARGO_FLAGS ?=
LOCKED := --locked $(CARGO_FLAGS)
SMELT := $${CARGO_TARGET_DIR:-target}/debug/smelt

.PHONY: help demo build test check crash bench fmt setup

help: ## this list
	@awk -F':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: build ## the sample telecom pipeline, live, in a temporary lake
	@exec $(SMELT) demo

build: ## the smelt binary, in target/debug (optimised all the same)
	@scripts/setup.sh build
	@test -x $(SMELT) || echo "The first build compiles DataFusion, Arrow and librdkafka: about 25 minutes on 2 cores; later ones take a few."
	$(CARGO) build $(LOCKED)

test: check ## format, lints, docs, and all tests against real services
	SMELT_REQUIRE_SERVICES=1 $(CARGO) test $(LOCKED)

check: setup ## format, lints and docs only
	$(CARGO) fmt --check
	$(CARGO) clippy $(LOCKED) --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc $(LOCKED) --no-deps

crash: setup ## the long crash run: at least 30 kills while 2 million events flow
	SMELT_REQUIRE_SERVICES=1 $(CARGO) test $(LOCKED) --test it -- --ignored --nocapture --test-threads=1 crash::long

bench: setup ## figures: rows per second, CPU per row, latency, start-up
	$(CARGO) bench $(LOCKED)

fmt: ## formats the code
	$(CARGO) fmt

setup: ## installs what building and testing need
	@scripts/setup.sh test
