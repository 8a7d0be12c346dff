"""The names of Intel Extension for PyTorch (IPEX) that are about precision, for programs that were written for it."""
