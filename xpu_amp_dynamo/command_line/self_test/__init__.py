"""The self test, ``xpu-amp doctor --check``: what the first person with an Intel GPU runs to tell whether it works."""
