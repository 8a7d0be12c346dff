# Everything runs in a virtual environment of its own, made on first use.
#   make demo    compile two real models with backend="xpu_amp" on the best device present
#   make test    the tests, without the complete sweeps
#   make test-slow   the complete sweeps that `make test` leaves out
#   make sweep   larger sweeps, which CI leaves out
#   make fuzz    as many random programs as PROGRAMS says, others in each run
#   make check   style and types
#   make benchmark  all tables of benchmarks/, with JSON in $(RESULTS); an hour on two cores
# On a machine with an Intel GPU, name the index of PyTorch's XPU wheels (see pytorch.org, "Get Started"):
#   make demo TORCH_INDEX=...

PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=
# As many as there are cores, of which each needs 2 GB of memory.
WORKERS ?= $(shell cores=$$(nproc 2>/dev/null || echo 2); echo $$((cores < 8 ? cores : 8)))
RESULTS ?= benchmark_results
PROGRAMS ?= 5000
BIN := $(VENV)/bin
EAGER_TESTS := tests/runtime tests/conformance/test_eager.py tests/test_specification_snippets.py
# One thread a process: threads of more processes than cores only wait for each other.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS)

# PyPI's torchvision is built for CUDA. Beside another build of torch it cannot be imported, and then neither can half of
# transformers; tests/architectures finds it here and does without its compiled ops.
SET_TORCHVISION_ASIDE = { $(BIN)/pip install --quiet --constraint constraints.txt --no-deps --target $(VENV)/aside \
	torchvision && $(BIN)/pip uninstall --quiet --yes torchvision; }

.PHONY: demo test test-slow sweep fuzz check benchmark clean

demo: $(VENV)/.installed
	$(BIN)/python -m benchmarks.demo

# The second run repeats the eager tests on the simulated XPU.
test: $(VENV)/.installed
	$(PYTEST)
	$(PYTEST) --device xpu $(EAGER_TESTS)

test-slow: $(VENV)/.installed
	$(PYTEST) -m slow

sweep: $(VENV)/.installed
	$(PYTEST) -m sweep

fuzz: $(VENV)/.installed
	RANDOM_PROGRAMS=$(PROGRAMS) $(PYTEST) -m slow --timeout 0 tests/programs/test_random_programs.py

check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tests/check_types.py

# Kernels come last: they are counted on the simulated XPU, which only CPU builds of torch have.
benchmark: $(VENV)/.installed
	mkdir -p $(RESULTS)
	for table in eager_autocast compiled precision kernels; do \
		$(BIN)/python -m benchmarks.$$table --json $(RESULTS)/$$table.json || exit 1; \
	done

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet torch==$$(sed -n 's/^torch==//p' constraints.txt) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[test]"
	$(BIN)/python -c "import torchvision" 2>/dev/null || $(SET_TORCHVISION_ASIDE)
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
