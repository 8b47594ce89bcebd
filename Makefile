# Each target is one call of a Rust program; `make help` lists them. Nothing here needs more than make, sh and cargo.

CARGO ?= cargo
DEMO = $(CARGO) run --quiet --locked -p pilotlight-demo --
CRDS = deploy/chart/generated/crds.yaml
AGENTS_CRD = deploy/chart/generated/agents-crd.yaml

.DEFAULT_GOAL := help
.PHONY: help demo up down test unit bench generate images lint

help: ## List the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

demo: ## From nothing to python answering in a sandbox, with a timeline
	@$(DEMO) demo

up: ## Cluster, images and chart; kubeconfig at target/kubeconfig
	@$(DEMO) up

down: ## Remove what `up` and `demo` made
	@$(DEMO) down

test: ## Every check and test, end-to-end tests on a real cluster included
	@$(DEMO) test

unit: ## The tests that need no cluster, in seconds
	@$(CARGO) test --locked --lib --bins -p pilotlight-common -p pilotlight-scheduler -p pilotlight-node-agent

bench: ## Load generator on the cluster, numbers in target/bench.json; then one decision at 100,000 warm pods
	@$(CARGO) run --quiet --locked --release -p pilotlight-bench
	@$(CARGO) bench --quiet --locked -p pilotlight-scheduler --bench decision

generate: ## Write the CRDs of common/src into the chart
	@$(CARGO) run --quiet --locked -p pilotlight-common --bin crds > $(CRDS).partial
	@mv $(CRDS).partial $(CRDS)
	@$(CARGO) run --quiet --locked -p pilotlight-common --bin crds agents > $(AGENTS_CRD).partial
	@mv $(AGENTS_CRD).partial $(AGENTS_CRD)

images: ## Pack both images from release builds, into target/images
	@$(DEMO) images

lint: ## Formatting and clippy
	@$(CARGO) fmt --all --check
	@$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
