"""The group of commands: help, versions, exit codes and errors."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest
import torch

import xpu_amp_dynamo
from xpu_amp_dynamo.command_line.main import COMMANDS, main


def test_help_names_all_commands_and_loads_no_torch():
    program = (
        "import sys\nfrom xpu_amp_dynamo.command_line.main import main\n"
        "assert main(['--help']) == 0\nassert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    listed, _, exit_codes = done.stdout.partition("Commands:\n")[2].partition("\n\n")
    assert [line.split()[0] for line in listed.splitlines()] == [*COMMANDS]
    assert exit_codes.startswith("  Exit codes")


def test_both_names_run_it():
    for line in ([sys.executable, "-m", "xpu_amp_dynamo"], [str(sys.executable).replace("python", "xpu-amp")]):
        done = subprocess.run([*line, "nothing"], capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 2, line
        assert "no such command 'nothing'" in done.stderr


def test_version(run):
    result = run("--version")
    assert result.output == f"xpu-amp {xpu_amp_dynamo.__version__}, torch {torch.__version__}\n"
    assert result.exit_code == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["docter"], "did you mean 'doctor'?"),
        (["doctor", "--chek"], "'--check'"),
        (["doctor", "m:f", "--check"], "leave MODULE:FACTORY or --check out"),
        (["doctor", "--train"], "are about a model"),
        (["doctor", "--dtype", "float16"], "are about a model"),
        (["doctor", "--simulated-xpu"], "give --check or MODULE:FACTORY"),
        (["doctor", "--check", "--simulated-xpu", "--device", "cpu"], "leave --device cpu out"),
        (["doctor", "m:f", "--dtype", "float64"], "cannot lower to 'float64'; use torch.bfloat16 or torch.float16"),
        (["doctor", "m:f", "--inductor", "max_autotune"], "give KEY=VALUE"),
        (["kernels", "m:f", "--part", "max-1500"], "'max-1550'"),
        (["kernels", "m:f", "--beside", "stock"], "'stock autocast'"),
        (["export", "m:f", "--out", "model.pt"], "must end in .pt2"),
        (["export", "m:f"], "--out"),
        (["bench"], "MODULE:FACTORY"),
        (["bench", "m:f", "--rounds", "0"], "--rounds"),
        (["policy", "diff", "xpu"], "SECOND"),
    ],
)
def test_wrong_usage_ends_with_2(run, words, message):
    result = run(*words)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["my_models"], 1, "names no function"),
        (["my_models:nope"], 1, "has no function 'nope', expected MODULE:FACTORY"),
        (["my_models:layr"], 1, "did you mean 'layer'?"),
        (["my_modles:layer"], 1, "did you mean 'my_models'?"),
        (["./no_file.py:layer"], 1, "No such file"),
        (["my_models:not_callable"], 1, "has no function 'not_callable'"),
        (["my_models:wrong"], 1, "must return a model and a tuple or dict of its arguments, not int"),
        (["my_models:sized"], 1, "is called without arguments, and needs width, depth; give them defaults"),
        (["my_models:layer", "--policy", "xpuu"], 2, "did you mean 'xpu'?"),
        (["my_models:layer", "--weights", "cashed"], 2, "it must be one of ['recast', 'cached']"),
        (["my_models:layer", "--skip-passes", "fold_cast"], 2, "did you mean 'fold_casts'?"),
        (["my_models:layer", "--inductor", "max_autotun=True"], 2, "'max_autotune'"),
        (["my_models:layer", "--device", "tpu"], 2, "use one of ['cpu', 'cuda', 'xpu']"),
        (["my_models:frozen", "--train", "--inner-backend", "eager"], 1, "leave --train out"),
        (["my_models:banned", "--policy", "torch", "--inner-backend", "eager"], 1, "binary_cross_entropy is unsafe"),
    ],
)
def test_errors_of_ours_are_printed_and_end_with_1_or_2_where_a_value_is_wrong(run, words, code, message):
    result = run("doctor", *words)
    assert result.exit_code == code
    assert result.stderr.splitlines()[-1].startswith("error: ")
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_an_error_of_the_user_s_code_is_not_hidden(run, tmp_path):
    (tmp_path / "bad_model.py").write_text("def make():\n    raise KeyError('weights')\n")
    with pytest.raises(KeyError, match="weights"):
        run("doctor", "./bad_model.py:make")


def test_a_device_that_is_not_there_is_refused(run):
    if torch.xpu.is_available():
        pytest.skip("there is an XPU")
    result = run("bench", "my_models:layer", "--device", "xpu")
    assert result.exit_code == 2
    assert "there is no 'xpu' device here; use --device" in result.stderr


def test_main_returns_the_status(capsys):
    assert main(["policy", "show", "nope"]) == 2
    assert "error: unknown policy 'nope'" in capsys.readouterr().err
    assert main(["policy", "show", "xpu", "--op", "softmax"]) == 0
    assert main(["nothing"]) == 2


@pytest.mark.parametrize("name", ["./importing.py:layer", "importing:layer"])
def test_what_a_user_s_file_fails_to_import_is_named_with_its_traceback(run, name):
    with open("importing.py", "w") as file:
        file.write("import nothing_of_this_name\n")
    importlib.invalidate_caches()
    with pytest.raises(ModuleNotFoundError, match="nothing_of_this_name"):
        run("doctor", name)


@pytest.mark.parametrize("name", ["no_such:layer", "no.such:layer", "./no_such.py:layer"])
def test_a_module_that_is_not_there_is_named(run, name):
    result = run("doctor", name)
    assert result.exit_code == 1
    assert f"cannot find {name!r}, expected MODULE:FACTORY" in result.stderr
