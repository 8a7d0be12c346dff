"""The folder to put on the import path for ``import intel_extension_for_pytorch`` to find the stand-in."""
