"""Finds the packages: two of them lie in folders of their own beside the one that holds them once installed."""

from setuptools import find_packages, setup

BESIDE = ("lowering", "runtime")
inside = find_packages(include=["xpu_amp_dynamo*"])
beside = find_packages(include=[pattern for name in BESIDE for pattern in (name, f"{name}.*")])

setup(
    packages=[*inside, *(f"xpu_amp_dynamo.{name}" for name in beside)],
    package_dir={f"xpu_amp_dynamo.{name}": name for name in BESIDE},
)
