"""Runs kernels on the host's processor by Intel's OpenCL runtime."""
