"""Builds wheel and sdist, and tries the wheel in a fresh environment: import, command, scripts, a real change.

Run by `make check`. It uses a temporary folder and leaves nothing behind.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent

PROGRAM = """
import os, psycopg, cdc
dsn = os.environ["CDC_DSN"]
with psycopg.connect(dsn, autocommit=True) as db:
    with cdc.Consumer(dsn, slot="smoke") as consumer:
        events = []
        consumer.on("wells")(events.append)
        consumer.start()
        db.execute("INSERT INTO wells VALUES (1, 'first')")
        consumer.wait_for(cdc.current_lsn(db))
assert [dict(event.new) for event in events] == [{"id": 1, "name": "first"}], events
print("a change arrived")
"""


def run(*command: str | Path, **options: object) -> None:
    """Run a command with nothing but HOME and PATH in its environment; stop when it fails."""
    environment = {name: os.environ[name] for name in ("HOME", "PATH") if name in os.environ}
    subprocess.run([str(part) for part in command], check=True, env=environment, timeout=900, **options)  # type: ignore[call-overload]


def main() -> None:
    """Build, look inside, install, use."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run(sys.executable, "-m", "build", "--outdir", folder / "dist", ROOT, stdout=subprocess.DEVNULL)
        (wheel,) = (folder / "dist").glob("*.whl")
        (sdist,) = (folder / "dist").glob("*.tar.gz")
        inside = zipfile.ZipFile(wheel).namelist()
        assert "cdc/py.typed" in inside
        assert "cdc/sql/01_schema.sql" in inside, inside
        with tarfile.open(sdist) as archive:
            assert any(entry.endswith("/sql/01_schema.sql") for entry in archive.getnames())
        run(sys.executable, "-m", "venv", folder / "venv")
        binaries = folder / "venv" / "bin"
        pip = (binaries / "pip", "install", "--quiet", "--disable-pip-version-check")
        run(*pip, wheel)
        run(binaries / "python", "-c", "import cdc; print('cdc', cdc.__version__)", cwd=folder)
        without = subprocess.run([str(binaries / "cdc"), "tail"], capture_output=True, text=True, timeout=60)
        assert without.returncode == 2 and "wells-cdc[daemon]" in without.stderr, without
        run(*pip, f"wells-cdc[embedded,daemon] @ {wheel.as_uri()}")
        run(binaries / "cdc", "--version")
        (folder / "program.py").write_text(PROGRAM)
        (folder / "use.sh").write_text(
            "set -e\npython -c \"import psycopg, os; psycopg.connect(os.environ['CDC_DSN'], autocommit=True)"
            ".execute('CREATE TABLE wells (id int PRIMARY KEY, name text)')\"\ncdc setup\npython program.py\n"
        )
        environment = {"HOME": os.environ.get("HOME", str(folder)), "PATH": f"{binaries}:{os.environ['PATH']}"}
        sandbox = [str(binaries / "cdc"), "sandbox", "--", "sh", "use.sh"]
        subprocess.run(sandbox, check=True, env=environment, cwd=folder, timeout=300)


if __name__ == "__main__":
    main()
