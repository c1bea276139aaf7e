"""The one seam to Redis: how a client is made."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

from redis.asyncio import Connection, ConnectionPool, Redis
from redis.credentials import UsernamePasswordCredentialProvider
from redis.exceptions import BusyLoadingError, MasterDownError, NoScriptError, ReadOnlyError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.maint_notifications import MaintNotificationsConfig

from queueworker.resource.redis_url import RedisTarget, redis_target
from queueworker.routing.journal.redis_connections import CONNECTIONS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from redis.commands.core import AsyncScript


class ForeignAnswer(ResponseError):
    """What answered a script is not what the script answers: the script may not have run."""

    def __init__(self) -> None:
        super().__init__("a script was answered by something else than Redis: the URL must name Redis itself")


def anything(_: object) -> bool:
    return True


def is_list(answer: object) -> bool:
    return isinstance(answer, list)


class Login(UsernamePasswordCredentialProvider):
    """User and password of a URL; false if it has none."""

    def __init__(self, target: RedisTarget) -> None:
        super().__init__(target.username, target.password)

    def become(self, target: RedisTarget) -> None:
        self.username, self.password = target.username, target.password

    def __bool__(self) -> bool:
        return bool(self.username or self.password)


class Client(Redis):
    """redis-py's client, with a login that may change, and scripts that have a connection of their own."""

    login: Login
    """Every connection has this very object, and logs in with what it holds by then."""
    logins = 1
    """How many there have been. A connection of an earlier one is not used any more."""

    def log_in(self, url: str) -> None:
        """As the user of this URL, which is for the same server. Raises InvalidRedisUrl."""
        self.login.become(redis_target(url, local=True))
        self.logins += 1

    def exclusive_script(self, text: str, is_answer: Callable[[Any], bool] = anything) -> ExclusiveScript:
        """What is no answer of the script raises `ForeignAnswer`."""
        return ExclusiveScript(self, text, is_answer)


class ExclusiveScript:
    """A script with a connection of its own, for one caller at a time. Raises what redis-py raises.

    redis-py looks for a connection before each command, measures it, and bounds each write by a task of its own. A
    script that is called a thousand times a second does without: that is two thirds of the CPU of a call.
    """

    def __init__(self, redis: Client, text: str, is_answer: Callable[[Any], bool]) -> None:
        self._redis = redis
        self._is_answer = is_answer
        self._script: AsyncScript = redis.register_script(text)
        self._connection: Connection | None = None
        self._login = redis.logins

    async def connect(self, seconds: float) -> None:
        """Return once there is a connection that Redis has not closed. If this raises, nothing was sent."""
        if self._login != self._redis.logins:
            self._login = self._redis.logins
            await self._redis.connection_pool.disconnect(inuse_connections=False)
            await self.disconnect()
        connection = self._connection
        if connection is not None and connection.is_connected and not await connection.can_read():
            return
        try:
            async with asyncio.timeout(seconds):
                if connection is None:
                    connection = await self._redis.connection_pool.get_connection()  # type: ignore[no-untyped-call]
                    self._connection = connection
                else:
                    await connection.disconnect()  # Redis has closed it, or has sent what nobody asked for
                    connection.socket_timeout = seconds  # of the handshake: redis-py may swallow a cancellation here
                    await connection.connect()  # type: ignore[no-untyped-call]
                connection.socket_timeout = None  # a call has one
        except TimeoutError:
            raise RedisTimeoutError(f"no connection within {seconds:g} s") from None

    async def run(self, keys: Sequence[str], args: Sequence[Any], seconds: float) -> Any:
        """The script's answer, within so many seconds. To be called after `connect`."""
        try:
            async with asyncio.timeout(seconds):
                try:
                    answer = await self._run("EVALSHA", self._script.sha, keys, args)
                except NoScriptError:
                    # Redis was restarted, or this is another server. The script goes over this very connection: others
                    # of the client may still lead to the old one.
                    answer = await self._run("EVAL", self._script.script, keys, args)
        except RedisError as error:
            if names_another_server(error):
                await self.disconnect()
            raise
        except TimeoutError:
            raise RedisTimeoutError(f"no answer within {seconds:g} s") from None
        if not self._is_answer(answer):
            raise ForeignAnswer
        return answer

    async def disconnect(self) -> None:
        """Have the next `connect` make a new connection, to whatever server the name leads to by then."""
        if self._connection is not None:
            await self._connection.disconnect()

    async def _run(self, command: str, script: Any, keys: Sequence[str], args: Sequence[Any]) -> Any:
        connection = self._connection
        assert connection is not None
        await connection.send_command(command, script, len(keys), *keys, *args, check_health=False)
        return await connection.read_response()


def names_another_server(error: object) -> bool:
    """Whether a new connection may reach a server that does it: this one has become a replica, or cannot write.

    After a failover the old primary may live on behind the kept connections. `error` may be the text of an answer.
    """
    if isinstance(error, ReadOnlyError | MasterDownError | BusyLoadingError):
        return True
    return str(error).startswith(("READONLY", "MASTERDOWN", "LOADING", "MISCONF"))


async def answer_of(command: Awaitable[Any] | Any) -> Any:
    """The answer to a command: redis-py types its commands as synchronous and asynchronous at once."""
    return await command


def connect(url: str, **options: Any) -> Client:
    """The one function that makes a client of a URL. No network. Raises InvalidRedisUrl, and nothing else.

    With the notices of maintenance that Redis Enterprise sends, redis-py would use connections that Redis has closed.
    """
    no_notices = MaintNotificationsConfig(enabled=False)
    target = redis_target(url, local=True)
    made = CONNECTIONS[target.scheme]
    login, given = Login(target), target.options | options
    pool = ConnectionPool(made, maint_notifications_config=no_notices, credential_provider=login, **given)
    client = cast("Client", Client.from_pool(pool))
    client.login = login
    return client
