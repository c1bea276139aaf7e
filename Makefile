# All tasks of developers. CI runs the same targets.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BENCH_VENV := .venv-bench
BENCH_STAMP := $(BENCH_VENV)/.installed
AUDIT_VENV := .venv-audit
AUDIT_STAMP := $(AUDIT_VENV)/.installed
# The demos take the developer's environment if there is one, else a small one.
DEMO_VENV := $(if $(wildcard $(STAMP)),$(VENV),.venv-demo)
DEMO_STAMP := $(DEMO_VENV)/.installed
DOCS_VENV := .venv-docs
DOCS_STAMP := $(DOCS_VENV)/.installed
PYTEST := $(BIN)/python -m pytest
WORKERS ?= 2
# A test of real processes that fails runs once more, because the machine may have been too busy: its first failure is
# shown at the end. Tasks that are lost or reported twice fail at once. RERUNS=0 runs nothing again.
RERUNS ?= 1
AGAIN = -rsR --reruns $(RERUNS) --rerun-except AccountError
# These tests mostly wait for clocks and processes, so more workers than cores pay off. Each worker collects all of them:
# the first collection keeps what pytest makes of their asserts, or each worker would do that again.
FAST_WORKERS ?= 10
FAST = tests/unit tests/component
# A test that hangs ends its worker, with a traceback, and fails. The longest takes 25 s.
FAST_BOUND = -o faulthandler_timeout=180 -o faulthandler_exit_on_timeout=true
PROCESS_WORKERS ?= 4
# Chromium waits for half of its time.
BROWSER_WORKERS ?= 2
# Each has a kube-apiserver of its own.
CONTROLPLANE_WORKERS ?= 3
# The cases mostly wait. Each worker takes the next case when it is free; those that take a minute come first.
FAULT_WORKERS ?= 6
FAULTS = $(PYTEST) -q $(AGAIN) -n $(FAULT_WORKERS) --dist loadgroup tests/faults

# tests/e2e waits for half of its time. These run meanwhile, one after the other, and leave it the CPU that it wants.
# Not those in the browser: Chromium ends its requests when an interface of the machine changes, as a pod's does.
BESIDE_E2E ?= test-docs test-monitoring

# Their fast run tries a few examples only.
PROPERTIES = $(addprefix tests/unit/,test_router_properties.py test_router_interrupted.py journal/test_journal_properties.py http/test_answer_properties.py executors/test_permit.py managed_pool/test_plan.py)

# Compiled modules are kept whatever the environment says: otherwise each worker of a test run and each interpreter that
# a test starts compiles everything again.
export PYTHONDONTWRITEBYTECODE :=
COMPILE = @$(BIN)/python -m compileall -q operator demo devcluster bench tools tests/support

# Every target: none is a file of that name.
.PHONY: $(shell awk -F: '/^[a-z0-9-]+:/{print $$1}' $(MAKEFILE_LIST))

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# uv installs several times as fast as pip. Where it cannot, pip does: pip's configuration, which uv does not read, may
# name the only index that can be reached.
# $(call install,ENVIRONMENT,LOCK,options of uv,options of pip)
PIP_INSTALL = -m pip install --quiet --disable-pip-version-check
define install
@test -x $(1)/bin/python || $(PYTHON) -m venv $(1)
@{ $(1)/bin/python $(PIP_INSTALL) --require-hashes -r requirements-uv.txt && \
	$(1)/bin/python -m uv pip install --quiet --python $(1)/bin/python $(3) --require-hashes -r $(2); } || \
	{ echo "uv could not install $(2): pip tries"; $(1)/bin/python $(PIP_INSTALL) $(4) --require-hashes -r $(2); }
endef
# Root on Debian gets what is missing by apt-get; others are told what it is, and the tests that need it are skipped.
# $(call packages,COMMANDS)
packages = @$(BIN)/python -m devcluster packages $(1)
EDITABLE = $(PIP_INSTALL) --no-deps --no-build-isolation --editable .

venv: $(STAMP) ## create .venv with the project and all its tools

$(STAMP): requirements-dev.txt requirements-uv.txt pyproject.toml
	@echo "installing the pinned requirements in $(VENV)"
	$(call install,$(VENV),requirements-dev.txt,--compile-bytecode)
	@$(BIN)/python $(EDITABLE)
	@touch $@

.venv-demo/.installed: requirements-demo.txt requirements-uv.txt
	@echo "installing what the demo needs in $(@D) (70 MB)"
	$(call install,$(@D),requirements-demo.txt,,--no-compile)
	@$(@D)/bin/python $(EDITABLE)
	@touch $@

$(BENCH_STAMP): requirements-bench.txt requirements-uv.txt
	@echo "installing Celery, which the bench measures, in $(BENCH_VENV)"
	$(call install,$(BENCH_VENV),requirements-bench.txt)
	@touch $@

$(AUDIT_STAMP): requirements-audit.txt requirements-uv.txt
	@echo "installing the tools of the audit (300 MB) in $(AUDIT_VENV)"
	$(call install,$(AUDIT_VENV),requirements-audit.txt)
	@touch $@

$(DOCS_STAMP): requirements-docs.txt requirements-uv.txt
	@echo "installing Sphinx in $(DOCS_VENV)"
	$(call install,$(DOCS_VENV),requirements-docs.txt)
	@touch $@

docs: $(DOCS_STAMP) ## build the site of docs/ in dist/site; any warning is an error
	@$(DOCS_VENV)/bin/python -m sphinx -b html -W -n -q --keep-going docs dist/site
	@echo dist/site/index.html

demo: announce $(DEMO_STAMP) ## run the whole platform here and break it; DEMO_SECONDS=30 ends by itself, DEMO_NODE=1 shows it on pods
	@$(DEMO_VENV)/bin/python -m devcluster tools $(if $(DEMO_NODE),--node)
	@$(DEMO_VENV)/bin/python -m demo

announce: # before anything is downloaded; a cluster of your own needs no build
	@$(if $(DEMO_CONTEXT),:,$(PYTHON) -m devcluster.first_run $(if $(DEMO_NODE),--node))

demo-worker: $(DEMO_STAMP) ## the same without Kubernetes, which starts in seconds; DEMO_LEGACY=1 shows the legacy loop beside it
	@$(DEMO_VENV)/bin/python -m demo --worker

recording: venv ## record make demo-worker as docs/images/demo.svg
	@$(BIN)/python -m tools.recording

control-plane: venv ## prepare kube-apiserver, etcd, kubectl and redis-server, and print their folder
	@$(BIN)/python -m devcluster binaries

test: venv ## run all checks and tests
	@$(MAKE) --no-print-directory -j2 --output-sync lint verify
	@$(MAKE) --no-print-directory test-fast test-processes test-browser test-controlplane
	@echo "test-e2e and, beside it, $(BESIDE_E2E): each prints when it ends"
	@$(MAKE) --no-print-directory -j2 --output-sync test-e2e beside-e2e
	@$(MAKE) --no-print-directory test-faults

beside-e2e:
	@for target in $(BESIDE_E2E); do nice -n 19 $(MAKE) --no-print-directory $$target || exit; done

test-fast: venv ## run the unit and component tests
	$(call packages,openssl)
	$(COMPILE)
	@$(PYTEST) -q --collect-only $(FAST) >/dev/null || true  # what it complains about, the tests will too
	$(PYTEST) -q -rs -n $(FAST_WORKERS) --dist worksteal $(FAST_BOUND) $(FAST)

test-docs: venv docs ## build the site, check its links, and run the command blocks of README and docs
	$(PYTEST) -q -rs tests/docs

test-processes: venv ## run the tests that start the worker, the commands and the demo's services as processes
	$(PYTEST) -q $(AGAIN) -n $(PROCESS_WORKERS) tests/processes

test-browser: venv ## look at the page with Chromium
	$(call packages,chromium)
	$(PYTEST) -q $(AGAIN) -n $(BROWSER_WORKERS) tests/browser

test-monitoring: venv ## test alerts and dashboard with Prometheus
	$(call packages,promtool)
	$(PYTEST) -q $(AGAIN) tests/monitoring

screenshots: venv ## take the pictures of the page in docs/images with Chromium
	$(call packages,chromium)
	@$(BIN)/python -m tests.browser.pictures docs/images

test-properties: venv ## search for what breaks router, journal, pool and HTTP answers; PROPERTY_EXAMPLES=20000 searches longer
	PROPERTY_EXAMPLES=$(or $(PROPERTY_EXAMPLES),2000) $(PYTEST) -q -n $(WORKERS) $(PROPERTIES)

test-controlplane: venv ## run the tests that need a real kube-apiserver
	$(call packages,openssl)
	@$(BIN)/python -m devcluster binaries
	$(PYTEST) -q $(AGAIN) -n $(CONTROLPLANE_WORKERS) --dist loadfile tests/controlplane

test-objects: venv ## apply generated QueueWorkers to a real kube-apiserver; GENERATED_OBJECTS=5000 tries more
	@$(BIN)/python -m devcluster binaries
	GENERATED_OBJECTS=$(or $(GENERATED_OBJECTS),2000) $(PYTEST) -q -s tests/controlplane/test_generated_objects.py

test-e2e: venv ## as `make e2e`; where this machine cannot be a node, run what needs none and say why
	$(call packages,openssl)
	@$(BIN)/python -m tools.e2e

e2e: venv ## make this machine a Kubernetes node, run tests/e2e on it, take it down; E2E_KUBECONFIG uses your cluster
	$(call packages,openssl)
	@$(BIN)/python -m tools.e2e --required $(if $(E2E_ARGS),-- $(E2E_ARGS))

e2e-kind: venv ## run tests/e2e on a cluster of kind, which needs Docker
	$(call packages,openssl)
	@$(BIN)/python -m tools.e2e --kind

node: venv ## make this machine a Kubernetes node with the images, and print its KUBECONFIG
	@$(BIN)/python -m tools.e2e --keep

node-down: venv ## take that node down, without a trace
	@$(BIN)/python -m devcluster node down

test-faults: venv ## inject every fault that one machine can produce, under load; FAULT_WORKERS=6 runs 6 cases at once
	$(call packages,faketime)
	@$(BIN)/python -m devcluster binaries
	$(FAULTS)

soak: venv ## random faults of all kinds for 30 minutes; SOAK_SECONDS=7200 lasts longer, SOAK_SEED=… repeats a run
	@$(BIN)/python -m devcluster binaries
	SOAK_SECONDS=$(or $(SOAK_SECONDS),1800) SOAK_SEED=$(or $(SOAK_SEED),$(shell date +%s)) $(PYTEST) -q -s tests/faults/test_soak.py

reliability: venv ## run the fault tests and write docs/reliability.md
	$(call packages,faketime)
	@$(BIN)/python -m devcluster binaries
	$(FAULTS) --reliability docs/reliability.md

bench-isolation: venv ## measure how a misbehaving object affects another one in the same operator
	@$(BIN)/python -m bench.isolation main

bench-balance: venv ## compare how the strategies share the work; writes docs/balance.md
	@$(BIN)/python -m bench.balance

bench: venv $(BENCH_STAMP) ## measure the router, Celery, the legacy loop and the bare client; writes docs/performance.md
	@$(BIN)/python -m bench

bench-objects: venv ## measure 50 to 500 QueueWorkers in one operator, with a real kube-apiserver; writes docs/performance.md
	@$(BIN)/python -m devcluster binaries
	@$(BIN)/python -m bench objects

bench-profile: venv $(BENCH_STAMP) ## profile the router under full load with py-spy; writes docs/performance.md
	@$(BIN)/python -m bench profile

bench-smoke: venv $(BENCH_STAMP) ## run each part of the bench for a second; fails if a contender does not work or loses tasks
	@$(BIN)/python -m bench --smoke

lint: venv ## check style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

audit: venv $(AUDIT_STAMP) ## check chart, manifests, Dockerfile and workflows with Helm, Trivy, hadolint, actionlint and others
	@$(BIN)/python -m tools.audit

sbom: $(AUDIT_STAMP) ## write dist/queueworker-operator.cdx.json: the Python packages in the image, with their hashes (CycloneDX)
	@$(AUDIT_VENV)/bin/python -m tools.sbom

image: venv ## build the image with the container engine of this machine, or a private one
	@$(BIN)/python -m tools.image build

reproduce: venv ## build the image from two checkouts, and compare the digests of its layers
	@$(BIN)/python -m tools.reproduce

generate: venv ## write the generated files: CRD, reference pages, environment table, metrics, README and dashboard of the chart
	@$(BIN)/python -m queueworker.resource.generate
	@$(BIN)/python -m queueworker.processes.environment_reference
	@$(BIN)/python -m queueworker.processes.metrics_reference
	@$(BIN)/python -m tools.chart_readme
	@$(BIN)/python -m tools.reference_pages
	@$(BIN)/python -m tools.dashboard

verify: venv ## fail if a generated file is out of date
	@$(BIN)/python -m queueworker.resource.generate --check
	@$(BIN)/python -m queueworker.processes.environment_reference --check
	@$(BIN)/python -m queueworker.processes.metrics_reference --check
	@$(BIN)/python -m tools.chart_readme --check
	@$(BIN)/python -m tools.reference_pages --check
	@$(BIN)/python -m tools.dashboard --check

format: venv ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

LOCK = $(BIN)/python -m uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --custom-compile-command "make lock"

lock: venv ## pin the current versions of the dependencies, with hashes
	$(LOCK) --group uv -o requirements-uv.txt
	$(LOCK) pyproject.toml -o requirements.txt
	$(LOCK) pyproject.toml --group dev -o requirements-dev.txt
	$(LOCK) pyproject.toml --group demo -c requirements-dev.txt -o requirements-demo.txt
	$(LOCK) --group control-plane -c requirements-dev.txt -o requirements-control-plane.txt
	$(LOCK) --group bench -o requirements-bench.txt
	$(LOCK) --group audit -o requirements-audit.txt
	$(LOCK) --group docs -o requirements-docs.txt

clean: ## delete all environments and all caches in this folder (not the binaries in ~/.cache/queueworker)
	rm -rf $(VENV) .venv-demo $(BENCH_VENV) $(AUDIT_VENV) $(DOCS_VENV) dist/site .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
