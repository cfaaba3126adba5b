"""Sinks: handlers that write events somewhere. A sink returns when the event is written, which acknowledges it."""

from __future__ import annotations

from cdc.sinks.jsonl import JsonLines, json_line
from cdc.sinks.redis_cache import RedisCache
from cdc.sinks.redis_invalidate import RedisInvalidate

__all__ = ["JsonLines", "RedisCache", "RedisInvalidate", "json_line"]
