# One command runs the main job (make demo), one runs the tests (make test); each does its own set-up.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
DOCS ?=
QUESTIONS ?=
GOLD ?=
LIVE ?=
DEMO_ARGS = $(if $(DOCS),--docs "$(DOCS)") $(if $(QUESTIONS),--questions "$(QUESTIONS)") $(if $(GOLD),--gold "$(GOLD)") $(if $(LIVE),--live)

.PHONY: help demo test test-vllm test-browser lint types check serve serve-gpu replicas stop record vllm-compare overhead overhead-peers loop bad-input budget crash hostile simulate semantic pairs lookup lookup-peers load-coverage load-truth validity demo-picture soak deadlines clean

help:                ## what can be made
	@grep -hE '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed 's/: .*##/\t/' | expand -t 16

$(VENV)/.demo: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "costkit needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "setting up $(VENV) (once) ..."
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-compile -e '.[demo]'
	@touch $@

$(VENV)/.dev: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "costkit needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "setting up $(VENV) (once) ..."
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-compile -e '.[demo,dev]'
	@touch $@

demo: $(VENV)/.demo  ## the main job: questions through the sample assistant, without costkit and with it
	@$(BIN)/python -m serving.demo $(DEMO_ARGS)

demo-picture: $(VENV)/.demo  ## the demo, and its picture into the README
	@$(BIN)/python -m serving.demo --picture .github/demo.png

test: $(VENV)/.dev   ## all tests but those of the real vLLM (make test-vllm) and the minutes-long ones (make validity)
	@$(BIN)/python -m pytest -m 'not soak and not vllm'

test-vllm: $(VENV)/.dev  ## a real vLLM (sets it up): protocol, metrics, 503, router, a load run, gold items in float32
	@$(BIN)/python -m serving.engine setup
	@COSTKIT_TEST_VLLM=1 $(BIN)/python -m pytest -m vllm tests/serving

test-browser: $(VENV)/.dev  ## locust's web UI in a real browser (installs playwright; needs a Chromium on the PATH)
	@$(BIN)/python -m pip install -q --disable-pip-version-check playwright
	@$(BIN)/python -m pytest -rs tests/loadtests/test_browser.py

vllm-compare: $(VENV)/.dev  ## load runs beside vllm bench serve; prefix cache and costkit on and off (about 40 minutes)
	@$(BIN)/python -m serving.engine setup
	@$(BIN)/python -m tests.benchmarks.vllm_compare --json

lint: $(VENV)/.dev   ## ruff, format and rules
	@$(BIN)/ruff check .

types: $(VENV)/.dev  ## mypy and pyright, strict
	@$(BIN)/mypy
	@$(BIN)/pyright --pythonpath $(BIN)/python

check: lint types test  ## everything that must be green

serve:               ## real vLLM on CPU on port 8000, PROFILE=ci or local, MODEL=smollm2 or cheap (Ctrl-C stops it)
	@$(PYTHON) -m serving.engine serve --profile $(or $(PROFILE),ci) --model $(or $(MODEL),smollm2)

serve-gpu:           ## plain vLLM on this machine's GPU: serving/profiles/gpu.yaml
	@$(PYTHON) -m serving.engine serve --profile gpu

replicas:            ## two real vLLMs behind vllm-router on port 8000 (sets itself up; Ctrl-C stops them)
	@$(PYTHON) -m serving.engine replicas --profile $(or $(PROFILE),ci) --model $(or $(MODEL),smollm2)

stop:                ## stop servers left in the background
	@$(PYTHON) -m serving.engine stop

record: $(VENV)/.demo  ## record the demo's answers and service times anew from a running `make serve`
	@$(BIN)/python -m serving.record

overhead: $(VENV)/.dev  ## what a wrapped call costs, beside diskcache and memoize
	@$(BIN)/python -m tests.benchmarks.overhead --json

overhead-peers: $(VENV)/.dev  ## the same beside LiteLLM, LangChain and GPTCache (sets them up once)
	@$(BIN)/python -m tests.benchmarks.peers setup
	@$(BIN)/python -m tests.benchmarks.overhead --json

loop: $(VENV)/.dev   ## how long costkit keeps an event loop waiting, beside the machine's own noise
	@$(BIN)/python -m tests.benchmarks.loop --json

bad-input: $(VENV)/.dev  ## time and memory of odd and huge input
	@$(BIN)/python -m tests.benchmarks.bad_input --json

budget: $(VENV)/.dev  ## a cap under 16 processes, kill -9 and cancellation
	@$(BIN)/python -m tests.benchmarks.budget --json

crash: $(VENV)/.dev  ## 500 rounds of kill -9 (about 4 minutes)
	@$(BIN)/python -m tests.benchmarks.crash --rounds 500 --json

hostile: $(VENV)/.dev  ## 11,000 tampered cache rows and 400 damaged files
	@$(BIN)/python -m tests.benchmarks.hostile --rows 11000 --json

simulate: $(VENV)/.dev  ## 100,000 seeds of the simulated flow
	@$(BIN)/python -m tests.simulation --seeds 100000

semantic: $(VENV)/.dev  ## the semantic cache inside its bound, beside other rules (COSTKIT_DATA; about an hour)
	@for per in "0.01 request" "0.02 request" "0.05 hit" "0.02 hit"; do set -- $$per; for set in banking77 clinc150; do \
	  $(BIN)/python -m tests.benchmarks.semantic --data "$$COSTKIT_DATA/semcache/$${set}_dev.csv" --rows 3000 --max-error $$1 --per $$2 --seeds 50 --json; done; done

pairs: $(VENV)/.dev  ## labelled pairs of questions: true pairs served when 1 % and 5 % of traps pass
	@$(BIN)/python -m pip install -q --no-deps fow-cache==0.1.0
	@$(BIN)/python -m tests.benchmarks.pairs

lookup: $(VENV)/.dev  ## what a semantic look-up costs at 1,000, 10,000 and 100,000 questions
	@$(BIN)/python -m tests.benchmarks.lookup --json --rounds 0

lookup-peers: $(VENV)/.dev  ## the same beside GPTCache, bare and below LangChain (sets them up once)
	@$(BIN)/python -m tests.benchmarks.lookup_peers setup
	@$(BIN)/python -m tests.benchmarks.lookup --json

load-coverage: $(VENV)/.dev  ## how often the intervals of load reports hold and their gate errs, on simulated queues
	@$(BIN)/python -m tests.benchmarks.load_coverage --runs 400

load-truth: $(VENV)/.dev  ## the load generator beside the simulated server's own log, its verdict on itself, other clients
	@for rate in 10 50 100 200; do $(BIN)/python -m tests.benchmarks.load_truth --rate $$rate --seconds 15 --json; done
	@for fault in sleep drop; do $(BIN)/python -m tests.benchmarks.load_truth --rate 50 --fault $$fault --json; done
	@$(BIN)/python -m tests.benchmarks.load_truth --freeze --json
	@$(BIN)/python -m tests.benchmarks.load_truth --clients --json

validity: $(VENV)/.dev  ## the bound under simulation: how often it is broken
	@$(BIN)/python -m tests.benchmarks.validity
	@$(BIN)/python -m pytest -m soak --timeout 1800 tests

soak: $(VENV)/.dev   ## the assistant with costkit under load for MINUTES (30): memory, rows, overhead
	@$(BIN)/python -m tests.benchmarks.soak --minutes $(or $(MINUTES),30) --json

deadlines: $(VENV)/.dev  ## how late the simulated server's tokens are at 500 requests a second
	@$(BIN)/python -m tests.benchmarks.simulated_deadlines --json

clean:               ## remove what was set up and run
	@rm -rf $(VENV) .venv-peers demo-out soak-out serving/.run .mypy_cache .ruff_cache .pytest_cache
