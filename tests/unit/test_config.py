"""What `cdc run` accepts as configuration, what it says about everything else, and the parts that it starts."""

from __future__ import annotations

import json
import os
import re
import resource
import socket
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

import cdc
from cdc.daemon.config import Config, HttpConfig, keys, load_config, misspelt, variable
from cdc.daemon.handlers import load_handler
from cdc.daemon.http import HealthServer
from cdc.errors import ConfigurationError
from cdc.sinks import JsonLines

DOCS = Path(__file__).parents[2] / "docs"
SECRET = "s3cret"
TOP = f'dsn = "postgresql://app:{SECRET}@db/app"\nslot = "s"\n'
SUBSCRIPTION = '[[subscription]]\ntable = "wells"\nsink = "stdout"\n'
WHOLE = TOP + SUBSCRIPTION


@pytest.fixture(autouse=True)
def _empty(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No CDC_* variables, and a current folder of the test's own."""
    for name in [name for name in os.environ if name.upper().startswith("CDC_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def load(text: str) -> Config:
    Path("cdc.toml").write_text(text)
    return load_config("cdc.toml")


def refused(text: str) -> str:
    """The message for a file; it names the file, and no secret."""
    with pytest.raises(ConfigurationError) as caught:
        load(text)
    message = str(caught.value)
    assert SECRET not in message
    assert "cdc.toml" in message or "variable" in message
    return message


def test_the_least_that_is_needed() -> None:
    config = load(WHOLE)
    assert config.dsn.get_secret_value().startswith("postgresql://app:")
    assert (config.publication, config.slot, config.state, config.http) == (["wells"], "s", "database", None)
    assert (config.log.format, config.backoff_first, config.on_gap) == ("auto", 2.0, None)
    assert config.subscription[0].sink == "stdout"


def test_printing_a_configuration_shows_no_secret() -> None:
    config = load(WHOLE + f'role = "r"\nclaims = {{ sub = "{SECRET}" }}\nsettings = {{ "app.key" = "{SECRET}" }}\n')
    assert config.subscription[0].claims == {"sub": SECRET}
    assert SECRET not in f"{config!r} {config}"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (f"slot = 's'\n{SUBSCRIPTION}", ["dsn is missing", "CDC_DSN"]),
        (WHOLE.replace('slot = "s"', ""), ["slot is missing", "CDC_SLOT", "temporary"]),
        ("temporary = true\n" + WHOLE, ["slot", "temporary", "exclude"]),
        ('slto = "x"\n' + WHOLE, ["slto is not a known key", "did you mean slot?"]),
        ("port = 1\n" + WHOLE, ["port is not a known key", "did you mean http.port?"]),
        (TOP + '[log]\nstate = "none"\n' + SUBSCRIPTION, ["log.state", "did you mean state, above the first [table]?"]),
        ("qqq = 1\n" + WHOLE, ["qqq is not a known key", "known are dsn,"]),
        (WHOLE + "tabel = 1\n", ["number 1: tabel", "did you mean table?"]),
        (WHOLE + SUBSCRIPTION + "filtre = 1\n", ["number 2: filtre", "did you mean filter?"]),
        (TOP + '[http]\nport = "soon"\n' + SUBSCRIPTION, ["http.port should be a whole number"]),
        (TOP + "[http]\nport = 70000\n" + SUBSCRIPTION, ["http.port should be less than or equal to 65535"]),
        (TOP + "[http]\n" + SUBSCRIPTION, ["http.port is missing"]),
        (TOP + '[log]\nformat = "xml"\n' + SUBSCRIPTION, ["log.format should be 'auto', 'json' or 'console'"]),
        ('on_gap = "wait"\n' + WHOLE, ["on_gap should be 'stop', 'deliver' or 'resync'"]),
        ("backoff_first = 0\n" + WHOLE, ["backoff_first should be greater than 0"]),
        ("backoff_first = 9\nbackoff_longest = 1\n" + WHOLE, ["backoff_longest is less than backoff_first"]),
        ("require_subject = 'perhaps'\n" + WHOLE, ["require_subject should be true or false"]),
        ("publication = 7\n" + WHOLE, ["publication should be a list"]),
        ("publication = []\n" + WHOLE, ["publication should not be empty"]),
        (WHOLE.replace(f'"postgresql://app:{SECRET}@db/app"', f'["{SECRET}"]'), ["dsn should be text in quotes"]),
        (WHOLE + 'operations = ["upsert"]\n', ["operations", "'insert', 'update', 'delete' or 'truncate'"]),
        (WHOLE.replace('sink = "stdout"', ""), ["number 1 goes nowhere", "sink", "handler"]),
        (WHOLE + f'claims = {{ sub = "{SECRET}" }}\n', ["number 1 has claims", "no role"]),
        (WHOLE + f'role = "r"\nclaims = "{SECRET}"\n', ["number 1: claims should be a table"]),
        (WHOLE + f'role = "r"\nsettings = {{ "a.b" = ["{SECRET}"] }}\n', ["settings.a.b should be text"]),
        (TOP + "x = = 1\n", ["is not TOML", "line 3, column 5"]),
        (f'dsn = "{SECRET}\n', ["is not TOML", "line 1"]),
    ],
)
def test_what_is_wrong_is_named(text: str, parts: list[str]) -> None:
    message = refused(text)
    assert all(part in message for part in parts), message
    assert "\n" not in message


def test_several_problems_are_one_message() -> None:
    message = refused("slto = 1\non_gap = 'x'\n" + WHOLE)
    assert "slto" in message and "on_gap" in message and "\n" not in message


def test_no_subscription_shows_the_lines_to_write() -> None:
    message = refused(TOP)
    assert "there is no [[subscription]]" in message
    lines = message.partition("\n\n")[2]
    assert len(lines.strip().splitlines()) == 4
    assert load(TOP + lines).subscription[0].table == "wells"


@pytest.mark.parametrize(("name", "part"), [("absent.toml", "No such file"), (".", "Is a directory")])
def test_a_file_that_cannot_be_read(name: str, part: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(name) + ".*" + part):
        load_config(name)


def test_a_file_that_is_not_utf8() -> None:
    Path("latin.toml").write_bytes(b'slot = "\xe4"\n')
    with pytest.raises(ConfigurationError, match=r"latin\.toml is not TOML: it is not UTF-8 at byte 8"):
        load_config("latin.toml")


def test_variables_win_over_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "CDC_SLOT": "other",
        "CDC_PUBLICATION": "a",
        "CDC_HTTP__PORT": "8080",
        "CDC_LOG__LEVEL": "DEBUG",
        "CDC_REQUIRE_SUBJECT": "true",
        "CDC_STATE": "",
    }.items():
        monkeypatch.setenv(name, value)
    config = load('publication = ["b"]\nstate = "none"\n' + TOP + '[http]\nhost = "::1"\nport = 1\n' + SUBSCRIPTION)
    assert (config.slot, config.publication, config.require_subject) == ("other", ["a"], True)
    assert config.http is not None and (config.http.host, config.http.port) == ("::1", 8080)
    assert (config.log.level, config.state) == ("debug", "none")


def test_variables_alone_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CDC_DSN", "dbname=app")
    monkeypatch.setenv("CDC_TEMPORARY", "true")
    monkeypatch.setenv("CDC_PUBLICATION", '["a", "b"]')
    monkeypatch.setenv("CDC_SUBSCRIPTION", '[{"table": "wells", "sink": "out", "role": "r", "claims": {"sub": "x"}}]')
    config = load_config(None)
    assert config.publication == ["a", "b"]
    assert config.subscription[0].claims == {"sub": "x"}
    assert config.session_functions == [] and config.rights_dsn is None
    monkeypatch.setenv("CDC_SESSION_FUNCTIONS", "app.tenant()")
    monkeypatch.setenv("CDC_RIGHTS_DSN", "dbname=app password=hush")
    config = load_config(None)
    assert config.session_functions == ["app.tenant()"] and "hush" not in repr(config)


def test_without_a_file_the_variable_is_named() -> None:
    with pytest.raises(ConfigurationError, match="dsn is missing: set the variable CDC_DSN, or name a file"):
        load_config(None)


@pytest.mark.parametrize(
    ("name", "value", "part"),
    [
        ("CDC_HTTP__PORT", SECRET, "the variable CDC_HTTP__PORT: http.port should be a whole number"),
        ("CDC_HTTP__PROT", "1", "the variable CDC_HTTP__PROT: http.prot is not a known key; did you mean port?"),
        ("CDC_HTTP", SECRET, "the variable CDC_HTTP: http should be a table"),
        ("CDC_PUBLICATION", '["a",', "the variable CDC_PUBLICATION: publication should be a name or a JSON list"),
        ("CDC_SUBSCRIPTION", SECRET, "the variable CDC_SUBSCRIPTION"),
        ("CDC_SUBSCRIPTION", '[{"tabel": 1, "sink": "x"}]', "the variable CDC_SUBSCRIPTION: [[subscription]] number 1"),
        ("CDC_SUBSCRIPTION__0__SINK", "x", "the variables CDC_SUBSCRIPTION__…: subscription should be a list"),
    ],
)
def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str, part: str) -> None:
    monkeypatch.setenv(name, value)
    assert part in refused(WHOLE)


def test_variables_that_look_like_ours() -> None:
    names = ["CDC_PUBLICATOIN", "CDC_HTTP_PORT", "CDC_SERVICE_HOST", "CDC_PORT", "cdc_slot", "CDC_CONFIG", "CDC_PG_BIN"]
    assert misspelt(dict.fromkeys(names, "x")) == {
        "CDC_PUBLICATOIN": "CDC_PUBLICATION",
        "CDC_HTTP_PORT": "CDC_HTTP__PORT",
    }


def test_the_example_loads_and_shows_every_key() -> None:
    config = load_config(str(DOCS / "cdc.toml"))
    assert [each.table for each in config.subscription] == ["wells", "wells", "public.wells"]
    text = (DOCS / "cdc.toml").read_text()
    for key in keys():
        last = key.rpartition(".")[2]
        assert re.search(rf"^(# )?{last} = |^\[+{last}\]", text, re.MULTILINE), f"docs/cdc.toml does not show {key}"


def test_every_key_is_documented() -> None:
    text = (DOCS / "daemon.md").read_text()
    for key in keys():
        assert f"`{key}`" in text or f"`[{key}]`" in text, f"docs/daemon.md does not speak of {key}"
        if not key.startswith("subscription."):
            assert f"`{variable(key.split('.'))}`" in text, f"docs/daemon.md does not name the variable of {key}"


# Handlers.


@pytest.fixture
def user_module(monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the current folder."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    Path("users_handlers.py").write_text(
        "seen = []\n"
        "def changed(event):\n    seen.append(event)\n"
        "async def later(event):\n    pass\n"
        "class Service:\n    def push(self, event):\n        seen.append((self, event))\n"
        "service = Service()\n"
        "number = 7\n"
    )
    Path("broken.py").write_text("import json\nraise RuntimeError('no licence')\n")
    Path("needy.py").write_text("import not_installed_here\n")
    monkeypatch.delitem(sys.modules, "users_handlers", raising=False)
    return "users_handlers"


def test_a_handler_is_loaded_from_the_current_folder(user_module: str) -> None:
    handler = load_handler(f"{user_module}:changed")
    handler("event")  # type: ignore[arg-type]
    load_handler(f"{user_module}:service.push")("more")  # type: ignore[arg-type]
    seen = sys.modules[user_module].seen
    assert seen[0] == "event" and seen[1][1] == "more"
    assert handler.__qualname__ == f"{user_module}:changed"


@pytest.mark.parametrize(
    ("spec", "part"),
    [
        ("changed", "write module:name"),
        ("users_handlers:", "write module:name"),
        ("nowhere:changed", "module 'nowhere' is not found"),
        ("users_handlers.sub:changed", "module 'users_handlers.sub' is not found"),
        ("users_handlers:chnged", "module 'users_handlers' has no 'chnged'; did you mean 'changed'?"),
        ("users_handlers:service.pull", "Service has no 'pull'"),
        ("users_handlers:number", "number is of type int and cannot be called"),
        ("users_handlers:later", "later is a coroutine function"),
        ("broken:changed", "importing broken raised RuntimeError: no licence"),
        ("needy:changed", "importing needy raised ModuleNotFoundError: No module named 'not_installed_here'"),
    ],
)
def test_what_is_not_found_is_said(user_module: str, spec: str, part: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_handler(spec)
    assert spec in str(caught.value) and part in str(caught.value)


# The health server.


def get(url: str, method: str = "GET") -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def test_health_over_http() -> None:
    states = {"now": cdc.Health(cdc.Colour.RED, cdc.Status.OFFLINE, ("not connected",))}
    with HealthServer(HttpConfig(port=0), lambda: states["now"]) as server:
        base = server.url.removesuffix("/healthz")
        assert get(server.url)[0] == 503
        states["now"] = cdc.Health(cdc.Colour.YELLOW, cdc.Status.CATCHING_UP)
        assert get(server.url)[0] == 200 and json.loads(get(f"{server.url}?probe=1")[1])["colour"] == "yellow"
        assert get(server.url, "HEAD") == (200, b"")
        assert get(base + "/")[0] == 200 and get(base + "/absent")[0] == 404
        assert get(server.url, "POST")[0] == 405
        with socket.create_connection(("127.0.0.1", int(base.rpartition(":")[2]))):  # A client that says nothing.
            assert get(server.url)[0] == 200


# The JSON lines file.

GAP = cdc.Gap("lost", last=cdc.Position("k3v9", cdc.Lsn(7), 1))
GAP_LINE = (
    '{"gap": {"reason": "lost", "last": "k3v9:0/7:1", "previous": null, "kind": "other", "tables": [], '
    '"position": null, "resync": false}}\n'
)


def test_a_gap_is_a_line(tmp_path: Path) -> None:
    with JsonLines(tmp_path / "out") as sink:
        sink(GAP)
        assert (tmp_path / "out").read_text() == GAP_LINE


@pytest.mark.parametrize(("before", "after"), [('{"a": 1}\n{"b": "x', '{"a": 1}\n'), ('{"a": 1}', '{"a": 1}\n')])
def test_a_file_ends_in_a_whole_line(tmp_path: Path, before: str, after: str) -> None:
    out = tmp_path / "out"
    out.write_text(before)
    with JsonLines(out) as sink:
        sink(GAP)
    assert out.read_text() == after + GAP_LINE


def test_a_file_of_something_else_is_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "letter.txt"
    out.write_text("Dear reader")
    with pytest.raises(cdc.ConfigurationError, match=r"letter\.txt is not a file of JSON lines"):
        JsonLines(out)
    assert out.read_text() == "Dear reader"


def test_a_file_has_one_writer(tmp_path: Path) -> None:
    with JsonLines(tmp_path / "out"), pytest.raises(cdc.ConfigurationError, match="another process writes to"):
        JsonLines(tmp_path / "out")


def test_a_full_disk_leaves_no_half_line(tmp_path: Path) -> None:
    out = tmp_path / "out"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with JsonLines(out) as sink:
        sink(GAP)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(GAP_LINE) + 10, before[1]))
        try:
            with pytest.raises(OSError, match="out"):
                sink(GAP)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert out.read_text() == GAP_LINE
        sink(GAP)
    assert out.read_text() == GAP_LINE * 2
