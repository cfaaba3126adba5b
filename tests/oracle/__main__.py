"""`python -m tests.oracle`."""

from __future__ import annotations

from tests.oracle.command import main

if __name__ == "__main__":
    raise SystemExit(main())
