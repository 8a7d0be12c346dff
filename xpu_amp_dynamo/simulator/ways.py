"""The ways to compile a model that are compared with each other."""

WAYS = ("xpu_amp", "stock autocast", "float32")
