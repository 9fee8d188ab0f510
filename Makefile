# Everything runs from a fresh clone with Python >= 3.11 and make. `make help` lists the verbs.
PYTHON ?= python3
# Threads that wait must not spin: the tests share the machine.
export OMP_WAIT_POLICY ?= PASSIVE
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
DEV    := $(VENV)/.installed-dev
DOCS   := $(VENV)/.installed-docs
# The scripts of the exported page are checked where npm is installed.
NODE   := $(if $(shell command -v npm),node_modules/.package-lock.json)

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-all test-lowest test-newest smoke check format site bench pictures clean

help:            ## list the verbs
	@sed -n 's/^\([a-z-]*\): .*## /\1\t/p' $(MAKEFILE_LIST)

# Set-up happens once: again only when the pins or the package's own metadata change.
# torch comes first and pinned, so that no later requirement pulls a CUDA build.
$(STAMP): constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("biggan needs Python 3.11 or newer, this is %d.%d" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	@echo "Installing PyTorch and biggan into $(VENV), once: more than 1 GB, some minutes without a message"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[train,demo]'
	touch $@

$(DEV): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		av build import-linter ipykernel ipywidgets matplotlib mypy nbclient nbformat onnx onnxruntime onnxscript openvino \
		playwright pyarrow pytest pytest-timeout pytest-xdist pytorch-pretrained-biggan ruff safetensors scipy webdataset
	touch $@

$(DOCS): $(DEV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt furo myst-parser sphinx
	touch $@

demo: $(STAMP)   ## open the web page with the bundled model on http://127.0.0.1:7860
	$(BIN)/biggan demo

# A file's tests share a process, and so its servers, browsers and runs.
PARALLEL := --numprocesses auto --maxprocesses 4 --dist loadfile

test: $(DEV)     ## the CPU test suite, without what takes long
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PARALLEL) -m "not slow"

test-slow: $(DEV) ## the tests that `make test` leaves out
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PARALLEL) -m slow

test-all: $(DEV) ## both with 2,000 mutations of every kind of file and many more kills; hours
	BIGGAN_TEST_MUTATIONS=2000 BIGGAN_TEST_KILLS=25 OMP_NUM_THREADS=1 \
		$(BIN)/python -m pytest $(PARALLEL) --override-ini timeout=7200

# Tests of what each dependency does here, and of the commands.
BOUNDS_TESTS := tests/test_locks.py tests/test_images.py tests/test_video.py tests/test_export.py tests/inference/test_engines.py \
	tests/weights/test_files.py tests/weights/test_hub.py tests/data/test_dataset.py tests/data/test_parquet.py tests/data/test_shards.py \
	tests/data/test_decoding.py tests/reporting/test_report_page.py tests/demo/test_page.py \
	tests/demo/test_api.py tests/demo/test_notebook_forms.py tests/cli/test_cli.py
# A package that cannot be imported would only skip its tests.
BOUNDS_IMPORTS := av, fastapi, gradio, huggingface_hub, ipywidgets, limits, matplotlib, onnx, onnxruntime, onnxscript, openvino, \
	pyarrow, sklearn, tensorboard, uvicorn, webdataset
# Only the pinned torch has a build for CPUs alone in the package index; TORCH=torch==2.11.0 selects another.
TORCH := $(shell sed -n '/^torch==/p' constraints.txt)

test-lowest:     ## some tests with the lowest versions that pyproject.toml admits
test-newest:     ## the same with the newest versions
# A new environment each time, since newer versions appear. Old versions warn of newer ones beside them.
test-lowest test-newest: test-%:
	$(PYTHON) -m venv --clear .venv-$*
	echo '$(TORCH)' > .venv-$*/constraints.txt
	$(if $(filter lowest,$*),$(PYTHON) scripts/lower_bounds.py >> .venv-$*/constraints.txt)
	.venv-$*/bin/python -m pip install --quiet --no-compile --disable-pip-version-check --constraint .venv-$*/constraints.txt torch
	.venv-$*/bin/python -m pip install --quiet --no-compile --disable-pip-version-check --constraint .venv-$*/constraints.txt \
		--editable '.[train,evaluate,demo,hub,data,export,openvino,video,notebook]' pytest pytest-timeout pytest-xdist \
		safetensors
	.venv-$*/bin/python -c 'import $(BOUNDS_IMPORTS)'
	OMP_NUM_THREADS=1 .venv-$*/bin/python -m pytest $(PARALLEL) \
		$(if $(filter lowest,$*),--override-ini filterwarnings=) -m "not slow" $(BOUNDS_TESTS)

# An environment of its own, since this one has more than the package requires.
smoke: $(DEV)    ## build sdist and wheel, install the wheel into an empty environment, use it
	scripts/smoke.sh $(abspath $(BIN))/python

check: $(DEV) $(NODE)  ## formatter, linter, type checker, import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(if $(NODE),npm run --silent check,@echo "npm is not installed: the scripts of the exported page were not checked")

node_modules/.package-lock.json: package.json package-lock.json
	npm ci --silent
	touch $@

format: $(DEV) $(NODE) ## let the formatter and the linter mend what they can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(if $(NODE),npm run --silent format)

# A fresh environment: warnings of pages that did not change are errors, too.
site: $(DOCS)    ## build the site with the documentation: python -m http.server -d site
	rm -rf site
	$(BIN)/python -m sphinx --quiet --fresh-env --fail-on-warning --keep-going \
		--conf-dir docs --doctree-dir build/doctrees . site
	$(BIN)/biggan export --format web site/live

pictures: $(DEV) ## make the pictures of README and docs anew
	$(BIN)/python scripts/make_pictures.py

bench: $(DEV)    ## the benchmarks in short, each against a named peer in the same run
	for script in sampling memory serving; do $(BIN)/python benchmarks/$$script.py --quick || exit 1; done
	for script in cold_start data_loading exported_page gpu gradients inception loading metrics page precision resampling stability \
		training; do \
		$(BIN)/python benchmarks/$$script.py || exit 1; \
	done

clean:           ## remove the environment and caches
	rm -rf $(VENV) .venv-lowest .venv-newest build site node_modules .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
