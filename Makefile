# Everything runs in .venv, made on first use; nothing needs to be activated or prepared.
#
#   make demo             deblur two example pictures into demo-output/
#   make test             run all tests (ARGS="-k trajectory" passes arguments to pytest)
#   make lint             ruff and mypy
#   make check            manifest, source archive and wheel
#   make bench DATA=path  measure on a folder of pictures (ARGS as above)
#   make docs             make the pictures of the documentation again (in docs/images)
#   make clean            remove what these commands made

PYTHON ?= python3
# The Qt binding of the tests, as napari's extras call it: pyqt6 or pyside6.
QT ?= pyqt6

VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --constraint constraints.txt

# The virtual environment is all that counts, whatever the shell has set up.
unexport PYTHONPATH PYTHONHOME
.NOTPARALLEL:
.PHONY: demo test lint check bench docs clean

demo: $(VENV)/.runtime
	$(BIN)/napari-blur2seq demo --output demo-output

test: $(VENV)/.dev
	.ci/with-display $(BIN)/python -m pytest --numprocesses auto --dist loadfile $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

check: $(VENV)/.dev
	$(BIN)/npe2 validate --imports napari-blur2seq
	rm -rf dist
	$(BIN)/python -m build --outdir dist
	$(BIN)/python .ci/check_wheel.py dist/*.whl

bench: $(VENV)/.dev
	@test -n "$(DATA)" || { echo "Say where the pictures are: make bench DATA=path/to/folder"; exit 2; }
	$(BIN)/python benchmarks/bench.py --data "$(DATA)" $(ARGS)

docs: $(VENV)/.dev
	.ci/with-display $(BIN)/python docs/make_pictures.py $(ARGS)

clean:
	rm -rf $(VENV) build dist demo-output .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	"Python 3.11 or newer is needed: name one with make PYTHON=/path/to/python ...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) --editable .
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) --editable ".[dev]" "napari[$(QT)]"
	@touch $@ $(VENV)/.runtime
