"""Some of the mutants, those that are found soon; `make mutants` tries all of them."""

from __future__ import annotations

import pytest

from cdc.testing import Sandbox
from tests.mutants.faults import FAULTS, QUICK
from tests.mutants.trial import ROOT, try_fault


@pytest.mark.parametrize("name", QUICK)
def test_a_fault_is_found(name: str, server: Sandbox) -> None:
    fault = next(fault for fault in FAULTS if fault.name == name)
    outcome = try_fault(fault, "mutants", server.dsn)
    assert outcome.killed, outcome.told


def test_every_fault_still_applies() -> None:
    assert len(FAULTS) >= 20 and len({fault.name for fault in FAULTS}) == len(FAULTS)
    for fault in FAULTS:
        assert (ROOT / fault.file).read_text().count(fault.old) == 1, f"{fault.name}: {fault.file} has changed"
        assert fault.old != fault.new
