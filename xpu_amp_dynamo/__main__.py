"""``python -m xpu_amp_dynamo``: the command line, as ``xpu-amp`` is."""

from xpu_amp_dynamo.command_line.main import main, run

__all__ = ["main"]

if __name__ == "__main__":
    run()
