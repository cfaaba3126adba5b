"""For tests and trials: a private PostgreSQL, which leaves nothing behind, and replays of recorded streams.

Needs the standard library and psycopg. Touches only the servers that it starts and their temporary folders.
"""

from __future__ import annotations

from cdc.testing.leash import SandboxError
from cdc.testing.replay_checks import Checked, check_recording, check_stream
from cdc.testing.replays import AsyncReplay, Replay, async_replay, replay
from cdc.testing.sandbox import Sandbox
from cdc.testing.supabase import apply_supabase

__all__ = [
    "AsyncReplay",
    "Checked",
    "Replay",
    "Sandbox",
    "SandboxError",
    "apply_supabase",
    "async_replay",
    "check_recording",
    "check_stream",
    "replay",
]
