"""What PyTorch keeps to itself, each private API wrapped once, with the versions that it was checked on."""
