"""`python -m tests.chaos`."""

from __future__ import annotations

from tests.chaos.command import main

if __name__ == "__main__":
    raise SystemExit(main())
