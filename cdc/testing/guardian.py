"""The process that owns a sandbox's server and folder, and takes both away when its parent ends.

Runs as a script of its own (`python -I -S guardian.py PARENT_PID`) with the standard library alone, so that it starts
quickly and owes nothing to the parent's state. It reads a plan, one line of JSON, on standard input, and then the
commands `restart fast`, `restart immediate` and `stop`, a line each. It answers `ready` or `failed` in lines of JSON.

The end of its input, a new parent process id or a signal makes it stop the server, delete the folder and exit. It
touches that folder, the server's processes and nothing else.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

_BUILD_SECONDS = 120.0
_START_SECONDS = 60.0
_RESTART_SECONDS = 20.0
_PARENT_POLL_SECONDS = 0.5
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

# How a server is asked to stop: a signal, and the seconds that it has before the next one follows.
_SHUTDOWN = {
    "fast": ((signal.SIGINT, 30.0), (signal.SIGQUIT, 8.0), (signal.SIGKILL, 5.0)),
    "immediate": ((signal.SIGQUIT, 8.0), (signal.SIGKILL, 5.0)),
    "final": ((signal.SIGINT, 4.0), (signal.SIGQUIT, 8.0), (signal.SIGKILL, 5.0)),
}


class Ending(Exception):
    """The parent is gone or asks for the end."""


class Failure(Exception):
    """The server cannot be had; the text says why."""


class Parent:
    """The line to the process that started this one.

    Args:
        pid: that process's id; a different parent means that it has ended.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._received = b""
        self._over = False

    def end(self, *_: object) -> None:
        """Note that the end is wanted (also used as the handler of signals)."""
        self._over = True

    def send(self, event: str, **fields: Any) -> None:
        """Write one line of JSON."""
        try:
            os.write(1, json.dumps({"event": event, **fields}).encode() + b"\n")
        except OSError:
            self._over = True

    def pause(self, seconds: float) -> None:
        """Wait for at most `seconds`; raise `Ending` as soon as the parent is gone or asks for the end."""
        if select.select([0], [], [], seconds)[0]:
            received = os.read(0, 65536)
            self._received += received
            self._over = self._over or not received
        if os.getppid() != self._pid:
            self._over = True
        if self._over or self._received.startswith(b"stop\n"):
            raise Ending

    def receive(self) -> str:
        """Return the next line; raise `Ending` when none can come any more."""
        while b"\n" not in self._received:
            self.pause(_PARENT_POLL_SECONDS)
        line, self._received = self._received.split(b"\n", 1)
        if line == b"stop":
            raise Ending
        return line.decode()


class System:
    """The C library's calls that tie a process's life to this one (on Linux) and take its remains away."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._library: Any = None
        self._prctl: Any = None
        with contextlib.suppress(ImportError, OSError, AttributeError):
            import ctypes

            self._library = ctypes.CDLL(None)
            if sys.platform == "linux":
                self._prctl = self._library.prctl
                self._prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def tie(self) -> None:
        """Run in a new child: let the kernel send it SIGQUIT when this process ends."""
        if self._prctl is not None:
            self._prctl(_PR_SET_PDEATHSIG, int(signal.SIGQUIT), 0, 0, 0)
            if os.getppid() != self._pid:
                os._exit(1)

    def sweep(self, seconds: float = 5.0) -> None:
        """Kill and collect the processes that an ended server has left behind."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                for child in Path(f"/proc/self/task/{self._pid}/children").read_text().split():
                    os.kill(int(child), signal.SIGKILL)
            try:
                if os.waitpid(-1, os.WNOHANG)[0] == 0:
                    time.sleep(0.02)
            except ChildProcessError:
                return

    def release(self, segment: int) -> None:
        """Remove a segment of System V shared memory, if it exists."""
        if self._library is not None:
            self._library.shmctl(segment, 0, None)  # 0 is IPC_RMID everywhere.


class Server:
    """One PostgreSQL server in a folder of its own.

    Args:
        plan: what to build, as `cdc.testing.leash` writes it.
        parent: the line to the parent; every wait ends when it does.
    """

    def __init__(self, plan: dict[str, Any], parent: Parent) -> None:
        self._plan, self._parent, self._system = plan, parent, System()
        self._process: subprocess.Popen[bytes] | None = None
        self._environment = dict(os.environ)
        self.port = 0
        self.folder = Path(tempfile.mkdtemp(prefix="cdc-sandbox-", dir=plan["scratch"]))
        self.data = self.folder / "data"
        self.log = self.data / "server.log"
        self._bin = Path(plan["bin"])

    @property
    def pid(self) -> int:
        """The process id of the server, 0 when there is none."""
        return self._process.pid if self._process else 0

    def build(self) -> None:
        """Make the folder's content: the programs if they must be copied, and the database cluster."""
        for source, place in self._plan["install"].items():
            self._install(Path(source), self.folder / "install" / place)
        password = self.folder / "password"
        password.write_text(self._plan["password"] + "\n")
        for path in (password, self.folder) if self._plan["account"] else ():
            os.chown(path, *self._plan["account"])
        self._initdb(password)
        password.unlink()
        with (self.data / "postgresql.conf").open("a", encoding="utf-8") as configuration:
            configuration.write("\n" + self._plan["configuration"])

    def start(self) -> None:
        """Start on a free port; a port that another program takes first is replaced."""
        for _ in range(10):
            self.port = _free_port()
            if self._launch() == "":
                return
        raise Failure("No free port is left on 127.0.0.1:\n" + self._log_tail())

    def restart(self, mode: str) -> None:
        """Stop in the given mode and start on the same port."""
        self.stop(mode)
        deadline = time.monotonic() + _RESTART_SECONDS
        while problem := self._launch():
            if time.monotonic() > deadline:
                raise Failure(problem)
            self._parent.pause(0.2)

    def stop(self, mode: str) -> None:
        """Stop the server if it runs, step by step with harder signals."""
        # The last stop happens because the parent is gone; the others end early when it goes.
        pause = time.sleep if mode == "final" else self._parent.pause
        for number, seconds in _SHUTDOWN[mode]:
            deadline = time.monotonic() + seconds
            if self._runs():
                (os.killpg if number == signal.SIGKILL else os.kill)(self.pid, number)
            while self._runs() and time.monotonic() < deadline:
                pause(0.01)
        self._process = None
        self._system.sweep()

    def delete(self) -> None:
        """Delete the folder with everything in it, and the shared memory of a server that was killed."""
        for segment in "".join(self._state()[6:7]).split()[1:]:
            self._system.release(int(segment))
        for _ in range(50):
            shutil.rmtree(self.folder, ignore_errors=True)
            if not self.folder.exists():
                return
            time.sleep(0.1)

    def _runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _install(self, source: Path, target: Path) -> None:
        """Link (or copy) a tree of the installation to where the server's user can reach it."""
        shutil.copytree(source, target, symlinks=False, copy_function=_link, ignore_dangling_symlinks=True)
        for folder, _, _ in os.walk(target):
            Path(folder).chmod(0o755)
        if source == self._bin:
            self._bin = target
        if target.name in ("lib", "lib64"):
            libraries = [str(target), self._environment.get("LD_LIBRARY_PATH", "")]
            self._environment["LD_LIBRARY_PATH"] = ":".join(filter(None, libraries))

    def _initdb(self, password: Path) -> None:
        options = ["-U", "postgres", "-E", "UTF8", "-A", "scram-sha-256", f"--pwfile={password}", "--no-locale"]
        options += ["--no-sync", "--no-instructions", *self._plan["initdb_options"]]
        output = self.folder / "initdb.log"
        self._process = self._spawn(["initdb", "-D", str(self.data), *options], output)
        deadline = time.monotonic() + _BUILD_SECONDS
        while self._runs() and time.monotonic() < deadline:
            self._parent.pause(0.01)
        if self._process.returncode != 0:
            raise Failure("initdb does not succeed:\n" + _tail(output.read_text(errors="replace")))
        self._process = None
        output.unlink()

    def _spawn(self, command: list[str], log: Path) -> subprocess.Popen[bytes]:
        """Start a program as the server's user, with its output in `log`."""
        uid, gid = self._plan["account"] or (None, None)
        output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        program = self._bin / command[0]
        try:
            return subprocess.Popen(
                [str(program), *command[1:]], stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=self.folder,
                env=self._environment, user=uid, group=gid, extra_groups=None if uid is None else [],
                start_new_session=True, preexec_fn=self._system.tie,
            )  # fmt: skip
        except (OSError, subprocess.SubprocessError) as problem:
            raise Failure(f"{program} cannot be started: {problem}") from problem
        finally:
            os.close(output)

    def _launch(self) -> str:
        """Start the server; return "" when it answers, or the log when another attempt may succeed."""
        written = self.log.stat().st_size if self.log.exists() else 0
        self._process = self._spawn(["postgres", "-D", str(self.data), "-p", str(self.port)], self.log)
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            if not self._runs():
                return self._passing(self._log_tail(written))
            if time.monotonic() > deadline:
                raise Failure(f"The server is not ready after {_START_SECONDS:.0f} s:\n" + self._log_tail(written))
            self._parent.pause(0.01)
        return ""

    def _passing(self, log: str) -> str:
        """Return the log when a later attempt may succeed; raise `Failure` when not."""
        if any(sign in log for sign in ("could not bind", "pre-existing shared memory block", "lock file")):
            return log
        raise Failure("The server does not start:\n" + log)

    def _answers(self) -> bool:
        """Tell whether the server says that it is ready, in the file where pg_ctl looks too."""
        state = self._state()
        return len(state) > 7 and state[0] == str(self.pid) and state[7] == "ready"

    def _state(self) -> list[str]:
        """The lines of postmaster.pid, which a server deletes when it ends by itself."""
        try:
            return [line.strip() for line in (self.data / "postmaster.pid").read_text().splitlines()]
        except OSError:
            return []

    def _log_tail(self, start: int = 0) -> str:
        return _tail(self.log.read_bytes()[start:].decode(errors="replace")) if self.log.exists() else ""


def _link(source: str, target: str) -> None:
    """Hard-link a file; copy it when links do not reach there, or when not everyone may read the original."""
    mode = Path(source).stat().st_mode
    wanted = 0o005 if mode & 0o100 else 0o004
    if mode & wanted == wanted:
        with contextlib.suppress(OSError):
            os.link(Path(source).resolve(), target)
            return
    shutil.copyfile(source, target)
    Path(target).chmod(0o755 if mode & 0o100 else 0o644)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _tail(text: str, lines: int = 15) -> str:
    return "\n".join(text.strip().splitlines()[-lines:])


def serve(parent: Parent) -> None:
    """Read the plan, run the server, obey the parent, and clean up, whatever happens."""
    server: Server | None = None
    try:
        plan = json.loads(parent.receive())
        server = Server(plan, parent)
        server.build()
        server.start()
        while True:
            parent.send("ready", folder=str(server.folder), data=str(server.data), port=server.port, pid=server.pid)
            server.restart(parent.receive().removeprefix("restart "))
    except Ending:
        pass
    except Failure as failure:
        parent.send("failed", reason=str(failure))
    except Exception:
        parent.send("failed", reason=traceback.format_exc())
    finally:
        if server is not None:
            server.stop("final")
            server.delete()


def main() -> None:
    """Set up the signals and serve."""
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.umask(0o022)
    parent = Parent(int(sys.argv[1]))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, parent.end)
    serve(parent)


if __name__ == "__main__":
    main()
