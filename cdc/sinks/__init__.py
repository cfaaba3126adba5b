"""Sinks: handlers that write events somewhere. A sink returns when the event is written, which acknowledges it."""

from __future__ import annotations

from cdc.sinks.jsonl import JsonLines, json_line

__all__ = ["JsonLines", "json_line"]
