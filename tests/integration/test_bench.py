"""Every benchmark runs, leaves nothing behind, and prints one flat object of figures. Speed is not judged here."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCH = Path(__file__).parents[2] / "bench"
SHARED = {"contest", "wal", "captured", "run"}
SCRIPTS = sorted(path.stem for path in BENCH.glob("*.py") if path.stem not in SHARED)
SMALL = {
    "end_to_end": 200,
    "latency": 40,
    "load": 600,
    "memory": 3000,
    "decode": 200,
    "profile_path": 400,
    "delivery": 300,
    "snapshot": 300,
    "store": 300,
    "fanout": 300,
    "policy": 500,
    "cache": 800,
}
WANTED = {
    "end_to_end": {
        "recvlogical_startup_seconds",
        "consumer_1_ratio",
        "consumer_all_mixed_ratio",
        "consumer_async_100_ratio",
    },
    "latency": {"consumer_200_p50_ratio", "consumer_async_2000_p99_milliseconds", "undecoded_200_max_milliseconds"},
    "load": {"consumer_1_row_2000_ratio", "consumer_hasty_30_rows_1000_microseconds"},
    "delivery": {"queue_ratio", "queue_batch_ratio", "iteration_rows_per_second", "waiting_batch_ratio"},
    "memory": {"streaming_off_ratio", "streaming_on_peak_mebibytes", "spool_rows_per_second"},
    "decode": {
        "decoder_begin_events_per_second",
        "decoder_insert_text_all_events_per_second",
        "stream_update_o_binary_key_events_per_second",
    },
    "policy": {"undecided_decisions_per_second", "uuid_equality_ratio", "denied_ratio", "bind_uuid_equality_bytes"},
    "snapshot": {"copy_rows_per_second", "consumer_ratio", "consumer_written_ratio", "consumer_next_to_select_ratio"},
    "store": {"fill_ratio", "copy_rows_per_second", "bytes_per_row", "store_lookups_per_second"},
    "fanout": {"one_10000_ratio", "all_10000_ratio", "path_10000_ratio", "asking_ratio", "subscriber_bytes"},
    "cache": {"hit_ratio", "hit_8_threads_ratio", "miss_ratio", "miss_tombstone_ratio", "entry_bytes"},
    "profile_path": {"split_microseconds", "take_the_frames_microseconds", "the_loops_own_steps_microseconds"},
}


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports one of the benchmarks' modules."""
    monkeypatch.syspath_prepend(str(BENCH))
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(BENCH)):
            del sys.modules[name]


def saved() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (BENCH / "results").iterdir()}


def test_every_script_is_known_to_this_test_and_to_the_driver(bench: Any) -> None:
    driver: ModuleType = bench("run")
    assert {Path(str(script.__file__)).stem for script in driver.SCRIPTS} == set(SCRIPTS) == set(SMALL) == set(WANTED)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_small_run_prints_one_flat_object_of_figures(name: str, bench: Any) -> None:
    before = saved()
    command = [sys.executable, str(BENCH / f"{name}.py"), "--rows", str(SMALL[name]), "--rounds", "1", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert {"rows", "rounds", "python", "psycopg", "postgresql", "cpus"} | WANTED[name] <= set(figures)
    assert all(isinstance(figure, str | int | float | None) for figure in figures.values())
    assert all(isinstance(figures[wanted], int | float | None) for wanted in WANTED[name])
    assert set(bench(name).TARGETS) <= set(figures), "a target without a figure"
    assert saved() == before, "a small run must not replace the saved figures"


def test_contestants_take_turns_and_each_begins_a_round(bench: Any) -> None:
    order: list[str] = []
    contestants = {name: lambda name=name: order.append(name) or 1.0 for name in "abc"}
    outcomes = bench("contest").take_turns(contestants, 3)
    assert "".join(order) == "abcbcacab"
    assert outcomes == {"a": [1.0] * 3, "b": [1.0] * 3, "c": [1.0] * 3}


def test_a_target_that_was_not_measured_is_missed(bench: Any) -> None:
    contest = bench("contest")
    targets = {"fast_ratio": contest.Target(0.85), "peak_mebibytes": contest.Target(64, at_most=True)}
    assert contest.missed({"fast_ratio": 0.85, "peak_mebibytes": 64}, targets) == 0
    assert contest.missed({"fast_ratio": 0.84, "peak_mebibytes": 65}, targets) == 2
    assert contest.missed({"fast_ratio": None}, targets) == 2


def test_the_table_shows_ratio_target_and_verdict_in_one_line(bench: Any) -> None:
    contest = bench("contest")
    table = contest.new_table("figures")
    figures = {"rows": 5, "x_rows_per_second": 100, "x_ratio": 0.5, "p_mebibytes": 3.5, "alone_ratio": None}
    targets = {
        "x_ratio": contest.Target(0.85),
        "p_mebibytes": contest.Target(64, at_most=True),
        "gone_ratio": contest.Target(1),
    }
    contest.add_rows(table, "s", figures, targets)
    lines = list(zip(*(column.cells for column in table.columns), strict=True))
    assert lines == [
        ("s", "x", "100", "rows/s", "0.50", "≥ 0.85", "NO"),
        ("s", "p", "3.5", "MiB", "", "≤ 64", "yes"),
        ("s", "alone", "", "", "none", "", ""),
        ("s", "gone ratio", "not measured", "", "", "≥ 1", "NO"),
    ]
