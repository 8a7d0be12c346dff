"""The command line, ``xpu-amp``: one module a command, loaded when its command is called."""
