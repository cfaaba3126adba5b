"""The oracle, in small: `make oracle` asks for more. What it is, says `tests/oracle`."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from tests.oracle.command import play
from tests.oracle.ground import Ground

FIXED = "1"


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    with Ground() as made:
        yield made


@pytest.mark.parametrize("seed", ["fixed", "random"])
def test_postgres_says_the_same_of_random_policies(seed: str, ground: Ground) -> None:
    """10,000 rows by a fixed seed, 10,000 by another one: no leak, nothing hidden without a reason."""
    account = play(ground, 10_000, FIXED if seed == "fixed" else str(secrets.randbelow(10**9)), seconds=30)
    told = "\n\n".join(f"{each.sort}, seed {each.seed}\n{each.text}" for each in account.failures)
    assert account.is_good, f"{told}\n{account.report()}"
    assert account.total >= 2_000 and account.visible > 500
