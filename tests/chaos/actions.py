"""The actions: what is done to a round from outside, by name. Each returns when the fault is over."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import psycopg

from tests.chaos.plan import Injection
from tests.chaos.writer import PUBLISH

if TYPE_CHECKING:
    from tests.chaos.round import Round

__all__ = ["ACTIONS"]

_WALSENDER = "SELECT active_pid FROM pg_replication_slots WHERE slot_name = 'chaos' AND active_pid IS NOT NULL"
_HERE = "SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint"


def _kill_consumer(round: Round, injection: Injection) -> None:
    round.keeper.kill()
    time.sleep(injection.seconds * (injection.variant % 2))
    round.keeper.revive()


def _stop_consumer(round: Round, injection: Injection) -> None:
    round.keeper.stop()
    time.sleep(injection.seconds * (injection.variant % 2))
    round.keeper.revive()


def _kill_server(round: Round, injection: Injection) -> None:
    """All at once; or the walsender alone, whereupon the server throws everybody out and recovers."""
    if injection.variant == 0:
        walsender = _walsender(round)
        if walsender is not None:
            round.ground.kill_one(walsender)
        return
    round.ground.kill()
    time.sleep(injection.seconds)
    round.ground.server.restart("immediate")


def _fast_restart(round: Round, injection: Injection) -> None:
    """It waits for the walsender, which waits for the consumer; the sandbox would go on as a crash after 30 s."""
    log = round.ground.server.log_file
    begin = log.stat().st_size
    round.ground.server.restart("fast")
    if b"received immediate shutdown request" in log.read_bytes()[begin:]:
        round.wrong.append("the server could not shut down in good order")


def _immediate_restart(round: Round, injection: Injection) -> None:
    round.ground.server.restart("immediate")


def _cut(round: Round, injection: Injection) -> None:
    """Once, or for a while."""
    round.proxy.refuse(injection.variant == 0)
    round.proxy.cut()
    time.sleep(injection.seconds * (injection.variant == 0))
    round.proxy.refuse(False)


def _stall(round: Round, injection: Injection) -> None:
    """Shorter or longer than the server's patience."""
    round.proxy.fall_silent()
    time.sleep(injection.seconds * 2)
    round.proxy.go_on()


def _half_open(round: Round, injection: Injection) -> None:
    round.proxy.lose_server()


def _silent_opening(round: Round, injection: Injection) -> None:
    """The consumer connects again, and what it asks first is not answered any more."""
    round.proxy.lose_server_after(answers := int(injection.seconds * 15))
    round.proxy.cut()
    round.wait(lambda: not round.proxy.is_about_to_lose, f"{answers} answers")


def _ghost(round: Round, injection: Injection) -> None:
    round.proxy.lose_clients()


def _terminate_walsender(round: Round, injection: Injection) -> None:
    round.execute(f"SELECT pg_terminate_backend(active_pid) FROM ({_WALSENDER}) each")


def _drop_slot(round: Round, injection: Injection) -> None:
    """While the consumer tries to connect again, or after its end."""
    dead = injection.variant % 2 == 0
    if dead:
        round.keeper.kill() if injection.variant == 0 else round.keeper.stop()
    round.proxy.refuse()
    round.proxy.cut()
    deadline = time.monotonic() + 20
    while True:
        _terminate_walsender(round, injection)
        with suppress(psycopg.errors.ObjectInUse):
            round.execute("SELECT pg_drop_replication_slot('chaos')")
            break
        if time.monotonic() > deadline:
            raise TimeoutError("somebody holds the slot")
        time.sleep(0.02)
    time.sleep(injection.seconds)
    round.proxy.refuse(False)
    round.keeper.revive()


def _drop_publication(round: Round, injection: Injection) -> None:
    """It is made again when the consumer has told of it."""
    begin = round.execute(_HERE)
    _insist(round, "DROP PUBLICATION chaos")
    _await_told(round)
    time.sleep(injection.seconds)
    _insist(round, PUBLISH)
    round.windows.append((begin, round.execute(_HERE)))
    _go_on(round, injection)


def _swap_publication(round: Round, injection: Injection) -> None:
    """It is made again before anybody has had a look: to 17 the stream ends, 18 sends nothing and does not say so."""
    begin = round.execute(_HERE)
    _insist(round, "DROP PUBLICATION chaos")
    round.await_writes(20)
    _insist(round, PUBLISH)
    round.windows.append((begin, round.execute(_HERE)))
    _await_told(round)
    _go_on(round, injection)


def _insist(round: Round, command: str) -> None:
    """It locks the tables in another order than the writer may."""
    deadline = time.monotonic() + 20
    while True:
        try:
            round.execute(command)
        except psycopg.errors.DeadlockDetected:
            if time.monotonic() > deadline:
                raise
        else:
            return


def _await_told(round: Round) -> None:
    told = "that the consumer tells of the lost changes"
    round.wait(lambda: not round.keeper.watch() or round.keeper.has('"gap"'), told)


def _go_on(round: Round, injection: Injection) -> None:
    """What the operator does when the consumer has ended: he starts it, with another slot or the one that it had."""
    if round.keeper.watch():
        return
    round.keeper.tell(round.keeper.ended[-1])
    if round.plan.options["on_gap"] != "resync" and (round.ground.server.version < 180000 or injection.variant < 2):
        command = [sys.executable, "-m", "cdc", "drop", "--slot", "chaos"]
        subprocess.run(command, env=os.environ | {"CDC_DSN": round.dsn}, check=True, capture_output=True, timeout=60)
    round.keeper.revive()


def _walsender(round: Round) -> int | None:
    return round.execute(_WALSENDER)


ACTIONS: dict[str, Callable[[Round, Injection], None]] = {
    "kill-consumer": _kill_consumer,
    "stop-consumer": _stop_consumer,
    "kill-server": _kill_server,
    "fast-restart": _fast_restart,
    "immediate-restart": _immediate_restart,
    "cut": _cut,
    "stall": _stall,
    "half-open": _half_open,
    "silent-opening": _silent_opening,
    "ghost": _ghost,
    "terminate-walsender": _terminate_walsender,
    "drop-slot": _drop_slot,
    "drop-publication": _drop_publication,
    "swap-publication": _swap_publication,
}
