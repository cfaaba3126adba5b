"""`python -m tests.mutants`."""

from __future__ import annotations

from tests.mutants.command import main

if __name__ == "__main__":
    raise SystemExit(main())
