"""The command: rounds until there are enough verdicts, on one or several versions, and what they came to."""

from __future__ import annotations

import argparse
import secrets
import sys
import time
from contextlib import suppress

from cdc.errors import CdcError
from tests.oracle.account import FLOOR, Account
from tests.oracle.ground import Ground
from tests.oracle.rounds import Enough, play_round
from tests.oracle.streams import play_stream

__all__ = ["main", "play"]

_TICK = 60.0
_STREAMS = 5
"""One scene of so many is played through a consumer."""


def play(
    ground: Ground,
    verdicts: int,
    seed: str,
    seconds: float = 1e9,
    patience: int = 10,
    brief: bool = False,
    level: str = "both",
) -> Account:
    """Rounds on a server until there are so many verdicts, or as many failures as one has `patience` for.

    With `brief` it ends at the first failure, which is not made smaller.
    """
    account, begun, number = Account(), time.monotonic(), 0
    told = begun
    patience = 1 if brief else patience
    while account.total < verdicts and time.monotonic() - begun < seconds and len(account.failures) < patience:
        with suppress(Enough):
            _play(ground, f"{seed}/{number}", number, account, brief, level)
        number += 1
        if time.monotonic() - told > _TICK:
            told = time.monotonic()
            print(f"{account.total:,} verdicts, {len(account.failures)} failures", flush=True)
    for place in ground.places:
        place.leave()
    account.seconds = time.monotonic() - begun
    return account


def _play(ground: Ground, seed: str, number: int, account: Account, brief: bool = False, level: str = "both") -> None:
    """One scene, by itself or through a consumer."""
    place = ground.places[number % len(ground.places)]
    streamed = number % _STREAMS == _STREAMS - 1
    if level in ("both", "streams" if streamed else "rows"):
        (play_stream if streamed else play_round)(place, seed, number, account, brief)


def main() -> int:
    """Read the command line, run, report; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.oracle", description="Policies, decided by cdc and PostgreSQL."
    )
    parser.add_argument("--verdicts", type=int, default=20_000, help="how many, on all versions together (20000)")
    parser.add_argument("--seed", default=None, help="where chance comes from; a random one, if none is given")
    parser.add_argument("--scene", type=int, default=None, help="this scene of the seed only")
    parser.add_argument("--version", action="append", help="a major version of PostgreSQL; may be given again")
    parser.add_argument("--server", help="DSN of a private server that runs already, as a superuser")
    parser.add_argument(
        "--focus", default="", help="the construct that most policies are to have, as the table names it"
    )
    parser.add_argument("--failures", type=int, default=10, help="stop after so many (10)")
    parser.add_argument("--level", choices=["both", "rows", "streams"], default="both", help="which oracle (both)")
    parser.add_argument("--first", action="store_true", help="end at the first failure, which is not made smaller")
    parser.add_argument("--constructs", action="store_true", help="print a table of constructs")
    arguments = parser.parse_args()
    seed = arguments.seed or str(secrets.randbelow(10**9))
    versions = arguments.version or [None]
    print(f"seed {seed}", flush=True)
    try:
        total = _all(versions, arguments, seed)
    except CdcError as error:
        print(error, file=sys.stderr)
        return 2
    if len(versions) > 1:
        print(f"\nall versions: {total.report()}")
    # A construct in focus may be one that is not supported.
    enough = total.share >= FLOOR or bool(arguments.focus)
    if not enough:
        print(f"Only {total.share:.0%} of the policies are supported: the oracle asks about too little.")
    return 0 if enough and not total.failures else 1


def _all(versions: list[str | None], arguments: argparse.Namespace, seed: str) -> Account:
    total = Account()
    for version in versions:
        with Ground(version, arguments.server, arguments.focus) as ground:
            if arguments.scene is not None:
                account = Account()
                _play(ground, f"{seed}/{arguments.scene}", arguments.scene, account)
            else:
                account = play(
                    ground,
                    arguments.verdicts // len(versions),
                    seed,
                    patience=arguments.failures,
                    brief=arguments.first,
                    level=arguments.level,
                )
            release = ground.places[0].version // 10000
        if arguments.first and account.failures:
            print(f"first failure after {account.failures[0].after:,} verdicts: {account.failures[0].sort}")
        for failure in account.failures:
            again = f"python -m tests.oracle --seed {seed} --scene {failure.seed.rpartition('/')[2]}" + (
                f" --version {version}" if version else ""
            )
            print(f"\n{failure.sort}\nagain: {again}\n{failure.text}")
        print(f"\nPostgreSQL {release}: {account.report(arguments.constructs)}", flush=True)
        total.add(account)
    return total
