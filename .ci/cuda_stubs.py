"""Let a CUDA build of torch run on a machine without CUDA, for its CPU part: write empty stand-ins of its libraries.

    VENV/bin/python .ci/cuda_stubs.py

Run it after ``pip install --no-deps torch==VERSION``, which leaves the libraries of CUDA out: gigabytes, of which a CPU
needs nothing. Every function that the build wants from them becomes one that reports the error "no device". Needs gcc
and readelf; takes seconds.
"""

from __future__ import annotations

import re
import subprocess
import sysconfig
import tempfile
from collections import defaultdict
from pathlib import Path

LIBRARIES = Path(sysconfig.get_paths()["purelib"], "torch", "lib")
SYSTEM = re.compile(
    r"(libc|libm|libdl|librt|libpthread|libstdc\+\+|libgcc_s|ld-linux-x86-64|libz|libgomp|libquadmath|libgfortran)[.-]"
)
OF_CUDA = ("cu", "nccl", "nv", "__cuda")
NO_DEVICE = "long {name}(void) {{ return 100; }}"
# What is asked for while torch is imported, or gives text.
OTHERS = {
    **dict.fromkeys(
        ("cudaGetErrorString", "cudaGetErrorName", "ncclGetErrorString", "cudnnGetErrorString"),
        'const char *{name}(void) {{ return "there is no CUDA: a stand-in"; }}',
    ),
    **dict.fromkeys(
        ("cudaGetLastError", "cudaPeekAtLastError", "cudnnGetVersion"), "long {name}(void) {{ return 0; }}"
    ),
    "cudaRuntimeGetVersion": "long {name}(int *version) {{ *version = 13000; return 0; }}",
    "cudaDriverGetVersion": "long {name}(int *version) {{ *version = 0; return 0; }}",
    "cudaGetDeviceCount": "long {name}(int *count) {{ *count = 0; return 100; }}",
    "ncclGetVersion": "long {name}(int *version) {{ *version = 23000; return 0; }}",
}

# By library, and by version of its symbols ("" for none).
Wanted = dict[str, dict[str, set[str]]]


def readelf(option: str, path: Path) -> list[str]:
    """Return the lines that readelf prints of a library."""
    printed = subprocess.run(["readelf", option, "--wide", path], capture_output=True, text=True, check=True)
    return printed.stdout.splitlines()


def needed_libraries(path: Path) -> set[str]:
    """Return the names of the libraries that a library is linked with."""
    return {match[1] for line in readelf("--dynamic", path) if (match := re.search(r"\(NEEDED\).*\[(.*)\]", line))}


def libraries_of_versions(path: Path) -> dict[str, str]:
    """Return, for every version of symbols that a library needs, the library which it is of."""
    libraries, current = {}, ""
    for line in readelf("--version-info", path):
        if match := re.search(r"File: (\S+)", line):
            current = match[1]
        elif current and (match := re.search(r"Name: (\S+) .*Version: \d+", line)):
            libraries[match[1]] = current
    return libraries


def symbols_of(path: Path) -> tuple[set[str], set[str]]:
    """Return the symbols that a library wants, unless it does without, and those that it defines."""
    rows = [line.split() for line in readelf("--dyn-syms", path)]
    rows = [row for row in rows if len(row) >= 8 and row[0].endswith(":")]
    defined = {row[7].partition("@")[0] for row in rows if row[6] != "UND"}
    return {row[7] for row in rows if row[6] == "UND" and ("@" in row[7] or row[4] != "WEAK")}, defined


def wanted_of_all(paths: list[Path]) -> Wanted:
    """Return what the libraries want of others that are neither theirs nor the system's."""
    own = {path.name for path in paths}
    wanted: Wanted = defaultdict(lambda: defaultdict(set))
    without_version: set[str] = set()
    defined: set[str] = set()
    for path in paths:
        for library in needed_libraries(path) - own:
            if not SYSTEM.match(library):
                wanted[library][""] |= set()
        libraries = libraries_of_versions(path)
        undefined, of_this = symbols_of(path)
        defined |= of_this
        for symbol in undefined:
            name, _, version = symbol.replace("@@", "@").partition("@")
            library = libraries.get(version)
            if not version:
                without_version.add(name)
            elif library and not SYSTEM.match(library):
                wanted[library][version].add(name)
    runtime = next(library for library in wanted if library.startswith("libcudart"))
    wanted[runtime][""] |= {name for name in without_version - defined if name.startswith(OF_CUDA)}
    return wanted


def build(library: str, symbols: dict[str, set[str]], folder: Path) -> None:
    """Compile a stand-in of a library that has symbols of these versions."""
    source, script = folder / "library.c", folder / "library.map"
    names = sorted(set().union(*symbols.values()))
    source.write_text("\n".join(OTHERS.get(name, NO_DEVICE).format(name=name) for name in names) + "\n")
    versions = {version: sorted(names) for version, names in symbols.items() if version}
    script.write_text(
        "".join(f"{version} {{ global: {' '.join(f'{n};' for n in names)} }};\n" for version, names in versions.items())
    )
    command = [
        "gcc",
        "-shared",
        "-fPIC",
        "-w",
        "-fno-builtin",
        "-o",
        str(LIBRARIES / library),
        f"-Wl,-soname,{library}",
    ]
    command += [str(source), *([f"-Wl,--version-script={script}"] if versions else [])]
    subprocess.run(command, check=True)


def main() -> None:
    """Write all stand-ins beside torch's own libraries."""
    wanted = wanted_of_all(sorted(path for path in LIBRARIES.glob("*.so*") if not SYSTEM.match(path.name)))
    with tempfile.TemporaryDirectory() as folder:
        for library, symbols in sorted(wanted.items()):
            build(library, symbols, Path(folder))
    print(f"{len(wanted)} libraries of CUDA have stand-ins")


main()
