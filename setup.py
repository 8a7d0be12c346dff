"""Finds the packages: two of them lie in folders of their own beside the one that holds them once installed."""

import sys
from pathlib import Path

from setuptools import find_packages, setup

BESIDE = ("lowering", "runtime")
# A folder with the package and nothing else, which an editable install looks in.
EDITABLE = Path(".editable")


def link_into_place() -> bool:
    """Link the folders to where they are imported from; tell whether this system could.

    Type checkers and editors follow such an install. The hook of setuptools for scattered folders, only Python follows.
    """
    links = {Path("xpu_amp_dynamo", name): name for name in BESIDE} | {EDITABLE / "xpu_amp_dynamo": "xpu_amp_dynamo"}
    try:
        EDITABLE.mkdir(exist_ok=True)
        for link, folder in links.items():
            if not link.is_symlink():
                link.symlink_to(Path("..", folder), target_is_directory=True)
    except OSError:
        return False
    return True


if "editable_wheel" in sys.argv and link_into_place():
    setup(packages=find_packages(str(EDITABLE)), package_dir={"": str(EDITABLE)})
else:
    inside = find_packages(include=["xpu_amp_dynamo*"])
    beside = find_packages(include=[pattern for name in BESIDE for pattern in (name, f"{name}.*")])
    setup(
        packages=sorted({*inside, *(f"xpu_amp_dynamo.{name}" for name in beside)}),
        package_dir={f"xpu_amp_dynamo.{name}": name for name in BESIDE},
    )
