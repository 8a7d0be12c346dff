"""What Inductor's cache knows our passes by."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from torch._inductor.custom_graph_pass import CustomGraphPass, get_hash_for_files

import xpu_amp_dynamo.inductor.passes as passes
from xpu_amp_dynamo.lowering.pipeline import COMPILED, ROUNDING_LESS, without


def uuids():
    passes.hash_of_sources.cache_clear()
    return repr(passes.CastPasses(COMPILED).uuid()), repr(passes.SchedulePass().uuid())


def test_a_change_of_any_file_is_a_new_key(tmp_path, monkeypatch):
    copies = []
    for number, file in enumerate(passes.source_files()):
        copies.append(tmp_path / f"{number:03}.py")
        copies[-1].write_bytes(Path(file).read_bytes())
    assert len(copies) > 50
    monkeypatch.setattr(passes, "source_files", lambda: tuple(map(str, copies)))
    # What files are hashed is remembered elsewhere too: by torch, for the last files it was given.
    forget = get_hash_for_files.cache_clear
    before = uuids()
    for copied in copies:
        text = copied.read_bytes()
        copied.write_bytes(text + b"\n")
        forget()
        assert all(a != b for a, b in zip(before, uuids(), strict=True)), copied
        copied.write_bytes(text)
    forget()
    assert uuids() == before
    monkeypatch.undo()
    passes.hash_of_sources.cache_clear()


def test_all_code_of_the_package_is_hashed():
    files = set(passes.source_files())
    loaded = {n: m.__file__ for n, m in sys.modules.items() if n.split(".")[0] == "xpu_amp_dynamo" and m.__file__}
    assert len(loaded) > 30
    assert {name: file for name, file in loaded.items() if file not in files} == {}


class OfTheUser(CustomGraphPass):
    def __init__(self, name):
        self.name = name

    def __call__(self, graph):
        """Do nothing."""

    def uuid(self):
        return self.name


@pytest.mark.parametrize("join", [lambda run: passes.CastPasses((), [run]), lambda run: passes.SchedulePass([run])])
def test_passes_of_the_user_are_known_by_their_names(join):
    assert join(OfTheUser("a")).uuid() == join(OfTheUser("a")).uuid() != join(OfTheUser("b")).uuid()
    for nameless in (OfTheUser(None), print):
        assert join(nameless).uuid() != join(nameless).uuid()


def test_processes_agree_and_passes_differ():
    text = "import xpu_amp_dynamo.inductor.passes as p; print(p.CastPasses(()).uuid())"
    output = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True).stdout
    assert output.strip() == str(passes.CastPasses(()).uuid())
    assert passes.CastPasses(COMPILED).uuid() != passes.CastPasses(without(COMPILED, ROUNDING_LESS)).uuid()
