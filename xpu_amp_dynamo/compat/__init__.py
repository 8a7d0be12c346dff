"""Wrappers of what PyTorch keeps to itself, with the versions that they were checked on."""
