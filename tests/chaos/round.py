"""A round: a plan carried out in a database of its own, and judged.

Touches the ground's server, a proxy, the consumer's process, the writer's threads, and the files of its folder.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psycopg

from tests.chaos.actions import ACTIONS
from tests.chaos.arrivals import Arrivals
from tests.chaos.ground import Ground
from tests.chaos.keeper import Keeper
from tests.chaos.ledger import TABLES, Ledger, frozen
from tests.chaos.plan import FAULTS, Plan
from tests.chaos.verdict import Verdict, judge
from tests.chaos.writer import Writer
from tests.proxy import Proxy

__all__ = ["Round"]

_PATIENCE = 30.0
"""Seconds to wait for anything that has to come, counted anew as long as something arrives."""
_CALM = 300
"""Lines of a round in which nothing happens."""


class Round:
    """One round.

    Args:
        ground: the server.
        plan: what to do.
        folder: for its files; they are deleted when all is well.
        defect: of the consumer, on purpose; see `defects`.

    Attributes:
        windows: LSNs between which changes were taken away for good.
        wrong: what should not have happened, in words.
    """

    def __init__(self, ground: Ground, plan: Plan, folder: Path, defect: str | None = None) -> None:
        self.ground, self.plan, self.folder = ground, plan, folder
        self.windows: list[tuple[int, int]] = []
        self.wrong: list[str] = []
        self.fault = FAULTS[plan.fault]
        self.dsn = ""
        self.proxy: Proxy
        self.keeper: Keeper
        self._defect = defect
        self._ledger = Ledger()
        self._log_begin = 0

    def run(self) -> Verdict:
        """Carry it out and judge it. Raises only when the ground cannot be used any more."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        (self.folder / "plan.json").write_text(json.dumps(asdict(self.plan), indent=1))
        self._log_begin = self.ground.server.log_file.stat().st_size
        self.dsn = self.ground.database()
        writer = Writer(self.dsn, f"{self.plan.seed}/{self.plan.fault}")
        self._ledger = writer.ledger
        try:
            with Proxy(self.ground.server.port) as self.proxy:
                self.keeper = Keeper(self.folder, self._settings(), self.plan.lives)
                try:
                    self._carry_out(writer)
                except (TimeoutError, psycopg.Error, RuntimeError) as error:
                    self.wrong.append(f"{type(error).__name__}: {error}")
                    self.keeper.ask_where()
                finally:
                    self.keeper.kill()
                    with suppress(RuntimeError):
                        writer.finish()
            verdict = self._judge(writer)
        finally:
            self.ground.clear(self.dsn)
        self._tidy(writer, verdict)
        return verdict

    # What actions use, too.

    def execute(self, statement: str) -> Any:
        """Execute a statement in the round's database; the first value of the first row, if any."""
        with psycopg.connect(self.dsn, autocommit=True, connect_timeout=10) as connection:
            cursor = connection.execute(statement)  # type: ignore[call-overload]
            row = cursor.fetchone() if cursor.description is not None else None
        return None if row is None else row[0]

    def wait(self, condition: Callable[[], Any], what: str, seconds: float = _PATIENCE) -> None:
        """Wait until a condition holds. Raises TimeoutError when nothing has arrived for so long."""
        deadline = time.monotonic() + seconds
        while not condition():
            arrived, self._ledger.arrived = self._ledger.arrived, self.keeper.lines()
            if self._ledger.arrived != arrived:
                deadline = time.monotonic() + seconds
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {seconds:.0f} s in vain for {what}")
            time.sleep(0.02)

    def grown(self, lines: int, seconds: float = _PATIENCE) -> None:
        """Wait until the sink has got some more lines; a consumer that has ended by itself is started again."""
        wanted = self.keeper.lines() + lines
        self.wait(lambda: self._runs() and self.keeper.lines() >= wanted, f"{lines} more lines", seconds)

    def await_writes(self, changes: int) -> None:
        """Wait until some more changes were committed, whether or not they arrive."""
        wanted = self._ledger.written + changes
        self.wait(lambda: self._ledger.written >= wanted, f"{changes} more changes of the writer")

    # The parts of a round.

    def _carry_out(self, writer: Writer) -> None:
        self.keeper.start()
        ready = "SELECT 1 FROM pg_replication_slots WHERE slot_name = 'chaos' AND confirmed_flush_lsn IS NOT NULL"
        self.wait(lambda: self._runs() and self.execute(ready) and self._is_remembered(), "the slot")
        writer.start()
        for injection in self.plan.injections:
            self.grown(injection.after)
            ACTIONS[injection.action](self, injection)
        self.grown(_CALM if self.plan.fault == "none" else 30)
        self.wait(lambda: self._runs() and not self.keeper.has_trouble, "the end of the consumer's troubles")
        writer.finish()
        last = f'"{writer.last_word(self.dsn)}"'
        self.wait(lambda: self._runs() and self.keeper.has(last), "the last change")
        if self._reads_anew:
            self.wait(self._is_read_anew, "the rows that are read anew")
        self.keeper.stop()

    def _runs(self) -> bool:
        if not self.keeper.watch():
            self.keeper.revive()
        return True

    def _is_remembered(self) -> bool:
        """Whether the slot is no longer about to be made: what is written from now on has to come."""
        if self.plan.state_file:
            path = self.folder / "state.json"
            return path.exists() and json.loads(path.read_text())["flush_lsn"] is not None
        return bool(self.execute("SELECT 1 FROM cdc.slots WHERE flush_lsn IS NOT NULL"))

    def _settings(self) -> dict[str, Any]:
        """Those of `program`: the plan's, as far as this server's version has them."""
        options = dict(self.plan.options)
        major = self.ground.server.version // 10000
        if options["streaming"] == "parallel" and major < 16:
            options["streaming"] = "on"
        options["two_phase"] &= major >= 15
        options["spool_folder"] = str(self.folder)
        options["state"] = str(self.folder / "state.json") if self.plan.state_file else "database"
        through = psycopg.conninfo.make_conninfo(self.dsn, host="127.0.0.1", port=self.proxy.port)
        own = {"dsn": through, "options": options, "defect": self._defect}
        return own | {"asynchronous": self.plan.asynchronous, "fsync": self.plan.fsync, "terms": self.plan.terms}

    def _judge(self, writer: Writer) -> Verdict:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            parked = [position for (position,) in connection.execute("SELECT position FROM cdc.parked").fetchall()]
        arrivals = Arrivals(self.keeper.read(), parked)
        verdict = judge(writer.ledger, arrivals, self.windows)
        verdict.wrong += self.wrong + self.keeper.wrong
        for error in self.keeper.ended:
            if self.fault.ends is None or not re.match(self.fault.ends, error):
                verdict.wrong.append(f"the consumer ended by itself: {error}")
        if self.fault.gap and not arrivals.holes:
            verdict.wrong.append("nobody was told that changes may be missing")
        if not self.fault.gap and arrivals.holes:
            verdict.wrong.append(f"told of a gap: {arrivals.holes[0].reason}")
        if bool(parked) is not (self.plan.fault == "parked-handler"):
            verdict.wrong.append(f"{len(parked)} events are parked")
        if self._reads_anew:
            self._compare_rows(arrivals.kept, verdict)
        elif not arrivals.holes and not parked:
            self._compare_rows(arrivals.rows(), verdict)
        return verdict

    @property
    def _reads_anew(self) -> bool:
        """Whether the consumer reads the tables behind a gap, so that a list of their rows has to be right again."""
        return self.plan.options.get("on_gap") == "resync"

    def _is_read_anew(self) -> bool:
        verdict = Verdict()
        self._compare_rows(Arrivals(self.keeper.read()).kept, verdict)
        return self._runs() and not verdict.wrong

    def _compare_rows(self, rows: Mapping[str, Mapping[Any, str]], verdict: Verdict) -> None:
        """What the changes add up to, beside the tables themselves."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            for table, columns in TABLES.items():
                select = f"SELECT jsonb_build_array({', '.join(columns)}), value FROM {table}"
                found = connection.execute(select).fetchall()  # type: ignore[call-overload]
                wanted = {frozen(key) if len(key) > 1 else key[0]: value for key, value in found}
                if wanted != rows[table]:
                    different = len(wanted.items() ^ rows[table].items())
                    verdict.wrong.append(f"{table} is not what the changes add up to: {different} rows differ")

    def _tidy(self, writer: Writer, verdict: Verdict) -> None:
        if verdict.is_good:
            shutil.rmtree(self.folder)
            return
        writer.ledger.write(self.folder / "ledger.jsonl")
        (self.folder / "verdict.txt").write_text("\n".join([str(verdict), *verdict.wrong]) + "\n")
        log = self.ground.server.log_file
        (self.folder / "server.log").write_bytes(log.read_bytes()[self._log_begin :])
