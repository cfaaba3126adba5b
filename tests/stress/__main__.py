"""`python -m tests.stress`."""

from __future__ import annotations

from tests.stress.command import main

if __name__ == "__main__":
    raise SystemExit(main())
