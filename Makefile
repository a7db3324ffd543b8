# Every target is one line that works without make, once .venv is installed (see `make help`).
# Where pip's default torch is a GPU build of several gigabytes and none is wanted, name the index
# that has the CPU build, as torch's installation page gives it:  make test TORCH_INDEX=<address>

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --quiet -c constraints.txt
READY := $(VENV)/.installed
TORCH := $(shell grep '^torch==' constraints.txt)

.PHONY: help reproduce quick test test-all lab update site clean
.DEFAULT_GOAL := help

help:  ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

reproduce: $(READY)  ## every figure and table into runs/, then the comparison with results/
	$(PY) -m co3d reproduce

quick: $(READY)  ## one figure and one equality check, within two minutes
	$(PY) -m co3d quick

test: $(READY)  ## lint, contracts, unit tests and the smoke run of the notebooks
	$(PY) -m pytest -n auto --dist loadgroup

test-all: test  ## the above, then the slow tests
	$(PY) -m pytest -n auto --dist loadgroup -m slow

lab: $(READY)  ## JupyterLab in notebooks/
	$(PY) -m co3d lab

update: $(READY)  ## a full run that refreshes the committed results, figures and notebook outputs
	$(PY) -m co3d update

site: $(READY)  ## the committed notebooks, figures, tables and API as HTML into site/
	$(PY) -m co3d site

clean:  ## remove the environment and tool caches; runs/ and data stay
	rm -rf $(VENV) *.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache

$(READY): pyproject.toml constraints.txt
	@for python in python3.11 python3 ""; do \
		"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; \
	done; \
	if [ -z "$$python" ]; then \
		echo "Python 3.11 or newer is needed: install it so that python3.11 or python3 starts it." >&2; \
		exit 1; \
	fi; \
	echo "installing into $(VENV) with $$python (a few minutes, once)"; \
	"$$python" -m venv $(VENV)
	$(if $(TORCH_INDEX),$(PIP) --no-deps --index-url $(TORCH_INDEX) $(TORCH))
	$(PIP) -e '.[dev]'
	@touch $@
