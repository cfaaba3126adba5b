"""The daemon and `cdc tail` as processes: what they write, how they end, what they say when something is wrong."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

import cdc
from cdc.testing import Sandbox
from tests.harness import until

ROOT = Path(__file__).parents[2]
PROGRAM = [sys.executable, "-c", "from cdc.daemon import main; main()"]
OUT = '[[subscription]]\ntable = "wells"\nsink = "out.jsonl"\n'


class Process:
    """One `cdc …` in a folder of its own; its stderr goes to a file there."""

    def __init__(self, folder: Path, *arguments: str, stdout: int = subprocess.PIPE, **variables: str) -> None:
        path = os.pathsep.join(filter(None, [str(ROOT), os.getenv("PYTHONPATH")]))
        ours = ("CDC_", "PYTHONUNBUFFERED")  # Unbuffered, a line that is not flushed would go unnoticed.
        environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        # Safe path: as when `cdc` is started by its script, the current folder is not on Python's path.
        environment |= {"PYTHONPATH": path, "PYTHONSAFEPATH": "1"} | variables
        self._log = folder / f"stderr.{len(list(folder.glob('stderr.*')))}"
        with self._log.open("w") as errors:
            self.popen = subprocess.Popen(
                [*PROGRAM, *arguments], cwd=folder, env=environment, stdout=stdout, stderr=errors, text=True
            )

    @property
    def errors(self) -> str:
        return self._log.read_text()

    def says(self, text: str) -> None:
        """Wait until stderr has it."""
        until(lambda: text in self.errors or self.popen.poll() is not None)
        assert text in self.errors, self.errors

    def end(self, number: int = signal.SIGTERM) -> int:
        self.popen.send_signal(number)
        return self.popen.wait(20)

    def finish(self) -> tuple[int, str]:
        """Exit code and stdout of a process that ends by itself."""
        output, _ = self.popen.communicate(timeout=30)
        return self.popen.returncode, output


Launch = Callable[..., Process]


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    started: list[Process] = []

    def start(*arguments: str, **options: Any) -> Process:
        started.append(Process(tmp_path, *arguments, **options))
        return started[-1]

    yield start
    for process in started:
        if process.popen.poll() is None:
            process.popen.kill()
        process.popen.wait(20)
        if process.popen.stdout is not None:
            process.popen.stdout.close()


@pytest.fixture
def run(launch: Launch, database: str, db: psycopg.Connection, tmp_path: Path) -> Launch:
    """Starts `cdc run` with the given lines behind dsn and slot."""

    def start(lines: str = OUT, **variables: str) -> Process:
        (tmp_path / "cdc.toml").write_text(f'dsn = "{database}"\nslot = "daemon"\n{lines}')
        return launch("run", "--config", "cdc.toml", **variables)

    return start


def live(process: Process) -> Any:
    """The line that a daemon logs when it is live."""
    process.says("daemon.live")
    return json.loads(next(line for line in process.errors.splitlines() if "daemon.live" in line))


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def insert(db: psycopg.Connection, *ids: int) -> None:
    for each in ids:
        db.execute("INSERT INTO wells (id, name) VALUES (%s, 'A')", (each,))


def test_changes_become_lines_and_a_stop_confirms_them(run: Launch, db: psycopg.Connection, tmp_path: Path) -> None:
    process = run("[http]\nport = 0\n" + OUT)
    said = live(process)
    insert(db, 1)
    db.execute("UPDATE wells SET name = 'B'")
    db.execute("DELETE FROM wells")
    out = tmp_path / "out.jsonl"
    until(lambda: len(lines_of(out)) == 3)
    written = lines_of(out)
    assert [line["eventType"] for line in written] == ["INSERT", "UPDATE", "DELETE"]
    assert written[1]["new"]["name"] == "B" and written[1]["key"] == 1 and written[1]["effect"] == "STAY"
    assert (said["slot"], said["publication"], said["subscriptions"]) == ("daemon", "wells", ["wells to out.jsonl"])
    assert said["timestamp"].endswith("Z")
    with urllib.request.urlopen(said["healthz"], timeout=10) as answer:
        health = json.load(answer)
        assert (answer.status, health["status"], health["slot"]) == (200, "LIVE", "daemon")

    last = cdc.current_lsn(db)
    assert process.end() == 0, process.errors
    slot = "SELECT confirmed_flush_lsn >= %s::pg_lsn FROM pg_replication_slots WHERE slot_name = 'daemon'"
    assert db.execute(slot, (str(last),)).fetchone() == (True,)
    insert(db, 2, 3)
    again = run()
    until(lambda: len(lines_of(out)) >= 5)
    insert(db, 4)
    until(lambda: len(lines_of(out)) >= 6)
    assert again.end(signal.SIGINT) == 0
    assert [line["key"] for line in lines_of(out)] == [1, 1, 1, 2, 3, 4]
    assert "Traceback" not in process.errors + again.errors


def test_variables_win_and_subscriptions_share_stdout(run: Launch, db: psycopg.Connection) -> None:
    lines = '[[subscription]]\ntable = "wells"\nsink = "stdout"\n'
    process = run(lines + lines + 'filter = "id=eq.2"\n', CDC_SLOT="other", CDC_LOG__FORMAT="console")
    process.says("daemon.live")
    insert(db, 1, 2)
    assert process.popen.stdout is not None
    assert [json.loads(process.popen.stdout.readline())["key"] for _ in range(3)] == [1, 2, 2]
    assert process.end() == 0
    assert db.execute("SELECT slot_name FROM pg_replication_slots WHERE slot_name = 'other'").fetchone()
    assert "slot=other" in process.errors


def test_a_subject_sees_its_rows(run: Launch, db: psycopg.Connection, tmp_path: Path) -> None:
    db.execute("ALTER TABLE wells REPLICA IDENTITY FULL, ENABLE ROW LEVEL SECURITY")
    db.execute("GRANT USAGE ON SCHEMA public TO authenticated; GRANT SELECT ON wells TO authenticated")
    db.execute("CREATE POLICY mine ON wells FOR SELECT USING (name = (auth.jwt() ->> 'name'))")
    process = run(OUT + 'role = "authenticated"\nclaims = { name = "mine" }\n')
    live(process)
    insert(db, 1)
    db.execute("INSERT INTO wells (id, name) VALUES (2, 'mine')")
    until(lambda: lines_of(tmp_path / "out.jsonl"))
    assert [line["key"] for line in lines_of(tmp_path / "out.jsonl")] == [2]
    assert process.end() == 0


def test_kill_9_loses_nothing(run: Launch, db: psycopg.Connection, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    committed = 0
    for _ in range(3):
        process = run()
        live(process)
        goal = committed + 300
        while committed < goal:
            committed += 1
            insert(db, committed)
            if committed == goal - 100:
                process.popen.kill()
    process = run()
    live(process)
    until(lambda: {line["key"] for line in lines_of(out)} == set(range(1, committed + 1)))
    assert process.end() == 0
    assert len({line["position"] for line in lines_of(out)}) == committed


def test_a_handler_that_raises(run: Launch, db: psycopg.Connection, tmp_path: Path) -> None:
    handler = '[[subscription]]\ntable = "wells"\nhandler = "mine:changed"\n'
    (tmp_path / "mine.py").write_text("def changed(event):\n    raise ValueError('no room for ' + str(event.key))\n")
    process = run(handler)
    live(process)
    insert(db, 1)
    code, _ = process.finish()
    assert code == 1
    assert "handler mine:changed raised ValueError: no room for 1" in process.errors
    assert "mine.py:2 changed" in process.errors and "Traceback" not in process.errors

    (tmp_path / "mine.py").write_text("def changed(event):\n    print(event.key, file=open('seen', 'a'))\n")
    insert(db, 2)
    again = run(handler)
    seen = tmp_path / "seen"
    until(lambda: seen.exists() and seen.read_text() == "1\n2\n")
    assert again.end() == 0


def test_a_second_signal_ends_at_once(run: Launch, db: psycopg.Connection, tmp_path: Path) -> None:
    code = "import time\ndef changed(event):\n    open('begun', 'w').close()\n    time.sleep(300)\n"
    (tmp_path / "slow.py").write_text(code)
    process = run('[[subscription]]\ntable = "wells"\nhandler = "slow:changed"\n')
    live(process)
    insert(db, 1)
    until((tmp_path / "begun").exists)
    process.popen.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        process.popen.wait(0.5)
    assert process.end() == 128 + signal.SIGTERM


def test_sigterm_while_the_slot_is_being_made(run: Launch, db: psycopg.Connection, database: str) -> None:
    with psycopg.connect(database) as busy:
        busy.execute("INSERT INTO wells (id) VALUES (1)")
        process = run()
        process.says("slot.create.waits")
        assert process.end() == 0 and "Traceback" not in process.errors, process.errors
        busy.rollback()


def test_a_reader_that_went_away(run: Launch, db: psycopg.Connection) -> None:
    process = run('[[subscription]]\ntable = "wells"\nsink = "stdout"\n')
    live(process)
    assert process.popen.stdout is not None
    process.popen.stdout.close()
    insert(db, 1)
    assert process.popen.wait(20) == 1
    assert "sink stdout" in process.errors and "Broken pipe" in process.errors and "Traceback" not in process.errors


# What is wrong.


@pytest.mark.parametrize(
    ("lines", "variables", "code", "parts"),
    [
        ("[[subscription\n", {}, 2, ["cdc.toml is not TOML"]),
        ("slto = 1\n" + OUT, {}, 2, ["slto", "did you mean slot?"]),
        ("", {}, 2, ["there is no [[subscription]]"]),
        ('publication = "absent"\n' + OUT, {}, 2, ["publication 'absent' does not exist"]),
        (OUT.replace("wells", "absent"), {}, 2, ["absent"]),
        (OUT.replace("wells", "unpublished"), {}, 2, ["unpublished is not in publication"]),
        (OUT + 'filter = "colour=eq.red"\n', {}, 2, ["colour"]),
        (OUT + 'role = "nobody_here"\n', {}, 2, ["nobody_here"]),
        (OUT + 'handler = "absent_module:f"\n', {}, 2, ["number 1, wells", "module 'absent_module' is not found"]),
        (OUT.replace("out.jsonl", "absent/out"), {}, 2, ["sink: absent/out cannot be written"]),
        ("require_subject = true\n" + OUT, {}, 2, ["wells needs a subject"]),
        (OUT, {"CDC_DSN": "postgresql://postgres:hidden@127.0.0.1:1/app"}, 1, ["cannot connect"]),
        (OUT, {"CDC_CONFIG": "x", "CDC_HTTP__PORT": "hidden"}, 2, ["the variable CDC_HTTP__PORT"]),
    ],
)  # fmt: skip
def test_one_message_and_an_exit_code(
    run: Launch, db: psycopg.Connection, lines: str, variables: dict[str, str], code: int, parts: list[str]
) -> None:
    db.execute("CREATE TABLE unpublished (id int PRIMARY KEY)")
    process = run(lines, **variables)
    assert process.finish()[0] == code, process.errors
    assert all(part in process.errors for part in parts), process.errors
    assert "Traceback" not in process.errors and "hidden" not in process.errors
    said = [line for line in process.errors.splitlines() if not line.startswith("{")]  # Log lines are JSON here.
    assert len(said) == 1 or lines == ""


def test_a_port_in_use(run: Launch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = run(OUT, CDC_HTTP__PORT=str(taken.getsockname()[1]))
        assert process.finish()[0] == 2
    assert "http.port" in process.errors and "in use" in process.errors


def test_tail_prints_for_a_person(launch: Launch, db: psycopg.Connection, database: str, server: Sandbox) -> None:
    db.execute("ALTER TABLE wells REPLICA IDENTITY FULL")
    process = launch("tail", "wells", "--count", "4", CDC_DSN=database)
    process.says("Waiting for changes of wells in publication wells")
    db.execute("INSERT INTO wells (id, name) VALUES (7, E'A\\x1b[31m\\nB')")
    db.execute("UPDATE wells SET name = 'C', depth = 1.50")
    db.execute("DELETE FROM wells")
    db.execute("TRUNCATE wells")
    code, output = process.finish()
    assert code == 0
    first, second, third, fourth = [line.split(maxsplit=1)[1] for line in output.splitlines()]
    assert first == r"INSERT   wells 7  id=7  name=A\x1b[31m\nB  project_id=NULL  depth=NULL  notes=NULL"
    assert second == r"UPDATE   wells 7  name=A\x1b[31m\nB → C  depth=NULL → 1.50"
    assert third.startswith("DELETE   wells 7  id=7  name=C") and fourth == "TRUNCATE wells"
    slots = "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()"
    until(lambda: db.execute(slots).fetchone() == (0,))


def test_tail_says_that_a_role_sees_nothing(launch: Launch, db: psycopg.Connection, database: str) -> None:
    db.execute("ALTER TABLE wells REPLICA IDENTITY FULL; ALTER TABLE wells ENABLE ROW LEVEL SECURITY")
    db.execute("CREATE ROLE onlooker; GRANT SELECT ON wells TO onlooker")
    process = launch("tail", "wells", "--as", "onlooker", "--count", "1", CDC_DSN=database)
    process.says("Nothing is visible at the moment: row-level security is on, and no policy lets role onlooker read")
    db.execute("CREATE POLICY all_rows ON wells FOR SELECT USING (true)")
    code, output = process.finish()
    assert code == 0 and output.startswith("GAP rights: ") and "missing" not in output
    db.execute("DROP OWNED BY onlooker; DROP ROLE onlooker")


def test_tail_as_json_with_filter_and_operations(launch: Launch, db: psycopg.Connection, database: str) -> None:
    options = ["--json", "--filter", "id=eq.2", "--operations", "insert, delete", "--count", "2"]
    process = launch("tail", "wells", "--dsn", database, *options)
    process.says("Waiting")
    insert(db, 1, 2)
    db.execute("UPDATE wells SET name = 'B'")
    db.execute("DELETE FROM wells")
    code, output = process.finish()
    assert code == 0
    printed = [json.loads(line) for line in output.splitlines()]
    assert [(line["eventType"], line["key"]) for line in printed] == [("INSERT", 2), ("DELETE", 2)]


def test_tail_with_a_slot_goes_on_where_it_ended(launch: Launch, db: psycopg.Connection, database: str) -> None:
    arguments = ["tail", "wells", "--dsn", database, "--slot", "daemon", "--json", "--count"]
    first = launch(*arguments, "1")
    first.says("Waiting")
    insert(db, 1, 2, 3)
    assert first.finish()[0] == 0
    code, output = launch(*arguments, "2").finish()
    assert (code, [json.loads(line)["key"] for line in output.splitlines()]) == (0, [2, 3])


def test_tail_ends_with_ctrl_c(launch: Launch, db: psycopg.Connection, database: str) -> None:
    process = launch("tail", "wells", CDC_DSN=database)
    process.says("Waiting")
    insert(db, 1)
    assert process.popen.stdout is not None
    assert "INSERT   wells 1" in process.popen.stdout.readline()
    assert process.end(signal.SIGINT) == 0 and "Traceback" not in process.errors, process.errors


def test_tail_has_colours_on_a_terminal(launch: Launch, db: psycopg.Connection, database: str) -> None:
    ours, terminal = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as screen, os.fdopen(terminal, "wb") as file:
        process = launch("tail", "wells", "--count", "1", CDC_DSN=database, TERM="xterm", stdout=file.fileno())
        process.says("Waiting")
        insert(db, 1)
        assert process.popen.wait(20) == 0
        assert b"\x1b[32mINSERT" in screen.read(4096)


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("absent", "absent"),
        ("wells --publication absent", "publication 'absent' does not exist"),
        ("wells --filter id=like.1", "like"),
        ("wells --operations upsert", "UPSERT"),
        ("wells --claims {}", "--claims needs --as"),
        ("wells --as authenticated --claims {no", "claims are not JSON"),
    ],
)
def test_tail_says_what_is_wrong(launch: Launch, db: psycopg.Connection, database: str, line: str, part: str) -> None:
    process = launch("tail", *line.split(), CDC_DSN=database)
    assert process.finish()[0] == 2
    assert part in process.errors and "Traceback" not in process.errors


def test_a_snapshot_comes_first_and_again_behind_a_gap(run: Launch, db: psycopg.Connection, tmp_path: Path) -> None:
    insert(db, 1, 2)
    out = tmp_path / "out.jsonl"
    lines = 'on_gap = "resync"\n' + OUT + "snapshot = true\n"
    process = run(lines)
    until(lambda: len(lines_of(out)) == 2)
    insert(db, 3)
    until(lambda: len(lines_of(out)) == 3)
    assert process.end() == 0, process.errors
    assert [(line["eventType"], line["key"]) for line in lines_of(out)] == [("READ", 1), ("READ", 2), ("INSERT", 3)]

    db.execute("SELECT pg_drop_replication_slot('daemon')")
    db.execute("DELETE FROM wells WHERE id = 1")
    process = run(lines)
    until(lambda: len(lines_of(out)) == 6)
    assert process.end() == 0, process.errors
    gap, *rows = lines_of(out)[3:]
    assert (gap["gap"]["kind"], gap["gap"]["resync"]) == (cdc.GapKind.SLOT_DROPPED, True)
    assert [(line["eventType"], line["key"]) for line in rows] == [("READ", 2), ("READ", 3)]
