# The commands of the README. Everything that is built or downloaded lives in the user's cache folder, never here.
# With KUBECONFIG set, the cluster that it names is used instead of the local one; CHIMERA_REGISTRY names the registry from
# which its nodes pull what is built here.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help

CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/chimera
export CARGO_TARGET_DIR ?= $(CACHE)/target
STATIC := x86_64-unknown-linux-musl
PROGRAMS := chimera-controller chimera-head chimera
BIN := $(CACHE)/static/$(STATIC)/release
# The first goal decides what the machine has to have; the goals that are not listed need what the tests need.
GOAL := $(or $(firstword $(filter programs check generate unit demo test bench,$(MAKECMDGOALS))),test)
steps_demo := requirements programs cluster images chart
steps_test := requirements clippy cargo-deny unit fresh cluster programs images chart e2e
# The demo and the default heads use these; the tests name two more, one of them with PyTorch.
demo_images := --only controller --only head-cpu --only cli
images_of_goal := $(if $(filter demo,$(GOAL)),$(demo_images))
export CHIMERA_STEPS := $(steps_$(GOAL))

.PHONY: help
help: ## What can be made
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' Makefile | expand -t 20

.PHONY: demo
demo: install ## From nothing to a verified receipt, with the time of each step
	@e2e/demo "$(BIN)/chimera"

.PHONY: test
test: check unit fresh chart install e2e ## Everything that has to hold, on a real cluster

.PHONY: bench
bench: install ## Run latency and throughput on the cluster
	@source e2e/environment
	CHIMERA_BIN="$(BIN)/chimera" cargo run -q --release -p e2e --bin bench # its client has the same cores
	CHIMERA_PYTHON=$$(e2e/bench-interpreter) cargo bench -q -p chimera-sandbox --bench warm
	cargo bench -q -p chimera-crypto
	cargo bench -q -p chimera-controller --bench rotation
	cargo bench -q -p chimera-maml

.PHONY: generate
generate: cluster ## Writes crds/, the chart's copies, manifests/ and docs/reference/
	@source e2e/environment
	cargo xtask generate

.PHONY: cluster
cluster: tools
	@if [[ -z $${KUBECONFIG:-} ]]; then setup/step cluster e2e/cluster/up; fi

.PHONY: fresh
fresh: tools ## The requirement step and the programs in a Debian root that has nothing else; SUITE=trixie for Debian 13
	@setup/step fresh setup/fresh --programs --suite "$(or $(SUITE),bookworm)"

.PHONY: preflight
preflight: ## What this machine lacks for make demo; changes nothing
	@setup/requirements demo --check

.PHONY: cluster-up
cluster-up: ## A local Kubernetes; at once when it is up
	@e2e/cluster/up >/dev/null

.PHONY: cluster-down
cluster-down: ## Ends the local Kubernetes and leaves nothing behind
	@e2e/cluster/down

.PHONY: images
images: programs cluster ## Builds the container images and hands them to the cluster
	@source e2e/environment
	if [[ -n $${CHIMERA_LOCAL_CLUSTER:-} ]]; then
	  setup/step images images/build "$(BIN)" $(images_of_goal)
	elif [[ -n $${CHIMERA_REGISTRY:-} ]]; then
	  setup/step images images/build "$(BIN)" $(images_of_goal) --push "$$CHIMERA_REGISTRY"
	else
	  printf 'warning: the nodes of this cluster must hold localhost/chimera*:dev already\nhint: set CHIMERA_REGISTRY to a registry that they pull from and that you may push to\n' >&2
	fi

.PHONY: check
check: tools ## Format, lints, licences and advisories, generated files, dependency rules
	@cargo fmt --all --check
	setup/step clippy cargo clippy --workspace --all-targets -- -D warnings
	cargo check -q -p chimera-maml --target wasm32-unknown-unknown
	e2e/dependencies
	e2e/licences
	cargo xtask check

.PHONY: unit
unit: tools ## Tests that need no cluster
	@setup/step unit cargo test --workspace --exclude e2e

.PHONY: chart
chart: cluster ## Renders the chart and checks its rules
	@source e2e/environment
	charts/chimera/tests/run

.PHONY: install
install: images ## Installs or upgrades the chart in the cluster
	@setup/step chart e2e/install "$(BIN)"

.PHONY: e2e
e2e: install ## Tests on the cluster
	@source e2e/environment
	export CHIMERA_BIN="$(BIN)/chimera"
	setup/step e2e cargo test -p e2e -- --test-threads=4

.PHONY: programs
programs: tools
	@setup/step programs cargo build --release --target-dir "$(CACHE)/static" --target $(STATIC) $(PROGRAMS:%=-p %)

.PHONY: tools
tools:
	@printf "[1/$(words $(CHIMERA_STEPS))] requirements\n" >&2; setup/requirements $(GOAL)
	e2e/freshness "$(CARGO_TARGET_DIR)" "$(CACHE)/static"
