"""A private PostgreSQL for tests and trials, which leaves nothing behind.

Needs the standard library and psycopg. Touches only the servers that it starts and their temporary folders.
"""

from __future__ import annotations

from cdc.testing.leash import SandboxError
from cdc.testing.sandbox import Sandbox
from cdc.testing.supabase import apply_supabase

__all__ = ["Sandbox", "SandboxError", "apply_supabase"]
