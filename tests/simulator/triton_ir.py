"""Compiles generated Triton kernels to Triton's intermediate representation, for which no GPU is needed."""

from __future__ import annotations

import re
from unittest import mock

from torch._inductor.codecache import PyCodeCache
from torch._inductor.runtime import triton_helpers
from triton._C.libtriton import ir
from triton.backends.compiler import GPUTarget
from triton.compiler.compiler import ASTSource, make_backend

KERNEL = re.compile(r"(\w+) = async_compile\.triton\('\w+', '''\n(.*?)\n''', device_str='xpu'\)", re.DOTALL)


def kernel_sources(report):
    """Return the Triton kernels of a report, by name and graph."""
    return {
        f"{graph} {name}": (name, source)
        for graph, code in report.generated.items()
        for name, source in KERNEL.findall(code)
    }


def compile_to_ir(name, source):
    """Return the Triton IR of a generated kernel as text; raises what Triton raises."""
    with mock.patch.object(triton_helpers, "set_driver_to_gpu"):
        PyCodeCache.cache_clear()  # it holds the kernel as the simulator loaded it, for the interpreter
        kernel = getattr(PyCodeCache.load(source), name)
    # Any target will do: the stages that differ between GPUs come after this representation.
    backend = make_backend(GPUTarget("cuda", 80, 32))
    config = kernel.configs[0].kwargs
    signature = {key: kind for key, kind in kernel.triton_meta["signature"].items() if key not in config}
    constants = {**kernel.triton_meta["constants"], **config}
    signature.update(dict.fromkeys(constants, "constexpr"))
    ordered = {key: signature[key] for key in kernel.fn.arg_names}
    constexprs = {(kernel.fn.arg_names.index(key),): value for key, value in constants.items()}
    ast = ASTSource(kernel.fn, ordered, constexprs)
    options = backend.parse_options({})
    context = ir.context()
    ir.load_dialects(context)
    backend.load_dialects(context)
    functions = backend.get_codegen_implementation(options)
    module = ast.make_ir(backend.target, options, functions, backend.get_module_map(), context)
    assert module.verify()
    return str(module)
