"""Properties of real Intel GPUs, as ``torch.xpu.get_device_properties`` gives them. Data only.

Sources: a Data Center GPU Max 1550 (one of its two stacks) is quoted in intel/torch-xpu-ops issue 3891, an Arc A770
in users' installation logs of torch 2.7 and 2.3. For the Arc B580 no such print was found: units, memory, bus and
cache are those of Intel's product page, the rest is that of the Xe2 architecture. Architecture numbers are those of
SYCL's ``ext::oneapi::experimental::architecture``.
"""

from __future__ import annotations

from dataclasses import dataclass

MEBIBYTE = 2**20


@dataclass(frozen=True)
class XpuProperties:
    """What PyTorch, Inductor and Triton read of an XPU. Field names and units are those of torch 2.13."""

    name: str
    device_id: int
    version: str
    architecture: int
    total_memory: int
    max_compute_units: int
    gpu_eu_count: int
    gpu_subslice_count: int
    max_num_sub_groups: int
    sub_group_sizes: tuple[int, ...]
    local_mem_size: int
    last_level_cache_size: int
    memory_clock_rate: int
    memory_bus_width: int
    has_fp64: bool
    max_work_group_size: int = 1024
    has_fp16: bool = True
    has_atomic64: bool = True
    has_bfloat16_conversions: bool = True
    has_subgroup_matrix_multiply_accumulate: bool = True
    has_subgroup_matrix_multiply_accumulate_tensor_float32: bool = True
    has_subgroup_2d_block_io: bool = True
    is_integrated_gpu: bool = False
    platform_name: str = "Intel(R) oneAPI Unified Runtime over Level-Zero"
    vendor: str = "Intel(R) Corporation"
    type: str = "gpu"
    driver_version: str = "simulated"
    uuid: str = "simulated"


PARTS = {
    "max-1550": XpuProperties(
        name="Intel(R) Data Center GPU Max 1550",
        device_id=0x0BD5,
        version="12.60.7",
        architecture=0x30F000700,
        total_memory=65520 * MEBIBYTE,
        max_compute_units=512,
        gpu_eu_count=512,
        gpu_subslice_count=64,
        max_num_sub_groups=64,
        sub_group_sizes=(16, 32),
        local_mem_size=128 * 1024,
        last_level_cache_size=192 * MEBIBYTE,
        memory_clock_rate=3200,
        memory_bus_width=64,
        has_fp64=True,
    ),
    "arc-b580": XpuProperties(
        name="Intel(R) Arc(TM) B580 Graphics",
        device_id=0xE20B,
        version="20.1.4",
        architecture=0x500400400,
        total_memory=12288 * MEBIBYTE,
        max_compute_units=160,
        gpu_eu_count=160,
        gpu_subslice_count=20,
        max_num_sub_groups=64,
        sub_group_sizes=(16, 32),
        local_mem_size=128 * 1024,
        last_level_cache_size=18 * MEBIBYTE,
        memory_clock_rate=2375,
        memory_bus_width=192,
        has_fp64=True,
    ),
    "arc-a770": XpuProperties(
        name="Intel(R) Arc(TM) A770 Graphics",
        device_id=0x56A0,
        version="12.55.8",
        architecture=0x30DC00800,
        total_memory=15473 * MEBIBYTE,
        max_compute_units=512,
        gpu_eu_count=512,
        gpu_subslice_count=32,
        max_num_sub_groups=128,
        sub_group_sizes=(8, 16, 32),
        local_mem_size=64 * 1024,
        last_level_cache_size=16 * MEBIBYTE,
        memory_clock_rate=2187,
        memory_bus_width=256,
        has_fp64=False,
        has_subgroup_matrix_multiply_accumulate_tensor_float32=False,
        has_subgroup_2d_block_io=False,
    ),
}
