PYTHON ?= python3
BIN := .venv/bin
ARGS ?=

.PHONY: help run rehearse test test-fast lint bench status lock clean

help: ## show this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 12

run: .venv/control ## one round on the embedded default (ARGS="-e ..." reaches ansible-playbook)
	$(BIN)/ansible-playbook run.yml $(ARGS)

rehearse: .venv/control ## one round on an emulated EC2 machine that really boots; needs a Docker engine
	$(BIN)/ansible-playbook -i inventory/rehearsal run.yml $(ARGS)

test: .venv/dev ## all tests (ARGS="-k ..." reaches pytest)
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder tests/unit tests/test_repository.py tests/round tests/actions tests/integration $(ARGS)

test-fast: .venv/dev ## the tests that need no server, engine or round
	$(BIN)/python -m pytest tests/unit tests/test_repository.py $(ARGS)

lint: .venv/dev ## every linter and the type checker
	PATH="$(CURDIR)/$(BIN):$$PATH" scripts/lint

bench: .venv/dev ## benchmarks: ratios measured side by side (ARGS="NAME ..." chooses)
	$(BIN)/python -m bench $(ARGS)

status: .venv/control ## what is done and due in the embedded database
	scripts/sandbox status

lock: .venv/dev ## resolve the dependencies of pyproject.toml into requirements/
	scripts/lock

clean: ## stop the embedded servers; remove their data, the results and the virtual environment
	scripts/clean

.venv/control: requirements/control.txt
	scripts/setup $(PYTHON) control

.venv/dev: requirements/dev.txt requirements/control.txt
	scripts/setup $(PYTHON) dev
