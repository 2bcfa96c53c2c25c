# Every target creates the environment it needs. `make` alone prints this help.
SHELL := bash
.SHELLFLAGS := -eo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

VENV := .venv
PY := $(VENV)/bin/python
# The environment is made anew when what is pinned changes, and only then.
STAMP := $(VENV)/.made-$(shell cat requirements.txt tools/make_env.sh | cksum | cut -d' ' -f1)

.PHONY: help book test lab pdf serve bench lint captures clean env

help: ## print this help
	@echo "usage: make TARGET"
	@sed -n 's/^\([a-z]*\):.*## /  \1\t/p' Makefile | expand -t 12
	@echo
	@echo "The first target that needs Python packages downloads them once (about 250 MB, into $(VENV)/)."

env: $(STAMP) ## create the Python environment (the other targets do it themselves)

$(STAMP): requirements.txt tools/make_env.sh
	@bash tools/make_env.sh "$(VENV)" "$@"

book: $(STAMP) ## execute the chapters and write the HTML book; CH=02 one chapter, DRAFT=1 shows failing cells
	@$(PY) tools/build_book.py html $(if $(CH),--chapter $(CH)) $(if $(DRAFT),--draft)

pdf: $(STAMP) ## write the PDF (needs TeX; says which Debian packages)
	@$(PY) tools/build_book.py pdf $(if $(DRAFT),--draft)

test: $(STAMP) ## run every test; T=tests/mm runs some, ARGS="-k buddy -x" goes to pytest
	@$(PY) tools/run_tests.py $(T) $(if $(ARGS),-- $(ARGS))

lab: $(STAMP) ## open the chapters as notebooks in JupyterLab; LABARGS=... goes to it
	@$(PY) tools/lab.py $(LABARGS)

serve: $(STAMP) ## show the built book on a local port; PORT=8000
	@test -f _build/html/index.html || $(MAKE) book
	@$(PY) tools/serve.py $(or $(PORT),8000)

bench: $(STAMP) ## measure the engine against its yardsticks
	@$(PY) -m bench $(ARGS)

lint: $(STAMP) ## formatting, style and types
	@$(PY) -m black --check --quiet . || { echo "black: run $(PY) -m black ."; exit 1; }
	@$(PY) -m ruff check .
	@$(PY) -m mypy
	@echo "lint: clean"

captures: $(STAMP) ## record captures of Linux 6.12 under QEMU; CAPTURES="physical --topology n1-256m" some of them
	@$(PY) -m kernel_lab run $(CAPTURES)

clean: ## remove what was built (not the environment; ALL=1 removes that too)
	rm -rf _build lab build dist *.egg-info $(if $(ALL),$(VENV) .venv-*) .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +
