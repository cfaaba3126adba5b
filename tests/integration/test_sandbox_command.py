"""`cdc sandbox` prints an address or runs a command, and leaves nothing behind."""

from __future__ import annotations

import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

ROOT = Path(__file__).parents[2]

# The errors are mapped to exit codes as the command group does it.
PROGRAM = """
import sys
from cdc.daemon.sandbox import sandbox
from cdc.errors import CdcError, ConfigurationError
try:
    sandbox(prog_name="cdc sandbox")
except CdcError as error:
    print(error, file=sys.stderr)
    sys.exit(2 if isinstance(error, ConfigurationError) else 1)
"""
SH = ["--", "/bin/sh", "-c"]
PYTHON = ["--", sys.executable, "-c"]
DSN = r"postgresql://postgres:\S+@127\.0\.0\.1:\d+/postgres\?sslmode=disable"


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder for temporary files that every user can enter; it must be empty at the end of a test."""
    folder = Path(tempfile.mkdtemp(prefix="cdc-test-", dir="/tmp"))
    folder.chmod(0o1777)
    yield folder
    shutil.rmtree(folder)


def launch(scratch: Path, *arguments: str, **options: object) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(ROOT), *filter(None, [os.getenv("PYTHONPATH")])])
    settings: dict[str, object] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.Popen(  # type: ignore[call-overload, no-any-return]
        [sys.executable, "-c", PROGRAM, *arguments],
        text=True, env=os.environ | {"PYTHONPATH": path, "TMPDIR": str(scratch)}, **settings,
    )  # fmt: skip


def run(scratch: Path, *arguments: str) -> tuple[int, str, str]:
    process = launch(scratch, *arguments)
    output, errors = process.communicate(timeout=60)
    return process.returncode, output, errors


def emptied(folder: Path, seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while any(folder.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(folder.iterdir())


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().rstrip("\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_prints_the_address_and_waits(scratch: Path, number: signal.Signals) -> None:
    process = launch(scratch, "--supabase", "--set", "work_mem=5MB")
    dsn = first_line(process)
    with psycopg.connect(dsn) as connection:
        assert connection.execute("show work_mem").fetchone() == ("5MB",)
        assert connection.execute("select auth.uid()").fetchone() == (None,)
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert re.fullmatch(DSN, dsn)
    assert (process.returncode, output) == (0, "")
    assert "Ctrl-C stops it" in errors
    assert emptied(scratch)


def test_a_kill_leaves_nothing(scratch: Path) -> None:
    process = launch(scratch)
    dsn = first_line(process)
    process.kill()
    process.communicate(timeout=60)
    assert emptied(scratch)
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(dsn)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_it_starts_leaves_nothing(scratch: Path, number: signal.Signals) -> None:
    process = launch(scratch)
    while not any(scratch.iterdir()) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    # On a busy machine the signal can come after the start; then it is the usual end.
    usual = process.returncode == 0 and re.fullmatch(DSN, output.strip())
    assert usual or (process.returncode, output, errors) == (128 + number, "", "")
    assert emptied(scratch)


@pytest.mark.parametrize("code", [0, 7])
def test_ends_with_the_exit_code_of_the_command(scratch: Path, code: int) -> None:
    assert run(scratch, *SH, f"exit {code}") == (code, "", "")
    assert emptied(scratch)


def test_a_command_that_a_signal_kills(scratch: Path) -> None:
    assert run(scratch, *SH, "kill -9 $$") == (128 + 9, "", "")


def test_the_command_gets_the_address_and_its_own_options(scratch: Path) -> None:
    script = "import os, sys; print(os.environ['CDC_DSN'], os.environ['PATH'], *sys.argv[1:], sep='\\n')"
    code, output, errors = run(scratch, *PYTHON, script, "--supabase", "--", "-x")
    dsn, path, *arguments = output.splitlines()
    assert re.fullmatch(DSN, dsn)
    assert path == os.environ["PATH"]
    assert (code, arguments, errors) == (0, ["--supabase", "--", "-x"], "")


def test_the_command_reaches_the_server(scratch: Path) -> None:
    script = "import os, psycopg; print(psycopg.connect(os.environ['CDC_DSN']).execute('show wal_level').fetchone())"
    assert run(scratch, *PYTHON, script) == (0, "('logical',)\n", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_passes_signals_on(scratch: Path, number: signal.Signals) -> None:
    script = f"trap 'kill $child; exit 5' {number.name[3:]}; sleep 60 >/dev/null 2>&1 & child=$!; echo up; wait"
    process = launch(scratch, *SH, script, start_new_session=True)
    assert first_line(process) == "up"
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == 5
    assert emptied(scratch)


def test_ctrl_c_in_a_terminal_comes_once(scratch: Path) -> None:
    """The terminal sends SIGINT to the command itself; it must not get it a second time."""
    script = (
        "import signal, time; got = []; signal.signal(signal.SIGINT, lambda *_: got.append(1)); print('up', flush=True)"
    )
    script += "\nwhile not got: time.sleep(0.05)\ntime.sleep(0.7); raise SystemExit(40 + len(got))"
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ |= {"PYTHONPATH": f"{ROOT}{os.pathsep}{os.getenv('PYTHONPATH', '')}", "TMPDIR": str(scratch)}
        os.execv(sys.executable, [sys.executable, "-c", PROGRAM, *PYTHON, script])
    seen = b""
    while b"up" not in seen:
        seen += os.read(terminal, 1024)
    os.write(terminal, b"\x03")
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 41
    assert emptied(scratch)


def test_a_command_that_is_not_there(scratch: Path) -> None:
    code, output, errors = run(scratch, "--", "no-such-command")
    assert (code, output) == (127, "")
    assert errors == "cdc sandbox: the command no-such-command is not found.\n"


def test_a_command_that_is_not_executable(scratch: Path) -> None:
    code, _, errors = run(scratch, "--", __file__)
    assert code == 126
    assert "is not executable" in errors


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--set", "work_mem"], "--set takes NAME=VALUE, not 'work_mem'."),
        (["--set", "a b=1"], "'a b' is not the name"),
        (["--set", "no_such_setting=1"], 'unrecognized configuration parameter "no_such_setting"'),
        (["--set", "max_connections=-5"], "-5 is outside the valid range"),
        (["--supabse"], "--supabse"),
    ],
)
def test_mistakes_give_one_message_and_exit_code_2(scratch: Path, arguments: list[str], complaint: str) -> None:
    code, output, errors = run(scratch, *arguments)
    assert (code, output) == (2, "")
    assert complaint in errors
    assert "Traceback" not in errors
    assert emptied(scratch)
