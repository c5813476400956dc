# `make demo` and `make test` do all the set-up themselves; `make help` lists the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
JOBS ?= auto
ADAPTERS := $(CURDIR)/$(VENV)/adapters
STEPPING := verifiers openenv skyrl
package_verifiers := verifiers==0.4.0
package_openenv := -c constraints.txt openenv
package_skyrl := -c constraints.txt skyrl-gym

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-thorough test-slow test-sglang test-adapters test-slurm scorecard check docs clean

help:
	@echo "make demo           play every recorded episode of the bundled problems: built, verified and timed on this machine"
	@echo "make test           the test suite"
	@echo "make test-thorough  the rest of the real problems and recordings"
	@echo "make test-slow      every test that needs no GPU, those that take minutes too"
	@echo "make test-sglang    the scripted SGLang server, each request and reply held against SGLang's own types (40 MB)"
	@echo "make test-adapters  the adapters, each with its trainer: TRL trains a tiny model for a few minutes, the others play (SLIME_ROOT=CHECKOUT)"
	@echo "make test-slurm     those on a real SLURM, which is there (tests/local_slurm.sh starts one)"
	@echo "make scorecard      the corpus of cheats and honest kernels, judged"
	@echo "make check          formatting, lints, types, layers, generated docs"
	@echo "make docs           write docs/configuration.md again"
	@echo "make clean          remove the environment"

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@command -v g++ >/dev/null || { echo "g++ is missing: install a C++ compiler first"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { echo "$(PYTHON) is not Python 3.11 to 3.13: set PYTHON=..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (a few minutes the first time)"
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: setup
	@$(BIN)/kernel-env eval experiment=demo

test: setup
	@$(BIN)/pytest -n $(JOBS) -m "not slow and not thorough and not gpu"

test-thorough: setup
	@$(BIN)/pytest -n $(JOBS) -m "thorough and not slow"

test-slow: setup
	@$(BIN)/pytest -n $(JOBS) -m "not gpu"

test-sglang: setup
	@test -d $(VENV)/sglang-types || $(BIN)/pip install --quiet --disable-pip-version-check --no-deps --target $(VENV)/sglang-types sglang==0.5.23 msgspec
	@PYTHONPATH=$(VENV)/sglang-types $(BIN)/pytest --require-external -m "not slow and not thorough" tests/test_sglang_policy.py

# What TRL and verl need beside what they share with us lies in a directory each, which is put before ours.
INTO = $(BIN)/pip install --quiet --disable-pip-version-check --target
VERL := verl==0.9.1 TransferQueue==0.1.11 tensordict==0.10.0 transformers==5.9.0 tokenizers==0.22.2 peft torchdata
VERL_NEEDS := ray==2.60.0 "huggingface_hub<2" aiohttp cachetools cloudpickle codetiming importlib_metadata msgspec orjson pillow pyvers pyzmq
SLIME_NEEDS := aiohttp blobfile httpx pillow pybase64 pylatexenc

test-adapters: setup $(STEPPING:%=$(ADAPTERS)/%/.ready)
	@test -d $(ADAPTERS)/trl || $(INTO) $(ADAPTERS)/trl --no-deps -c constraints.txt trl
	@PYTHONPATH=$(ADAPTERS)/trl $(BIN)/pytest --require-external tests/test_trl.py
	@test -d $(ADAPTERS)/verl || { $(INTO) $(ADAPTERS)/verl.new $(VERL_NEEDS) && $(INTO) $(ADAPTERS)/verl.new --no-deps $(VERL) \
		&& mv $(ADAPTERS)/verl.new $(ADAPTERS)/verl; }
	@PYTHONPATH=$(ADAPTERS)/verl $(BIN)/pytest --require-external tests/test_verl.py
ifdef SLIME_ROOT
	@test -d $(ADAPTERS)/slime || $(INTO) $(ADAPTERS)/slime $(SLIME_NEEDS)
	@PYTHONPATH=$(ADAPTERS)/slime $(BIN)/pytest --require-external tests/test_slime.py
else
	@echo "slime is left out: SLIME_ROOT names no checkout of github.com/THUDM/slime"
endif
	@for trainer in $(STEPPING); do $(ADAPTERS)/$$trainer/bin/python -m pytest --require-external tests/test_$$trainer.py || exit; done

# An environment for each of the others, since not all can share one. It has what ours has, except where pip finds that this does not
# fit: verifiers wants openai 2, which pip says of kernel-env and does all the same.
$(ADAPTERS)/%/.ready: $(READY)
	@$(BIN)/python -m venv --clear --without-pip $(@D)
	@cd $(@D)/lib/python3*/site-packages && $(CURDIR)/$(BIN)/python -c 'import sysconfig; \
		print("import site; site.addsitedir(%r)" % sysconfig.get_path("purelib"))' > ours.pth
	@$(@D)/bin/python -m pip install --quiet --disable-pip-version-check $(package_$*)
	@touch $@

test-slurm: setup
	@$(BIN)/pytest -m slurm

scorecard: setup
	@$(BIN)/kernel-env scorecard

check: setup
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -c 'from rollout.reference import markdown; import sys; sys.exit(open("docs/configuration.md").read() != markdown())' \
		|| { echo "docs/configuration.md is out of date: run make docs"; exit 1; }

docs: setup
	@$(BIN)/python -c 'from rollout.reference import markdown; print(markdown(), end="")' > docs/configuration.md

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
