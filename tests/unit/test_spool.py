"""The spool: memory up to a budget, then files without a name, in the order in which frames came."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cdc import CdcError
from cdc.spool import MemoryOrFile, SpoolFrames


def kept(frames: SpoolFrames) -> list[bytes]:
    return [frame for part in frames for frame in part]


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    budget=st.sampled_from([0, 1, 50, 1000, 1 << 20]),
    given_frames=st.lists(st.tuples(st.integers(0, 3), st.binary(max_size=120)), max_size=60),
)
def test_frames_come_back_whole_and_in_their_order(
    tmp_path: Path, budget: int, given_frames: list[tuple[int, bytes]]
) -> None:
    spool = MemoryOrFile(budget, tmp_path)
    each = [spool.open() for _ in range(4)]
    for number, frame in given_frames:
        each[number].append(frame)
        assert spool.in_memory <= budget
    for number, frames in enumerate(each):
        expected = [frame for owner, frame in given_frames if owner == number]
        assert kept(frames) == expected and kept(frames) == expected, "also a second time"
    spool.close()
    assert spool.in_memory == 0


def test_frames_that_are_longer_than_a_block_of_the_file(tmp_path: Path) -> None:
    spool = MemoryOrFile(0, tmp_path)
    frames = spool.open()
    sizes = [1, 1 << 18, 3 << 18, 5, (1 << 18) - 4, 0, 1 << 19]
    for size in sizes:
        frames.append(bytes([size % 251]) * size)
    assert [len(frame) for frame in kept(frames)] == sizes
    assert spool.written == sum(sizes) + 4 * len(sizes)


def test_frames_can_be_added_after_some_were_read(tmp_path: Path) -> None:
    frames = MemoryOrFile(0, tmp_path).open()
    frames.append(b"one")
    assert kept(frames) == [b"one"]
    frames.append(b"two")
    assert kept(frames) == [b"one", b"two"]


def test_the_budget_is_shared_and_the_largest_goes_to_its_file(tmp_path: Path) -> None:
    spool = MemoryOrFile(100, tmp_path)
    small, large = spool.open(), spool.open()
    small.append(b"s" * 10)
    large.append(b"l" * 70)
    assert spool.written == 0 and spool.in_memory == 88
    small.append(b"s" * 10)
    assert spool.written == 74 and spool.in_memory == small.in_memory == 28
    assert kept(large) == [b"l" * 70] and kept(small) == [b"s" * 10] * 2


def test_files_have_no_name_and_end_with_their_transaction(tmp_path: Path) -> None:
    before = open_files()
    spool = MemoryOrFile(0, tmp_path)
    one, two = spool.open(), spool.open()
    one.append(b"x")
    two.append(b"y")
    assert open_files() == before + 2 and list(tmp_path.iterdir()) == []
    one.drop()
    one.drop()
    assert open_files() == before + 1 and kept(two) == [b"y"]
    spool.close()
    spool.close()
    assert open_files() == before


def test_a_transaction_that_fits_makes_no_file(tmp_path: Path) -> None:
    before = open_files()
    spool = MemoryOrFile(100, tmp_path)
    frames = spool.open()
    frames.append(b"x" * 96)
    assert open_files() == before and spool.written == 0
    frames.drop()
    assert spool.in_memory == 0


def test_a_folder_that_is_gone_is_named(tmp_path: Path) -> None:
    spool = MemoryOrFile(0, tmp_path / "gone")
    with pytest.raises(CdcError, match=r"cannot be spooled to .*gone: No such file.*spool_folder"):
        spool.open().append(b"x")


FULL = """
import resource, signal, sys
from pathlib import Path
from cdc import CdcError
from cdc.spool import MemoryOrFile

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
spool = MemoryOrFile(1000, Path(sys.argv[1]))
frames, other = spool.open(), spool.open()
other.append(b"kept")
try:
    for _ in range(100):
        frames.append(bytes(500))
except CdcError as error:
    print(error)
frames.drop()
assert [frame for part in other for frame in part] == [b"kept"]
assert spool.in_memory == 8
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="no limit for files here")
def test_a_file_that_cannot_grow_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    """The kernel refuses to write more, as it does when the disk is full."""
    command = [sys.executable, "-c", FULL, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert f"cannot be spooled to {tmp_path}: File too large. Make room there" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_huge_frame_comes_back_in_time_that_grows_with_its_size(tmp_path: Path) -> None:
    """Looking at each of its pieces anew took 22 seconds for 100 MB."""
    spool = MemoryOrFile(0, tmp_path)
    frames = spool.open()
    huge = bytes(100 << 20)
    for frame in (b"before", huge, b"behind"):
        frames.append(frame)
    began = time.monotonic()
    assert kept(frames) == [b"before", huge, b"behind"]
    assert time.monotonic() - began < 5
    frames.drop()
