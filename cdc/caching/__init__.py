"""Caches: what was read from tables, dropped by their changes, never older than one of them. Pure but for a mutex."""
