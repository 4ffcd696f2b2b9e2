# make serve   run the service        make test    everything a change must pass
# Both fetch what they need into .runtime/ and start what they need by themselves.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

export PATH := $(CURDIR)/.runtime/bin:$(PATH)
# nextest where it is installed, cargo's own runner elsewhere. Tests of whole processes wait for a quarter of their time, so
# there are more of them than cores.
THREADS := $(shell echo $$(( ($$(nproc 2>/dev/null || echo 2) * 3 + 1) / 2 )))
TEST := $(shell command -v cargo-nextest >/dev/null 2>&1 && echo "nextest run --test-threads $(THREADS)" || echo "test")
MINUTES ?= 10
EXAMPLES ?= 15
SAMPLES ?= 2000
FAULTS ?= 80
ENGINE ?= simulated
SEED ?= 1
FOLDER ?= target/screenshots
EXPORT_PYTHON := .runtime/export/bin/python

# The official builds of ONNX Runtime send telemetry otherwise.
export ORT_DISABLE_TELEMETRY := 1

.PHONY: help setup serve build cluster test test-all check style screenshots contract docker-test fuzz soak scale-demo chaos dashboards openapi bench parity export-setup export-test reward-clients python-test wheel demo-pack demo-weights demo-generator generator-demo clean

help:  ## List the recipes
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-14s %s\n", $$1, $$2 }'

setup:  ## Fetch the ONNX Runtime library and build tools into .runtime/
	@scripts/setup.sh

build: setup  ## Build the optimised program
	cargo build --release --locked

serve: build  ## Run the service with the configured pack (default: the demo pack)
	target/release/stellar-score serve

check: style  ## Formatting, lints, spelling, widths, links, import circles, dependencies
	cargo clippy --workspace --locked --quiet --all-targets -- -D warnings

style: setup
	cargo fmt --all --check
	python3 scripts/check_text.py
	python3 scripts/check_imports.py
	scripts/tools.sh

# Lints come from the compilation of the tests: clippy's driver is a compiler too. `cargo clippy` would compile all
# dependencies a second time in a clean clone, which takes minutes.
LINTED := RUSTC_WORKSPACE_WRAPPER=clippy-driver CLIPPY_ARGS=-Dwarnings__CLIPPY_HACKERY__

test: style  ## Everything a change must pass, on SQLite and PostgreSQL
	$(LINTED) cargo build --workspace --locked --quiet --all-targets
	$(LINTED) scripts/postgres.sh run scripts/nats.sh run cargo $(TEST) --workspace --locked
	scripts/contract.py
	scripts/chaos.py --program target/debug/stellar-score --samples 240 --faults 12 --minutes 0.35 --seed 1
	scripts/postgres.sh run scripts/dashboards_check.py
	scripts/browser_check.py --quick
	scripts/python_test.sh

screenshots: setup  ## Every page in every state as a picture: make screenshots FOLDER=target/screenshots
	cargo build --locked
	scripts/browser_check.py --screenshots $(FOLDER)

contract: setup  ## The service against openapi/openapi.json: make contract EXAMPLES=100
	cargo build --locked
	scripts/contract.py --examples $(EXAMPLES)

fuzz: setup  ## Every parser of foreign bytes for so long in all: make fuzz MINUTES=50
	FUZZ_SECONDS=$$(( $(MINUTES) * 60 / 12 )) cargo test --release --locked --test hostile fuzz:: -- --nocapture --test-threads 1

soak: build  ## Two instances on PostgreSQL under load and random kills: make soak MINUTES=60
	scripts/postgres.sh run sh -c 'scripts/soak.py --minutes $(MINUTES) --postgres "$$TEST_DATABASE_URL"'

cluster: build
	cargo build --release --locked -p stellar-s3-server

scale-demo: cluster  ## Four workers, NATS, PostgreSQL and an object store here; two workers are killed, and the scores compared
	scripts/scale_demo.py

chaos: cluster  ## A cluster under random faults: make chaos SAMPLES=20000 FAULTS=300 MINUTES=40 ENGINE=simulated SEED=1
	scripts/chaos.py --samples $(SAMPLES) --faults $(FAULTS) --minutes $(MINUTES) --engine $(ENGINE) --seed $(SEED)

docker-test:  ## Build the images and use them through compose: make docker-test CUDA=1 EXPORT=1
	scripts/docker_test.sh $(if $(CUDA),--cuda) $(if $(EXPORT),--export)

test-all: test soak fuzz export-test  ## test and the long proofs: make test-all MINUTES=60
	OMP_WAIT_POLICY=passive $(EXPORT_PYTHON) -m pytest export/tests -m slow
	$(MAKE) docker-test CUDA=1 EXPORT=1
	scripts/contract.py --examples 200
	scripts/browser_check.py
	scripts/overload.py
	$(MAKE) chaos SAMPLES=20000 FAULTS=300 MINUTES=40 ENGINE=simulated
	$(MAKE) chaos SAMPLES=500 FAULTS=60 MINUTES=15 ENGINE=real
	scripts/proxy_test.sh --program target/release/stellar-score --slow 65

dashboards:  ## Write Grafana's dashboards from scripts/dashboards.py
	scripts/dashboards.py

openapi: setup  ## Write openapi/openapi.json from the code, and the types of the Python client
	cargo run --quiet --locked -- openapi > openapi/openapi.json
	python3 python/tools/models.py

parity: build  ## Score the demo pack's golden samples and compare with the original programs
	target/release/stellar-score pack verify

bench: setup  ## All benchmarks; docs/BENCHMARKS.md says what they mean
	scripts/bench.sh

export-setup:  ## Python environment of the exporter (PyTorch: 3 GB)
	@scripts/export_setup.sh

demo-pack: export-setup  ## Rebuild the demo pack with its golden samples, from the weights in export/
	cd export && ../$(EXPORT_PYTHON) -m stellar_export demo --out ../packs/demo

demo-generator: export-setup  ## Rebuild the demo generator pack with its golden pictures
	cd export && ../$(EXPORT_PYTHON) -m stellar_export demo-generator --out ../packs/demo-generator

generator-demo: build export-setup  ## Train tiny generators on drawings and put them on a leaderboard, from nothing
	$(EXPORT_PYTHON) -W ignore scripts/generator_demo.py

demo-weights: setup export-setup  ## Draw, train the demo pack's weights, build the pack and print how well it tells right from wrong
	cargo run --release --locked -p stellar-drawings --example drawings -- target/drawings
	cd export && OMP_NUM_THREADS=1 ../$(EXPORT_PYTHON) -W ignore -m stellar_export.drawn_world train --drawings ../target/drawings
	$(MAKE) demo-pack
	cd export && OMP_NUM_THREADS=1 ../$(EXPORT_PYTHON) -W ignore -m stellar_export.drawn_world evaluate --drawings ../target/drawings

reward-clients: build export-setup  ## The trainers' own reward clients, fetched from GitHub, against the adapters: make reward-clients SOURCES=folder
	$(EXPORT_PYTHON) scripts/reward_clients.py $(if $(SOURCES),--sources $(SOURCES))

export-test: export-setup  ## Tests of the exporter, and those of the Python client that need PyTorch
	OMP_WAIT_POLICY=passive $(EXPORT_PYTHON) -m pytest export/tests
	$(EXPORT_PYTHON) -m pytest -c python/pyproject.toml python/tests/test_torch.py

wheel: setup  ## A wheel with client, service and demo pack, in target/wheels: make wheel GPU=1
	scripts/wheel.py $(if $(GPU),--gpu)

python-test: setup  ## Lints, types and tests of the Python client, with the service
	cargo build --locked --quiet
	scripts/python_test.sh

clean:  ## Remove what was built and fetched
	rm -rf target .runtime
