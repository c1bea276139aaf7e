"""The storage worker of the platform: subscribes to the evaluation events on Redis and stores them in SQLite.

It reads `eval_id`, then `result` or `error`, and ignores unknown fields (docs/wire.md). There is one row for each id
and channel. A repeated delivery increments its counter and changes nothing else, so duplicates do no harm and can be
seen. Pub/sub keeps nothing for a subscriber that is away, so the worker reconnects quickly.
"""

import asyncio
import contextlib
import logging
import signal
import sqlite3
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import AuthenticationError, RedisError

FIELDS = ("status", "output", "error", "exit_code", "executor_id")
CHANNELS = ("evaluation:completed", "evaluation:failed", "evaluation:running")
BATCH_EVENTS = 500
BATCH_SECONDS = 0.05
"""Maximum number of events in a commit, and maximum time that an event waits for its commit."""
RECONNECT_SECONDS = 0.1

_log = logging.getLogger("storage-worker")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    eval_id TEXT NOT NULL,
    channel TEXT NOT NULL,
    status TEXT,
    body TEXT,
    deliveries INTEGER NOT NULL DEFAULT 1,
    first_at REAL NOT NULL,
    last_at REAL NOT NULL,
    PRIMARY KEY (eval_id, channel)
) WITHOUT ROWID
"""
_UPSERT = """
INSERT INTO events (eval_id, channel, status, body, first_at, last_at) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (eval_id, channel) DO UPDATE SET deliveries = deliveries + 1, last_at = excluded.last_at
"""


@dataclass(frozen=True, slots=True)
class Event:
    """One delivery. `body` is the result as JSON, or the error if there is no result. `at` is Unix time in seconds."""

    eval_id: str
    channel: str
    status: str | None
    body: str | None
    at: float


@dataclass(frozen=True, slots=True)
class Summary:
    """Counts of the database: ids by channel, ids that have an outcome, and deliveries after the first.

    `distinct` is less than `completed + failed` if an id was published as both.
    """

    completed: int
    failed: int
    running: int
    distinct: int
    duplicates: int

    def __str__(self) -> str:
        return (
            f"completed={self.completed} failed={self.failed} running={self.running}"
            f" distinct={self.distinct} duplicates={self.duplicates}"
        )


def parse_event(channel: str, data: bytes, at: float) -> Event | None:
    """The event in a message; None if the message has no `eval_id`.

    What the platform's worker reads is at the top level; `result` is read only where nothing is there.
    """
    try:
        payload = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(payload, dict):
        return None
    eval_id = payload.get("eval_id")
    if not isinstance(eval_id, str) or not eval_id:
        return None
    result, error = payload.get("result"), payload.get("error")
    if "status" in payload or "output" in payload:
        result = {name: payload[name] for name in FIELDS if name in payload}
    status = result.get("status") if isinstance(result, dict) else None
    body = orjson.dumps(result).decode() if result is not None else error
    return Event(
        eval_id,
        channel,
        status if isinstance(status, str) else None,
        body if body is None or isinstance(body, str) else str(body),
        at,
    )


class Store:
    """The SQLite database, for one writer. Committed events survive a SIGKILL (write-ahead log)."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(path, timeout=10)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=NORMAL")
        self._connection.execute(_SCHEMA)
        self._connection.commit()

    def write(self, events: list[Event]) -> None:
        """Store a batch in one transaction."""
        with self._connection:
            self._connection.executemany(
                _UPSERT, [(e.eval_id, e.channel, e.status, e.body, e.at, e.at) for e in events]
            )

    def close(self) -> None:
        self._connection.close()


def summarize(database: Path) -> Summary:
    """Count what a storage worker has stored; it may be running. Raises `FileNotFoundError` if there is no database."""
    if not database.exists():
        raise FileNotFoundError(f"{database}: no such database; has the storage worker run?")
    counts: Counter[str] = Counter()
    with contextlib.closing(sqlite3.connect(database, timeout=10)) as connection:
        rows = connection.execute("SELECT channel, count(*), sum(deliveries - 1) FROM events GROUP BY channel")
        duplicates = 0
        for channel, ids, repeated in rows:
            counts[channel] = ids
            duplicates += repeated
        (distinct,) = connection.execute(
            "SELECT count(DISTINCT eval_id) FROM events WHERE channel IN (?, ?)", CHANNELS[:2]
        ).fetchone()
    completed, failed, running = (counts[channel] for channel in CHANNELS)
    return Summary(completed, failed, running, distinct, duplicates)


class ReadyFileError(Exception):
    """The file cannot be made or removed: no OSError, because those are taken for an outage of Redis."""


class StorageWorker:
    """Subscribes to the channels and commits events in batches, until `stop`.

    `ready_file` is there while it is subscribed.
    """

    def __init__(self, redis_url: str, store: Store, ready_file: Path | None = None) -> None:
        self._store = store
        self._ready_file = ready_file
        self._pending: list[Event] = []
        self._flush_at = 0.0
        self._stop = asyncio.Event()
        self._redis: Redis = Redis.from_url(
            redis_url,
            retry=Retry(ExponentialBackoff(cap=RECONNECT_SECONDS, base=0.01), 3),
            retry_on_error=[RedisError, OSError],
            socket_connect_timeout=2,
            socket_keepalive=True,
            health_check_interval=10,
        )
        self.malformed = 0

    def stop(self) -> None:
        self._stop.set()

    async def run(self) -> None:
        """Store events until `stop`, and reconnect after outages. Raises `AuthenticationError` for a wrong password,
        and `ReadyFileError`.
        """
        announced = away = False
        self._set_ready(False)
        try:
            while not self._stop.is_set():
                pubsub = self._redis.pubsub(ignore_subscribe_messages=True)
                try:
                    await pubsub.subscribe(*CHANNELS)
                    self._set_ready(True)
                    if not announced:
                        announced = True
                        print(f"subscribed to {', '.join(CHANNELS)}", flush=True)
                    if away:
                        _log.warning("subscribed again")
                        away = False
                    await self._receive(pubsub)
                except AuthenticationError:
                    raise
                except (RedisError, OSError) as error:
                    if not away:
                        _log.warning("Redis is away, and events are missed until it is back: %s", error)
                        away = True
                    self._flush()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(RECONNECT_SECONDS):
                            await self._stop.wait()
                finally:
                    self._set_ready(False)
                    with contextlib.suppress(RedisError, OSError):
                        await pubsub.aclose()  # type: ignore[no-untyped-call]
        finally:
            self._flush()
            await self._redis.aclose()

    def _set_ready(self, ready: bool) -> None:
        if self._ready_file is None:
            return
        try:
            if ready:
                self._ready_file.touch()
            else:
                self._ready_file.unlink(missing_ok=True)
        except OSError as error:
            raise ReadyFileError(f"--ready-file: {error}") from error

    async def _receive(self, pubsub: PubSub) -> None:
        clock = asyncio.get_running_loop().time
        while not self._stop.is_set():
            wait = max(self._flush_at - clock(), 0) if self._pending else 0.5
            message: dict[str, Any] | None = await pubsub.get_message(timeout=wait)
            if message is not None:
                self._take(message, clock())
            if self._pending and (len(self._pending) >= BATCH_EVENTS or clock() >= self._flush_at):
                self._flush()

    def _take(self, message: dict[str, Any], now: float) -> None:
        event = parse_event(message["channel"].decode(), message["data"], time.time())
        if event is None:
            self.malformed += 1
            _log.warning("a message on %s has no eval_id: %.100r", message["channel"].decode(), message["data"])
            return
        if not self._pending:
            self._flush_at = now + BATCH_SECONDS
        self._pending.append(event)

    def _flush(self) -> None:
        if self._pending:
            self._store.write(self._pending)
            self._pending.clear()


cli = typer.Typer(add_completion=False)
_Database = Annotated[Path, typer.Option(help="The SQLite database; created if it does not exist.")]


@cli.callback(invoke_without_command=True)
def main(
    context: typer.Context,
    redis_url: Annotated[
        str, typer.Option(envvar="REDIS_URL", help="Redis that the events are published on.")
    ] = "redis://127.0.0.1:6379",
    database: _Database = Path("evaluations.db"),
    ready_file: Annotated[
        Path | None, typer.Option(help="Exists while the worker is subscribed, for a readiness probe.")
    ] = None,
) -> None:
    """Store the evaluation events in SQLite. Without a command it runs until SIGTERM or Ctrl-C.

    The first line of the output is printed when the worker has subscribed; events published from then on are stored.
    """
    if context.invoked_subcommand is not None:
        return
    logging.basicConfig(format="%(asctime)s %(name)s %(message)s", level=logging.WARNING)

    async def run() -> None:
        worker = StorageWorker(redis_url, store, ready_file)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, worker.stop)
        await worker.run()

    with contextlib.closing(Store(database)) as store:
        try:
            asyncio.run(run())
        except (AuthenticationError, ValueError) as error:
            print(f"--redis-url: {error}", file=sys.stderr)
            raise typer.Exit(1) from error
        except ReadyFileError as error:
            print(error, file=sys.stderr)
            raise typer.Exit(1) from error


@cli.command()
def summary(database: _Database = Path("evaluations.db")) -> None:
    """Print the counts of stored events: completed=N failed=N running=N distinct=N duplicates=N."""
    try:
        print(summarize(database))
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(1) from error


if __name__ == "__main__":
    cli()
