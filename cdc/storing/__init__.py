"""Stores: tables kept in memory, and in a local file. Pure but for a mutex; see `file` for SQLite."""
