"""Compiles kernels as an Intel GPU's own compiler does: to SPIR-V by Triton for XPUs, to machine code by ocloc."""
