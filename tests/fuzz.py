"""Fuzzes the decoder and the stream: whatever the bytes, they give a value, `DecodeError` or `UnsupportedMessage`.

`make fuzz SECONDS=60` runs it; `python -m tests.fuzz 60 --seed 7` again with another seed. The corpus are the recorded
frames of tests/wire. atheris (libFuzzer) leads the search by what code was reached; where it has no wheel for this
Python, recorded conversations are damaged at random instead, which finds less. What fails is written to the file
`.fuzz/crash-…`, and `python -m tests.fuzz FILE` shows it again.

An input is a row of frames, each behind two bytes with its length, so that one may change what the next one means.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import nullcontext
from hashlib import sha1
from pathlib import Path

try:
    import atheris
except ImportError:
    atheris = None

with atheris.instrument_imports(include=["cdc"]) if atheris else nullcontext():
    from cdc.errors import DecodeError
    from cdc.events import RowChange
    from cdc.pgoutput import Decoder, DeleteMessage, InsertMessage, UpdateMessage
    from cdc.spool import MemoryOrFile
    from tests.wire.recording import Conversation, recordings

FOLDER = Path(".fuzz")
_LONGEST = 1 << 16
_ROWS = (InsertMessage, UpdateMessage, DeleteMessage)


def joined(frames: list[bytes]) -> bytes:
    """An input of these frames."""
    return b"".join(len(frame).to_bytes(2, "big") + frame for frame in frames)


def parted(data: bytes) -> Iterator[bytes]:
    """The frames of an input."""
    at = 0
    while at < len(data):
        end = at + 2 + int.from_bytes(data[at : at + 2], "big")
        yield data[at + 2 : end]
        at = end


def try_input(data: bytes) -> None:
    """Decode an input in every way. Raises what must not be raised."""
    frames = list(parted(data))
    try_decoder(frames)
    try_pieces(frames)
    try_stream(frames)


def try_decoder(frames: list[bytes]) -> None:
    decoder = Decoder()
    for frame in frames:
        try:
            message = decoder.decode(frame)
        except DecodeError as error:
            check(error, frame)
        else:
            repr(message)
            if isinstance(message, _ROWS):
                read(message)


def try_pieces(frames: list[bytes]) -> None:
    decoder = Decoder(streaming="parallel")
    try:
        for frame in frames:
            for message in decoder.feed(frame[25:] + b"\n"):
                repr(message)
    except DecodeError as error:
        str(error)


def try_stream(frames: list[bytes]) -> None:
    conversation = Conversation(MemoryOrFile(1 << 20))
    for frame in frames:
        try:
            for event in conversation.receive(frame):
                if isinstance(event, RowChange):
                    read(event)
        except DecodeError as error:
            check(error, frame)
            if conversation.stream.transaction is not None and frame[25:26] in b"cK":
                return  # It broke in the middle of a delivery; the connection ends there.


def read(owner: object) -> None:
    """Read the rows of a change."""
    for name in ("old", "new"):
        row = getattr(owner, name, None)
        if row is not None:
            dict(row)
            repr(row)


def check(error: DecodeError, frame: bytes) -> None:
    """An error says where."""
    assert str(error)
    assert 0 <= error.offset <= max(len(frame), _LONGEST)


# The searches.


def corpus() -> dict[str, bytes]:
    """Inputs from every recording: its relations with each of its frames, and stretches of the whole."""
    found: dict[str, bytes] = {}
    for recording in recordings():
        frames = recording.frames()
        for at in range(0, len(frames), 12):
            part = [frame for frame in frames[:at] if frame[25:26] == b"R"][-6:] + frames[at : at + 12]
            data = joined([frame for frame in part if len(frame) < 600])
            found[sha1(data).hexdigest()] = data
    return found


def with_atheris(seconds: int, seed: int) -> None:
    """Search by what code was reached."""
    folder = FOLDER / "corpus"
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in corpus().items():
        (folder / name).write_bytes(data)
    options = [f"-max_total_time={seconds}", f"-max_len={_LONGEST}", f"-artifact_prefix={FOLDER}/", "-timeout=20"]
    atheris.Setup([sys.argv[0], *options, *([f"-seed={seed}"] if seed else []), str(folder)], try_input)
    atheris.Fuzz()


def at_random(seconds: int, seed: int) -> int:
    """Damage inputs of the corpus at random; how many inputs failed."""
    chance = random.Random(seed or None)
    inputs = list(corpus().values())
    end, tried = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        data = damaged(chance, chance.choice(inputs))
        tried += 1
        try:
            try_input(data)
        except Exception:
            traceback.print_exc()
            print(f"kept as {keep(data)}; {tried} inputs were tried")
            return 1
    print(f"{tried} inputs, and nothing found")
    return 0


def damaged(chance: random.Random, data: bytes) -> bytes:
    """One to four changes: of a byte, of a frame's length, of the order of frames."""
    frames = [bytearray(frame) for frame in parted(data)]
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(frames))
        frame, what = frames[at], chance.randrange(8)
        if what == 0:
            frames[at], frames[0] = frames[0], frame
        elif what == 1:
            frames.insert(at, bytearray(chance.choice(frames)))
        elif what == 2 and len(frames) > 1:
            del frames[at]
        elif what == 3:
            del frame[chance.randint(0, len(frame)) :]
        elif what == 4:
            frame += chance.randbytes(chance.randint(1, 9))
        elif len(frame) > 25:
            frame[chance.randrange(25, len(frame))] = chance.choice([0, 1, 127, 128, 255, chance.randrange(256)])
    return joined([bytes(frame) for frame in frames])


def keep(data: bytes) -> Path:
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"crash-{sha1(data).hexdigest()[:12]}"
    path.write_bytes(data)
    return path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", default="60", help="seconds, or the file of an input to try again")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--random", action="store_true", help="do without atheris")
    given = parser.parse_args()
    if not given.what.isdigit():
        try_input(Path(given.what).read_bytes())
        return 0
    if atheris is None:
        print("atheris is not installed (no wheel for this Python or machine?): damaging recordings at random instead")
        given.random = True
    if given.random:
        return at_random(int(given.what), given.seed)
    with_atheris(int(given.what), given.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
