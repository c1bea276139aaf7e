"""The rules for URLs in a spec: one table, used by pydantic (operator and worker) and by CEL (API server).

The patterns are in the common part of Python's `re` and of RE2, so both say the same about a value.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from queueworker.resource.redis_url import DEFAULT_REDIS_URL, MAX_URL_CHARS, OPTION_NAMES, redis_target

if TYPE_CHECKING:
    from collections.abc import Callable

CEL = "x-kubernetes-validations"
UNUSABLE_URL = "unusable_url"
"""Type of the errors of this table. Their messages are sentences for people."""
NUMBER = "{n}"
"""Stands for the number of an executor in a base URL."""

_HOST = r"[\w-]{1,63}(?:\.[\w-]{1,63})*\.?"
_IPV6 = r"\[[\dA-Fa-f:.]+(?:%[\w.-]+)?\]"
_PORT = r"(?::(?:0*(?:[1-9]\d{0,3}|[1-5]\d{4}|6[0-4]\d{3}|65[0-4]\d\d|655[0-2]\d|6553[0-5]))?)?"
# Visible ASCII without / ? #.
_USER = r'(?:[!"$-.0->@-~]*@)?'
_REST = r"(?:[/?#][!-~]*)?"


@dataclass(frozen=True, slots=True)
class UrlRule:
    """What must hold of a URL: in CEL, where `self` is the value, and in Python."""

    cel: str
    message: str
    holds: Callable[[str], bool]
    new_only: bool = False
    """Only the API server asks for it: objects that it took earlier have worked, and go on to work."""


def host_in_url(host: str) -> str:
    """A host name or address as a URL has it: an IPv6 address stands in brackets."""
    return f"[{host}]" if ":" in host else host


def _matches(pattern: str, url: str) -> bool:
    return re.fullmatch(pattern, url, re.ASCII) is not None


def _is(pattern: str, message: str) -> UrlRule:
    return UrlRule(f"self.matches(r'^(?:{pattern})$')", message, lambda url: _matches(pattern, url))


def _lacks(pattern: str, message: str) -> UrlRule:
    found = re.compile(pattern)
    return UrlRule(f"!self.matches(r'{pattern}')", message, lambda url: found.search(url) is None, new_only=True)


_HTTP = _is(
    rf"(?i)https?://{_USER}(?:{_HOST}|{_IPV6}){_PORT}{_REST}",
    "must be an http:// or https:// URL with a host, for example http://queue:8081",
)
_NO_QUERY = _is(
    r"[^?#]*", "must have no query and no fragment: give scheme, host, port and path, for example http://queue:8081"
)
_NO_USER = _lacks(
    r"^[^/?#]*//[^/?#]*@",
    "must hold no user and no password, which everybody could read here: leave them out; the key of a queue belongs in "
    "queue.apiKeySecretRef",
)

_BASE_MESSAGE = (
    "must be an http:// or https:// URL of only scheme and host name, to which number and port are appended "
    "(http://executor), or a template with {n} in host or path, whose own port counts if it has one "
    "(http://executor-{n}.executor, http://gateway:9000/executors/{n})"
)
# The name has a character that is not a digit or a dot: a number behind an address makes no address.
_PLAIN = rf"(?i)https?://{_USER}[\w-]{{1,63}}(?:\.[\w-]{{1,63}})*/?"
_PLAIN_NAME = r"^[^/]*//(?:[^/?#]*@)?[0-9.]*[A-Za-z_-]"
_TEMPLATE_HOST = r"(?:[\w-]|\{n\})+(?:\.(?:[\w-]|\{n\})+)*\.?"
_TEMPLATE = rf"(?i)https?://{_USER}(?:{_TEMPLATE_HOST}|{_IPV6}){_PORT}(?:/(?:[!$->@-z|~]|\{{n\}})*)?"


def _is_base(url: str) -> bool:
    if NUMBER in url:
        return _matches(_TEMPLATE, url)
    return _matches(_PLAIN, url) and re.search(_PLAIN_NAME, url) is not None


_BASE = UrlRule(
    f"self.contains('{NUMBER}') ? self.matches(r'^(?:{_TEMPLATE})$') : "
    f"self.matches(r'^(?:{_PLAIN})$') && self.matches(r'{_PLAIN_NAME}')",
    _BASE_MESSAGE,
    _is_base,
)

_REDIS = _is(
    rf"(?i)rediss?://{_USER}(?:{_HOST}|{_IPV6}){_PORT}{_REST}",
    f"must be a redis:// or rediss:// URL with a host, for example {DEFAULT_REDIS_URL}",
)
_OPTION = rf"(?:{'|'.join(OPTION_NAMES)})(?:=[^&#]*)?"
_REDIS_PARTS = _is(
    rf"[^/]*//[^/?#]*(?:/\d{{0,9}}/?)?(?:\?(?:{_OPTION}(?:&{_OPTION})*)?)?",
    "may have after its host only the number of a database, and of options only " + ", ".join(OPTION_NAMES),
)
_NO_PASSWORD = _lacks(
    r"^[^/?#]*//[^/?#@:]*:[^/?#]*@|[?&](?:ssl_)?password=",
    "must hold no password, which everybody could read here: put the URL into a Secret and name it in "
    "redisURLSecretRef",
)

HTTP_RULES = (_HTTP, _NO_QUERY, _NO_USER)
BASE_RULES = (_BASE, _NO_USER)
REDIS_RULES = (_REDIS, _REDIS_PARTS, _NO_PASSWORD)


def _field(rules: tuple[UrlRule, ...]) -> Any:
    return Field(
        max_length=MAX_URL_CHARS,
        json_schema_extra={CEL: [{"rule": rule.cel, "message": rule.message} for rule in rules]},
    )


def _check(rules: tuple[UrlRule, ...], reads: Callable[[str], object]) -> AfterValidator:
    """`reads` raises ValueError for what patterns cannot see, with a message for people."""

    def check(value: str) -> str:
        try:
            for rule in rules:
                if not rule.new_only and not rule.holds(value):
                    raise ValueError(rule.message)  # noqa: TRY301
            reads(value)
        except ValueError as error:
            raise PydanticCustomError(UNUSABLE_URL, "{message}", {"message": str(error)}) from error
        return value

    return AfterValidator(check)


def _split(url: str) -> None:
    """An IPv6 address that is none passes the patterns."""
    try:
        urlsplit(url)
    except ValueError as error:
        raise ValueError(_HTTP.message) from error


HttpUrl = Annotated[str, _field(HTTP_RULES), _check(HTTP_RULES, _split)]
BaseUrl = Annotated[str, _field(BASE_RULES), _check(BASE_RULES, _split)]
RedisUrl = Annotated[str, _field(REDIS_RULES), _check(REDIS_RULES, redis_target)]


def normal(url: str) -> str:
    """The one form of an HTTP URL that other spellings of it share: case, default port, slash at the end."""
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    default = ":80" if parts.scheme == "http" else ":443"
    return f"{parts.scheme}://{user}{at}{host.lower().removesuffix(default).rstrip(':')}{parts.path.rstrip('/')}"


def numbered(base: str, number: int, port: int) -> str:
    """The URL of executor `number`. A template's own port counts before `port`."""
    base = base.rstrip("/")
    if NUMBER not in base:
        return f"{base}-{number}:{port}"
    scheme, _, rest = base.replace(NUMBER, str(number)).partition("://")
    authority, slash, path = rest.partition("/")
    if not re.search(r":\d+$", authority):
        authority = f"{authority.rstrip(':')}:{port}"
    return f"{scheme}://{authority}{slash}{path}"


def in_namespace(url: str, namespace: str) -> str:
    """The URL as a pod of that namespace means it: `http://queue:8081` becomes `http://queue.NAMESPACE.svc:8081`.

    Names with a dot, addresses and localhost stay as they are.
    """
    host = urlsplit(url).hostname or "localhost"
    if host == "localhost" or "." in host or ":" in host or host.isdigit():
        return url
    scheme, _, rest = url.partition("://")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    user, at, place = authority.rpartition("@")
    name, colon, port = place.partition(":")
    return f"{scheme}://{user}{at}{name}.{namespace}.svc{colon}{port}{rest[len(authority) :]}"
