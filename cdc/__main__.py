"""`python -m cdc`: the command line."""

from __future__ import annotations

from cdc.daemon import main

main()
