# Everything runs in a virtual environment of its own, made on first use.
#   make demo    compile two real models with backend="xpu_amp" on the best device present
#   make test    the tests, without the complete sweeps
#   make test-slow   the complete sweeps that `make test` leaves out
#   make test-opencl   the tests that need Intel's compiler and its OpenCL runtime, which it installs: 1.6 GB
#   make test-integrations   the tests of accelerate, transformers' Trainer, Lightning, diffusers, peft and timm
#   make sweep   larger sweeps, which CI leaves out
#   make fuzz    as many random programs as PROGRAMS says, others in each run
#   make check   style and types
#   make docs    the documentation, as pages in $(DOCS)/index.html
#   make test-torch TORCH=2.15.0   the central tests on another version of torch, in an environment of its own
#   make benchmark  all tables of benchmarks/, with JSON in $(RESULTS); an hour on two cores
# On a machine with an Intel GPU, name the index of PyTorch's XPU wheels (see pytorch.org, "Get Started"):
#   make demo TORCH_INDEX=...

PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=
# As many as there are cores, of which each needs 2 GB of memory.
WORKERS ?= $(shell cores=$$(nproc 2>/dev/null || echo 2); echo $$((cores < 8 ? cores : 8)))
RESULTS ?= benchmark_results
DOCS ?= docs_html
PROGRAMS ?= 5000
TORCH ?= 2.15.0
# Builds of other versions: PyTorch's for CPUs. CUDA_STUBS=1 takes a build for CUDA from pip's own index, without CUDA.
CPU_INDEX ?= https://download.pytorch.org/whl/cpu
CUDA_STUBS ?=
BIN := $(VENV)/bin
TORCH_VENV := $(VENV)-torch-$(TORCH)
# Without the pins of torch and what belongs to it, and without a constraint that the machine has for pip.
TORCH_PIP = PIP_CONSTRAINT=/dev/null $(TORCH_VENV)/bin/pip install --quiet --constraint $(TORCH_VENV)/constraints.txt
INSTALL_FOR_CPU = $(TORCH_PIP) torch==$(TORCH) --index-url $(CPU_INDEX) && $(TORCH_PIP) --editable ".[test-core,simulator]"
INSTALL_FOR_CUDA = $(TORCH_PIP) --no-deps torch==$(TORCH) packaging --editable . && \
	$(TORCH_PIP) $$($(TORCH_VENV)/bin/python .ci/needs.py torch "xpu-amp-dynamo[test-core,simulator]") && \
	$(TORCH_VENV)/bin/python .ci/cuda_stubs.py
# Kernels of real models and of random programs on the simulated XPU.
OPENCL_TESTS := tests/models/test_models.py::test_inductor_inference tests/models/test_models.py::test_inductor_training_step_in_a_region \
	tests/programs/test_float32_programs.py::test_float32_programs_through_inductor \
	tests/programs/test_random_programs_in_regions.py \
	tests/programs/test_training.py::test_inductor_s_curve[unet-bfloat16]
EAGER_TESTS := tests/runtime tests/conformance/test_eager.py tests/test_specification_snippets.py
CENTRAL_TESTS := tests/test_backend.py tests/test_policy.py tests/test_autocast_test_lists.py tests/test_private_names.py \
	tests/test_torch_version.py tests/test_specification_snippets.py tests/lowering tests/runtime \
	tests/conformance/test_eager.py tests/conformance/test_compiled_ops.py::test_in_a_region tests/programs
# What takes longest, and depends least on the version.
NOT_CENTRAL := $(foreach name,$(addprefix programs/test_,accumulation deployment distributed dynamic_shapes float32_programs \
	kept_modules memory norms random_programs training) lowering/test_linear_work $(addprefix lowering/aten/test_,long_graphs \
	random_graphs) runtime/test_weight_sequences,--ignore tests/$(name).py)
# One thread a process: threads of more processes than cores only wait for each other.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS)

define INSTALL_TORCH
$(PYTHON) -m venv $(VENV)
$(BIN)/pip install --quiet torch==$$(sed -n 's/^torch==//p' constraints.txt) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
endef
COMMA := ,
# Builds of torch for GPUs bring the Triton that is theirs. PyPI's would take its place, and generates nothing for XPUs.
AND_SIMULATOR := $(if $(TORCH_INDEX),,$(COMMA)simulator)

# PyPI's torchvision is built for CUDA. Beside another build of torch it cannot be imported, and then neither can half of
# transformers; tests/architectures finds it here and does without its compiled ops.
SET_TORCHVISION_ASIDE = { $(BIN)/pip install --quiet --constraint constraints.txt --no-deps --target $(VENV)/aside \
	torchvision && $(BIN)/pip uninstall --quiet --yes torchvision; }

.PHONY: demo test test-slow test-torch test-integrations test-opencl sweep fuzz check docs benchmark clean

# It needs less than the tests, but takes their environment where there is one.
demo: $(or $(wildcard $(VENV)/.installed),$(VENV)/.demo)
	$(BIN)/python -m benchmarks.demo

# The second run repeats the eager tests on the simulated XPU.
test: $(VENV)/.installed
	$(PYTEST)
	$(PYTEST) --device xpu $(EAGER_TESTS)

test-slow: $(VENV)/.installed
	$(PYTEST) -m slow

test-torch: $(TORCH_VENV)/.installed
	OMP_NUM_THREADS=1 $(TORCH_VENV)/bin/python -m pytest -n $(WORKERS) $(CENTRAL_TESTS) $(NOT_CENTRAL)

test-integrations: $(VENV)/.integrations
	$(PYTEST) tests/integrations

test-opencl: $(VENV)/.opencl
	$(PYTEST) $(addprefix tests/simulator/test_,$(addsuffix .py,intel_compiler opencl ops templates))
	$(PYTEST) -m "not sweep" --timeout 0 --device xpu --xpu-mode opencl $(OPENCL_TESTS)

sweep: $(VENV)/.installed
	$(PYTEST) -m sweep

fuzz: $(VENV)/.installed
	RANDOM_PROGRAMS=$(PROGRAMS) $(PYTEST) -m slow --timeout 0 tests/programs/test_random_programs.py

check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tests/check_types.py

# Whatever Sphinx warns of is an error.
docs: $(VENV)/.docs
	$(BIN)/python -m sphinx -W --keep-going -n -q -E -b html docs $(DOCS)

# Kernels come last: they are counted on the simulated XPU, which only CPU builds of torch have.
benchmark: $(VENV)/.installed
	mkdir -p $(RESULTS)
	for table in eager_autocast compiled precision kernels; do \
		$(BIN)/python -m benchmarks.$$table --json $(RESULTS)/$$table.json || exit 1; \
	done

$(VENV)/.installed: pyproject.toml setup.py constraints.txt
	@echo "Installing into $(VENV): 2.5 GB of disk, three minutes on two cores."
	$(INSTALL_TORCH)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[test$(AND_SIMULATOR)]"
	$(BIN)/python -c "import torchvision" 2>/dev/null || $(SET_TORCHVISION_ASIDE)
	touch $@

$(VENV)/.demo: pyproject.toml setup.py constraints.txt
	@echo "Installing into $(VENV): 1.9 GB of disk, two minutes on two cores."
	$(INSTALL_TORCH)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[demo$(AND_SIMULATOR)]"
	touch $@

$(VENV)/.opencl: $(VENV)/.installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[opencl]"
	$(BIN)/python -m xpu_amp_dynamo install-compiler
	touch $@

$(VENV)/.docs: $(VENV)/.installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[docs]"
	touch $@

$(VENV)/.integrations: $(VENV)/.installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[test-integrations]"
	touch $@

$(TORCH_VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(TORCH_VENV)
	sed '/^torch/d; /^triton/d; /^setuptools/d' constraints.txt > $(TORCH_VENV)/constraints.txt
	$(if $(CUDA_STUBS),$(INSTALL_FOR_CUDA),$(INSTALL_FOR_CPU))
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-torch-* build *.egg-info $(DOCS) docs/generated
