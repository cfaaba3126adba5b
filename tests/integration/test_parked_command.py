"""The command `cdc parked`, on a real database, with and without a consumer that runs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

import cdc
from tests.harness import until
from tests.integration.test_parking import Picky, parking

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def state_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def command(database: str, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Calls `cdc parked …` as a process; exit code, output and errors."""
    monkeypatch.setenv("CDC_DSN", database)

    def call(*words: str, answer: str = "") -> tuple[int, str, str]:
        done = subprocess.run(
            [sys.executable, "-m", "cdc", "parked", *words], capture_output=True, text=True, timeout=60, input=answer
        )
        return done.returncode, done.stdout, done.stderr

    return call


@pytest.fixture
def lot(database: str, db: psycopg.Connection) -> list[str]:
    """Three events of keys 1, 2 and 3 that were parked by a consumer that is gone; their ids."""
    with parking("blocking", database, Picky(1, 2, 3)) as it:
        db.execute("INSERT INTO wells VALUES (1), (2), (3), (4)")
        it.caught_up(db)
    return [id for (id,) in db.execute("SELECT id FROM cdc.parked ORDER BY number").fetchall()]


@pytest.fixture
def outdated(lot: list[str], database: str, db: psycopg.Connection) -> list[str]:
    """The same; the row of the first was changed since."""
    with parking("blocking", database, Picky()) as it:
        db.execute("UPDATE wells SET name = 'b' WHERE id = 1")
        it.caught_up(db)
    return lot


def test_list(command: Command, lot: list[str]) -> None:
    code, output, _ = command("list")
    lines = output.splitlines()
    assert (code, [line.split()[0] for line in lines]) == (0, lot)
    assert "ingest  mine: INSERT public.wells 1 at " in lines[0]
    assert lines[0].endswith("(1 attempts; ValueError: no room)")
    code, output, _ = command("list", "--json")
    records = [json.loads(line) for line in output.splitlines()]
    assert [(each["id"], each["key"]) for each in records] == list(zip(lot, [1, 2, 3], strict=True))
    assert command("list", "--slot", "other")[1] == "Nothing is parked.\n"
    assert command("list", "--table", "wells")[1] == command("list", "--table", "public.wells")[1] != ""
    assert command("list", "--table", "other", "--json")[1] == ""


def test_a_running_consumer_takes_it_again(kind: str, command: Command, lot: list[str], database: str) -> None:
    picky = Picky(3)
    with parking(kind, database, picky) as it:
        code, output, errors = command("retry", lot[1], "--wait", "40")
        assert (code, output, errors) == (0, f"{lot[1]} was taken\n", "")
        assert picky.keys == [2]
        code, output, errors = command("retry", "--all", "--wait", "40")
        assert code == 1
        assert output == f"{lot[0]} was taken\n"
        assert errors == f"cdc: not taken, and still parked: {lot[2]} (ValueError: no room)\n"
        assert picky.keys == [2, 1]
        assert it.consumer.health().status is not cdc.Status.STOPPED
    assert command("list")[1].splitlines()[0].startswith(lot[2])
    assert "(2 attempts; ValueError: no room)" in command("list")[1]


def test_a_request_waits_for_a_consumer(kind: str, command: Command, lot: list[str], database: str) -> None:
    code, output, _ = command("retry", lot[0])
    assert code == 0
    assert output == f"{lot[0]}: the request is kept. No consumer reads slot 'ingest' at the moment\n"
    assert "retry asked for" in command("list")[1]
    picky = Picky()
    with parking(kind, database, picky):
        until(lambda: picky.keys == [1])
    assert command("list")[1].count("\n") == 2


def test_a_consumer_without_that_subscription_is_told_of(command: Command, lot: list[str], database: str) -> None:
    with parking("blocking", database, Picky(), name="another") as it:
        code, output, _ = command("retry", lot[0], "--wait", "3")
        assert code == 0
        assert "has not taken it up: is a subscription called 'mine' there?" in output
        assert it.consumer.health().status is not cdc.Status.STOPPED


def test_what_is_out_of_date_is_refused_unless_forced(
    kind: str, command: Command, outdated: list[str], database: str
) -> None:
    first = outdated[0]
    picky = Picky()
    with parking(kind, database, picky):
        code, output, errors = command("retry", first)
        assert (code, output) == (1, "")
        assert errors.startswith(f"cdc: parked event {first} is out of date: a later change of its row was delivered")
        code, output, _ = command("retry", "--table", "wells", "--wait", "40")
        assert code == 0
        assert f"{first} is out of date and stays" in output
        assert picky.keys == [2, 3]
        code, output, _ = command("retry", first, "--force", "--wait", "40")
        assert (code, output) == (0, f"{first} was taken\n")
        assert picky.keys == [2, 3, 1]
    assert command("list")[1] == "Nothing is parked.\n"


def test_what_got_out_of_date_while_it_waited_is_refused(
    kind: str, command: Command, lot: list[str], database: str, db: psycopg.Connection
) -> None:
    db.execute("UPDATE cdc.parked SET requested_at = now(), superseded_by = 'k3v9:0/1:1' WHERE id = %s", (lot[0],))
    picky = Picky()
    with parking(kind, database, picky):
        until(lambda: "retry asked for" not in command("list")[1])
    assert picky.keys == []
    assert command("list")[1].count("\n") == 3


def test_drop_asks(command: Command, lot: list[str]) -> None:
    code, output, errors = command("drop", lot[0], answer="n\n")
    assert (code, errors) == (1, "cdc: nothing was dropped\n")
    assert f"{lot[0]}  " in output and "Forget 1 parked events for ever? [y/N]" in output
    code, output, _ = command("drop", lot[0], answer="y\n")
    assert code == 0 and output.endswith(f"dropped {lot[0]}\n")
    code, output, _ = command("drop", "--all", "--yes")
    assert (code, output) == (0, f"dropped {lot[1]}\ndropped {lot[2]}\n")
    assert command("drop", "--all")[:2] == (0, "Nothing is parked.\n")


def test_wrong_usage(command: Command, lot: list[str], db: psycopg.Connection, tmp_path: Path) -> None:
    for verb in ("retry", "drop"):
        code, _, errors = command(verb, "0123", lot[0], "abcd")
        assert (code, errors) == (
            2,
            "cdc: there is no parked event 0123, abcd; `cdc parked list` shows what there is\n",
        )
        assert command(verb)[0] == 2
        assert "name events by their ids" in command(verb)[2]
        assert command(verb, "--all", lot[0])[0] == 2
    assert len(command("list")[1].splitlines()) == 3
    code, _, errors = command("list", "--file", str(tmp_path / "none"))
    assert code == 2 and f"there is no file {tmp_path / 'none'}" in errors
    db.execute("DROP TABLE cdc.parked")
    code, _, errors = command("list")
    assert (code, errors) == (2, "cdc: the table cdc.parked is missing: run `cdc setup`\n")


def test_no_database_is_named(monkeypatch: pytest.MonkeyPatch, command: Command) -> None:
    monkeypatch.delenv("CDC_DSN")
    code, _, errors = command("list")
    assert code == 2 and "name the database with --dsn" in errors


def test_a_file(kind: str, command: Command, database: str, db: psycopg.Connection, tmp_path: Path) -> None:
    db.execute("DROP TABLE cdc.parked")
    file = tmp_path / "parked"
    words = ("--file", str(file))
    picky = Picky(1, 2)
    with parking(kind, database, picky, park_file=file) as it:
        db.execute("INSERT INTO wells VALUES (1), (2), (3)")
        it.caught_up(db)
        _, output, _ = command("list", *words)
        first, second = (line.split()[0] for line in output.splitlines())
        picky.refused.clear()
        assert command("retry", first, *words)[:2] == (0, f"{first} was taken\n")
        assert command("drop", second, "--yes", *words)[:2] == (0, f"dropped {second}\n")
        assert it.do(it.consumer.parked) == []
        assert it.consumer.health().status is not cdc.Status.STOPPED
    assert picky.keys == [3, 1]
    assert command("list", *words)[1] == "Nothing is parked.\n"


def test_the_list_points_at_the_file_that_stands_in(
    command: Command, database: str, db: psycopg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    path = tmp_path / "wells-cdc" / "ingest.parked.jsonl"
    db.execute("DROP TABLE cdc.parked")
    with parking("blocking", database, Picky(1)) as it:
        db.execute("INSERT INTO wells VALUES (1)")
        it.caught_up(db)
    hint = f"--file {path}\n"
    code, _, errors = command("list")
    assert code == 2 and hint in errors
    assert hint not in command("list", "--slot", "other")[2]
    assert hint not in command("list", "--file", str(path))[2]


def test_setup_adds_the_table_to_a_database_of_before(database: str, db: psycopg.Connection, command: Command) -> None:
    db.execute("DROP TABLE cdc.parked; DELETE FROM cdc.made WHERE name = 'cdc.parked'")
    done = subprocess.run([sys.executable, "-m", "cdc", "setup"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "CREATE TABLE cdc.parked" in done.stdout, done.stderr
    assert command("list")[:2] == (0, "Nothing is parked.\n")


def test_the_id_is_the_same_on_every_run(lot: list[str], db: psycopg.Connection, database: str) -> None:
    """By it an event that is parked twice finds its row."""
    from cdc.parked import parked_id

    row: Any = db.execute("SELECT position FROM cdc.parked ORDER BY number").fetchone()
    assert parked_id("ingest", "mine", type("Event", (), {"position": row[0]})()) == lot[0]


def test_the_daemon_parks_and_tries_again(
    command: Command, database: str, db: psycopg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "app.py").write_text(
        "import pathlib\n"
        "def index(event):\n"
        "    if event.key == 2 and not pathlib.Path('mended').exists():\n"
        "        raise ValueError('no room')\n"
        "    print(event.key, file=open('taken', 'a'))\n"
    )
    (tmp_path / "cdc.toml").write_text(
        'slot = "ingest"\n[[subscription]]\ntable = "wells"\nhandler = "app:index"\n'
        'name = "search"\nretries = 1\non_error = "park"\n'
    )
    words = [sys.executable, "-m", "cdc", "run", "--config", "cdc.toml"]
    with subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.DEVNULL) as daemon:
        try:
            until(lambda: db.execute("SELECT FROM pg_replication_slots WHERE active").rowcount, timeout=60)
            db.execute("INSERT INTO wells VALUES (1), (2), (3)")
            until(lambda: (tmp_path / "taken").exists() and (tmp_path / "taken").read_text() == "1\n3\n", timeout=60)
            (line,) = command("list")[1].splitlines()
            assert "search: INSERT public.wells 2" in line and "(2 attempts; ValueError: no room)" in line
            (tmp_path / "mended").touch()
            assert command("retry", "--all", "--wait", "40")[1].endswith(" was taken\n")
            assert (tmp_path / "taken").read_text() == "1\n3\n2\n"
        finally:
            daemon.terminate()
            daemon.wait(30)


def test_drop_everything_leaves_what_was_never_handled(
    database: str, db: psycopg.Connection, command: Command, lot: list[str]
) -> None:
    words = [sys.executable, "-m", "cdc", "drop", "--everything"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert "warning: cdc.parked stays: 3 events in it were never handled." in done.stderr
    assert len(command("list")[1].splitlines()) == len(lot)
