"""Architectures that others wrote, made tiny and compared in every way that the backend runs them."""

import os

from tests.architectures.torchvision_ops import import_torchvision

# Before any of the libraries is imported: nothing is downloaded, and all of them look for torchvision.
os.environ["HF_HUB_OFFLINE"] = "1"
import_torchvision()
