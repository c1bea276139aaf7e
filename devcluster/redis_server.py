"""A real redis-server that can be stopped, killed and frozen."""

from __future__ import annotations

import resource
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self, cast

from redis import Redis
from redis.exceptions import RedisError

from devcluster import binaries
from devcluster.ports import free_ports
from devcluster.spawning import end, spawn

READY_SECONDS = 10.0
# A file that may not grow any more is an error to it, and not its end.
_SURVIVES_A_FULL_DISK = ("sh", "-c", "trap '' XFSZ; exec \"$@\"", "sh")


class RedisServerError(RuntimeError):
    """The server did not start. The message ends with its log."""


class RedisServer:
    """One redis-server. After `stop` or `kill`, `start` starts it again on the same port, empty."""

    def __init__(self, port: int = 0, *options: str) -> None:
        self.port = port or free_ports(1)[0]
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> Self:
        """Return when it answers. Raises `RedisServerError`, or `BinaryError` if there is no redis-server."""
        self._folder = self._folder or tempfile.TemporaryDirectory(prefix="redis-")
        command = [
            *_SURVIVES_A_FULL_DISK,
            binaries.redis_server(),
            *("--port", str(self.port), "--bind", "127.0.0.1", "--dir", self._folder.name),
            *("--save", "", "--appendonly", "no", "--loglevel", "warning"),
            *self._options,
        ]
        log = Path(self._folder.name) / "redis.log"
        with log.open("wb") as output:
            self._process = spawn(command, output)
        try:
            self._await_ready(self._process, log)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        self._end(signal.SIGTERM)
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Freeze the server (SIGSTOP): connections stay open, and nothing is answered."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def set_disk_full(self, *, full: bool) -> None:
        """While it is full, whatever the server writes to files fails."""
        if self._process is not None:
            limit, pid = resource.RLIMIT_FSIZE, self._process.pid
            _, hard = resource.prlimit(pid, limit)
            resource.prlimit(pid, limit, (0 if full else hard, hard))

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _await_ready(self, process: subprocess.Popen[bytes], log: Path) -> None:
        """Wait until this server answers; another one may have the port."""
        deadline = time.monotonic() + READY_SECONDS
        with Redis(port=self.port, socket_timeout=1) as client:
            while time.monotonic() < deadline:
                if process.poll() is not None:
                    break
                try:
                    if cast("dict[str, int]", client.info("server"))["process_id"] == process.pid:
                        return
                except (RedisError, OSError):
                    pass
                time.sleep(0.02)
        said = log.read_text(errors="replace").strip()[-1000:]
        raise RedisServerError(f"redis-server on port {self.port} did not start. Its log:\n{said}")

    def _end(self, sign: signal.Signals) -> None:
        if self._process is not None:
            if sign != signal.SIGKILL:
                self.resume()  # a frozen process does not handle signals
            end(self._process, sign)
            self._process = None
