"""A trial: a copy of the project with one fault in it, and the oracle or a test that runs there.

Touches a temporary folder, which goes at the end.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ORACLE", "Fault", "Outcome", "try_fault"]

ROOT = Path(__file__).resolve().parents[2]
ORACLE = "the oracle"
_LIMIT = 240
_FOUND = re.compile(r"^first failure after ([\d,]+) verdicts: (.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault: a piece of a file that is replaced.

    Attributes:
        name: what is wrong then, in a few words.
        file: the file, from the project's folder.
        old: the piece, which has to be there exactly once.
        new: what stands in its place.
        killer: who has to find it: the oracle, or a test, as pytest names it.
        verdicts: how many the oracle may take.
        focus: the construct that it asks about most; empty for none.
        level: which oracle: that of rows, of streams, or both.
    """

    name: str
    file: str
    old: str
    new: str
    killer: str = ORACLE
    verdicts: int = 40_000
    focus: str = ""
    level: str = "rows"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a fault.

    Attributes:
        fault: the fault.
        killed: whether it was found; None when it could not be tried.
        told: how it was found, or why not.
        seconds: how long that took.
    """

    fault: Fault
    killed: bool | None
    told: str
    seconds: float


def try_fault(fault: Fault, seed: str, server: str) -> Outcome:
    """Run the killer of a fault on a copy that has it; `server` is the DSN of a private server for the oracle."""
    begun = time.monotonic()
    with _copy() as folder:
        path = folder / fault.file
        source = path.read_text() if path.exists() else ""
        count = source.count(fault.old) if fault.old else 1
        if count != 1:
            return Outcome(fault, None, f"its piece is in {fault.file} {count} times", time.monotonic() - begun)
        path.write_text(source.replace(fault.old, fault.new) if fault.old else source)
        killed, told = _oracle(fault, folder, seed, server) if fault.killer == ORACLE else _test(fault, folder)
    return Outcome(fault, killed, told, time.monotonic() - begun)


@contextmanager
def _copy() -> Iterator[Path]:
    """The project in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="cdc-mutant-") as name:
        folder = Path(name)
        # The server's account may have to read scripts of the package.
        folder.chmod(0o755)
        ignored = shutil.ignore_patterns("__pycache__", "wire")
        for part in ("cdc", "tests", "sql"):
            shutil.copytree(ROOT / part, folder / part, ignore=ignored)
        shutil.copy(ROOT / "pyproject.toml", folder)
        yield folder


def _oracle(fault: Fault, folder: Path, seed: str, server: str) -> tuple[bool | None, str]:
    command = ["-m", "tests.oracle", "--verdicts", str(fault.verdicts), "--seed", seed, "--first", "--server", server]
    command += ["--focus", fault.focus, "--level", fault.level]
    code, output = _run(command, folder)
    found = _FOUND.search(output)
    if found is not None:
        return True, f"{found[1]} verdicts: {found[2]}"
    if code == 0:
        return False, f"not found in {fault.verdicts:,} verdicts"
    # A fault that makes the evaluator crash is found too, but says less.
    return None, f"the oracle ended with {code}: {_last(output)}"


def _test(fault: Fault, folder: Path) -> tuple[bool | None, str]:
    command = [
        "-m",
        "pytest",
        "-q",
        "-x",
        "--timeout",
        "100",
        "-p",
        "no:cacheprovider",
        "--show-capture",
        "no",
        fault.killer,
    ]
    code, output = _run(command, folder)
    if code == 1:
        return True, fault.killer
    return (False, f"{fault.killer} passes") if code == 0 else (None, f"pytest ended with {code}: {_last(output)}")


def _run(command: list[str], folder: Path) -> tuple[int, str]:
    """Exit code and output of a Python program whose modules are those of the folder."""
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, timeout=_LIMIT
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return -1, f"not done in {_LIMIT} s"
    return done.returncode, done.stdout + done.stderr


def _last(output: str) -> str:
    lines = [line for line in output.splitlines() if line.strip()]
    return lines[-1] if lines else "nothing was said"
