"""Redis URLs: which are taken, and what they mean. No network, and no redis-py.

Worker, command, object and Secret use this one function, and so does every client: a URL that it takes cannot fail
when a client is made of it. Its errors name an option, and never show a piece of the URL, which may be a password.
"""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable
    from urllib.parse import SplitResult

DEFAULT_REDIS_URL = "redis://redis:6379"
MAX_URL_CHARS = 2048
FORM = "redis://HOST:PORT/DB or rediss://HOST:PORT/DB"

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_DATABASE = re.compile(r"/?(\d{1,9})?/?")
_TRUTH = dict.fromkeys(("1", "t", "true", "y", "yes"), True) | dict.fromkeys(("0", "f", "false", "n", "no"), False)
_CERT_REQS = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}


class InvalidRedisUrl(ValueError):
    """The message says what is wrong and what to write instead; it holds nothing of the URL but names of options."""


@dataclass(frozen=True, slots=True)
class RedisTarget:
    """What a client connects to."""

    scheme: str
    """redis, rediss or unix."""
    options: dict[str, Any] = field(repr=False)
    """Arguments of redis-py's connection for this scheme."""
    username: str = field(repr=False, compare=False)
    """Empty if there is none, as the password. Targets are equal if they lead to the same database in the same way."""
    password: str = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class _Option:
    permitted: str
    read: Callable[[str], Any]
    """Raises ValueError or LookupError."""
    tls: bool = False


def _integer(value: str) -> int:
    if not re.fullmatch(r"\d{1,9}", value):
        raise ValueError
    return int(value)


def _word(value: str) -> str:
    if not re.fullmatch(r"[!-~]+", value):
        raise ValueError
    return value


def _ascii(value: str) -> str:
    return value.encode("ascii").decode()


def _cert_reqs(value: str) -> ssl.VerifyMode:
    """redis-py writes `none`, Celery `CERT_NONE`."""
    return _CERT_REQS[value.lower().removeprefix("cert_")]


def _verify_flags(value: str) -> list[ssl.VerifyFlags]:
    return [ssl.VerifyFlags[name.strip()] for name in value.strip("[] ").split(",")]


def _ciphers(value: str) -> str:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).set_ciphers(value)
    except ssl.SSLError as error:
        raise ValueError from error
    return value


def _truth(value: str) -> bool:
    return _TRUTH[value.lower()]


_TEXT = _Option("text", str)
_FILE = _Option("the path of a file", str, tls=True)
_FLAGS = _Option("names of ssl.VerifyFlags, separated by commas", _verify_flags, tls=True)
_OPTIONS = {
    "db": _Option("an integer from 0 to 999999999", _integer),
    "username": _TEXT,
    "password": _TEXT,
    "client_name": _Option("visible ASCII characters", _word),
    "ssl_cert_reqs": _Option("none, optional or required (or CERT_NONE and so on)", _cert_reqs, tls=True),
    "ssl_check_hostname": _Option("true or false", _truth, tls=True),
    "ssl_ca_certs": _FILE,
    "ssl_ca_path": _FILE,
    "ssl_ca_data": _Option("certificates in PEM", _ascii, tls=True),
    "ssl_certfile": _FILE,
    "ssl_keyfile": _FILE,
    "ssl_password": _Option("text", str, tls=True),
    "ssl_ciphers": _Option("a list of ciphers that OpenSSL knows", _ciphers, tls=True),
    "ssl_min_version": _Option("769 to 772 (772 is TLS 1.3)", lambda v: ssl.TLSVersion(_integer(v)), tls=True),
    "ssl_include_verify_flags": _FLAGS,
    "ssl_exclude_verify_flags": _FLAGS,
}
_NUMBER = _Option("a number", float)
# Written for other programs. The router has deadlines and connections of its own, so these have no effect.
_WITHOUT_EFFECT = {
    "socket_timeout": _NUMBER,
    "socket_connect_timeout": _NUMBER,
    "socket_read_size": _NUMBER,
    "health_check_interval": _NUMBER,
    "max_connections": _NUMBER,
    "protocol": _NUMBER,
    "socket_keepalive": _TEXT,
    "retry_on_timeout": _TEXT,
    "legacy_responses": _TEXT,
    "encoding": _TEXT,
    "encoding_errors": _TEXT,
    "lib_name": _TEXT,
    "lib_version": _TEXT,
}
OPTION_NAMES = (*_OPTIONS, *_WITHOUT_EFFECT)


def redis_target(url: str, *, local: bool = False) -> RedisTarget:
    """What the URL means. `local`: it is for a process of this machine, so it may be unix:// or have no host.

    Raises InvalidRedisUrl.
    """
    url = url.strip()
    if len(url) > MAX_URL_CHARS:
        raise InvalidRedisUrl(f"it has {len(url):,} characters, and a URL at most {MAX_URL_CHARS:,}: write {FORM}")
    if _CONTROL.search(url) or not _encodes(url):
        raise InvalidRedisUrl(f"it has a control character or is not UTF-8: write {FORM} in one line")
    _check_scheme(url, ("redis", "rediss", "unix") if local else ("redis", "rediss"))
    parts, port = _split(url)
    options = _query(parts.query, tls=parts.scheme == "rediss")
    username, password = options.pop("username", ""), options.pop("password", "")
    username = unquote(parts.username) if parts.username else username
    password = unquote(parts.password) if parts.password else password
    if parts.scheme == "unix":
        options["path"] = _path(parts.path)
    else:
        options["host"] = _host(parts.hostname or ("localhost" if local else ""))
        options["port"] = 6379 if port is None else port
        options.setdefault("db", _database(parts.path))
    return RedisTarget(parts.scheme, options, username, password)


def same_server(url: str, other: str) -> bool:
    """Whether both lead to the same database in the same way, perhaps as another user. Raises InvalidRedisUrl."""
    return url == other or redis_target(url, local=True) == redis_target(other, local=True)


def shown(url: str) -> str:
    """The URL without user, password and options, for people."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "(unreadable URL)"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _check_scheme(url: str, schemes: tuple[str, ...]) -> None:
    scheme, separator, _ = url.partition("://")
    if scheme.lower() not in schemes or not separator:
        *some, last = [f"{name}://" for name in schemes]
        found = "another scheme" if separator else f"{len(url)} characters without ://"
        raise InvalidRedisUrl(
            f"must be a {', '.join(some)} or {last} URL, for example {DEFAULT_REDIS_URL}; it has {found}"
        )


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _split(url: str) -> tuple[SplitResult, int | None]:
    advice = "in a password, write / as %2F, ? as %3F, # as %23 and [ as %5B"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:  # its text shows a piece of the URL
        raise InvalidRedisUrl(f"host and port cannot be read: write {FORM}; {advice}") from error
    if port == 0:
        raise InvalidRedisUrl("its port must be 1 to 65535")
    if parts.fragment or url.endswith("#"):
        raise InvalidRedisUrl(f"it has a # with something after it: write {FORM}; {advice}")
    return parts, port


def _query(query: str, *, tls: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in parse_qsl(query):
        option = _OPTIONS.get(name) or _WITHOUT_EFFECT.get(name)
        if option is None:
            raise InvalidRedisUrl(f"{_named(name, query)} is not taken: permitted are {', '.join(OPTION_NAMES)}")
        if option.tls and not tls:
            raise InvalidRedisUrl(f"the option {name} is for TLS: write rediss:// instead of redis://, or leave it out")
        try:
            found.setdefault(name, option.read(_checked(value)))
        except (ValueError, LookupError) as error:
            raise InvalidRedisUrl(f"the option {name} must be {option.permitted}") from error
    if "ssl_keyfile" in found and "ssl_certfile" not in found:
        raise InvalidRedisUrl("the option ssl_keyfile needs ssl_certfile beside it")
    return {name: value for name, value in found.items() if name in _OPTIONS}


def _named(name: str, query: str) -> str:
    """After an unescaped ? in a password, what looks like an option is a piece of it."""
    harmless = "@" not in query and re.fullmatch(r"\w{1,40}", name, re.ASCII)
    return f"the option {name}" if harmless else "an option"


def _checked(value: str) -> str:
    if _CONTROL.search(value.replace("\n", "").replace("\r", "")):  # PEM has lines
        raise ValueError
    return value


def _path(path: str) -> str:
    found = unquote(path)
    if not found or "\0" in found:
        raise InvalidRedisUrl("it has no path of a socket: write unix:///run/redis.sock")
    return found


def _host(host: str) -> str:
    """Raises InvalidRedisUrl for what a name look-up would raise a UnicodeError for."""
    found = unquote(host)
    try:
        found.encode("idna")
    except UnicodeError:
        found = ""
    if not found or re.search(r"[\x00-\x20\x7f/?#@\\]", found):
        raise InvalidRedisUrl(f"it has no host name that can be looked up: write {FORM}")
    return found


def _database(path: str) -> int:
    found = _DATABASE.fullmatch(unquote(path))
    if found is None:
        raise InvalidRedisUrl(f"its path must be the number of a database, or be left out: write {FORM}")
    return int(found[1] or 0)
