"""Redis URLs: what is taken, what it means, and that a refusal names the option and shows nothing else of the URL."""

from __future__ import annotations

import contextlib
import ssl
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from queueworker.resource.redis_url import OPTION_NAMES, InvalidRedisUrl, redis_target, same_server, shown
from queueworker.routing.journal.redis_client import connect


def refusal(url: str, *, local: bool = False) -> str:
    with pytest.raises(InvalidRedisUrl) as caught:
        redis_target(url, local=local)
    return str(caught.value)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://redis:6379", {"host": "redis", "port": 6379, "db": 0}),
        ("redis://redis", {"port": 6379}),
        ("REDIS://redis/3", {"db": 3}),
        ("redis://redis/", {"db": 0}),
        ("redis://redis/3?db=4", {"db": 4}),
        ("redis://[::1]:7000", {"host": "::1", "port": 7000}),
        ("redis://user:p%2Fw@redis", {"username": "user", "password": "p/w"}),
        ("redis://:p@ss@redis", {"password": "p@ss"}),
        ("redis://redis?password=pw", {"password": "pw"}),
        (" redis://redis\n", {"host": "redis"}),
        ("rediss://redis?ssl_cert_reqs=CERT_NONE", {"ssl_cert_reqs": ssl.CERT_NONE}),
        ("rediss://redis?ssl_cert_reqs=required", {"ssl_cert_reqs": ssl.CERT_REQUIRED}),
        ("rediss://redis?ssl_cert_reqs=CERT_OPTIONAL", {"ssl_cert_reqs": ssl.CERT_OPTIONAL}),
        ("rediss://redis?ssl_check_hostname=false", {"ssl_check_hostname": False}),
        ("rediss://redis?ssl_min_version=772", {"ssl_min_version": ssl.TLSVersion.TLSv1_3}),
        ("redis://redis?client_name=worker-1", {"client_name": "worker-1"}),
    ],
)
def test_a_url_means_what_redis_py_and_celery_mean_by_it(url: str, expected: dict[str, Any]) -> None:
    target = redis_target(url)
    meant = target.options | {"username": target.username, "password": target.password}
    assert {name: meant[name] for name in expected} == expected


def test_options_for_other_programs_are_taken_and_have_no_effect() -> None:
    plain = redis_target("redis://redis")
    assert redis_target("redis://redis?socket_timeout=5&max_connections=1&retry_on_timeout=true") == plain


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis:6379", "must be a redis:// or rediss:// URL, for example redis://redis:6379; it has 10 characters"),
        ("", "it has 0 characters without ://"),
        ("http://redis", "it has another scheme"),
        ("unix:///run/redis.sock", "must be a redis:// or rediss:// URL"),
        ("redis://", "it has no host name"),
        ("redis://a..b", "it has no host name that can be looked up"),
        ("redis://redis:0", "its port must be 1 to 65535"),
        ("redis://redis:70000", "host and port cannot be read"),
        ("redis://redis/abc", "its path must be the number of a database"),
        ("redis://redis/-1", "its path must be the number of a database"),
        ("redis://redis?foo=1", "the option foo is not taken: permitted are db, username"),
        ("redis://redis?decode_responses=true", "the option decode_responses is not taken"),
        ("redis://redis?timeout=1", "the option timeout is not taken"),
        ("redis://redis?socket_timeout=soon", "the option socket_timeout must be a number"),
        ("redis://redis?db=x", "the option db must be an integer from 0"),
        ("redis://redis?ssl_cert_reqs=none", "the option ssl_cert_reqs is for TLS: write rediss://"),
        ("rediss://redis?ssl_cert_reqs=maybe", "the option ssl_cert_reqs must be none, optional or required"),
        ("rediss://redis?ssl_ciphers=none-such", "the option ssl_ciphers must be a list of ciphers"),
        ("rediss://redis?ssl_keyfile=/key", "ssl_keyfile needs ssl_certfile"),
        ("rediss://redis?ssl_min_version=5", "the option ssl_min_version must be 769 to 772"),
        ("redis://redis\n:6379", "it has a control character"),
        ("redis://\ud83d", "it has a control character or is not UTF-8"),
        ("redis://" + "x" * 2048, "it has 2,056 characters, and a URL at most 2,048"),
    ],
)
def test_a_refusal_says_what_is_wrong_and_what_to_write(url: str, words: str) -> None:
    assert words in refusal(url)


@pytest.mark.parametrize(
    "url",
    [
        "hunter2",
        "redis://:hunter2#x@redis",
        "redis://:hunter2/x@redis",
        "redis://:?hunter2=1@redis",
        "redis://:[hunter2@redis",
        "redis://redis?hunter2%20hunter2=1",
        "redis://redis/hunter2",
        "redis://redis?db=hunter2",
        "rediss://redis?ssl_cert_reqs=hunter2",
    ],
)
def test_a_refusal_shows_no_piece_of_the_value(url: str) -> None:
    assert "hunter2" not in refusal(url)


def test_a_process_of_this_machine_may_use_a_socket_and_its_own_host() -> None:
    target = redis_target("unix://user:pw@/run/redis.sock?db=3", local=True)
    assert (target.scheme, target.options["path"], target.options["db"]) == ("unix", "/run/redis.sock", 3)
    assert redis_target("redis:///2", local=True).options["host"] == "localhost"
    assert "it has no path of a socket" in refusal("unix://", local=True)


def test_what_people_see_of_a_url_has_neither_password_nor_options() -> None:
    assert shown("rediss://u:pw@redis:6379/3?password=pw") == "rediss://redis:6379/3"
    assert shown("redis://[") == "(unreadable URL)"
    assert "pw" not in repr(redis_target("redis://u:pw@redis"))


_VALUES = st.sampled_from(
    ("", "0", "1", "-1", "3", "771", "true", "False", "none", "CERT_NONE", "/no/file", "%00", "%F0", "é", "a b", "[x]")
)
_URLS = st.builds(
    lambda scheme, host, path, options: f"{scheme}://{host}{path}?" + "&".join(f"{n}={v}" for n, v in options),
    st.sampled_from(("redis", "rediss", "unix", "http")),
    st.sampled_from(("redis", "redis:6380", "[::1]", "u:p@redis", "a..b", ".", "", "%00", "é", "x" * 64, "[", "r%40")),
    st.sampled_from(("", "/", "/1", "/x", "/tmp/no.sock", "/%00")),
    st.lists(st.tuples(st.sampled_from((*OPTION_NAMES, "timeout", "foo")), _VALUES), max_size=3),
)


@settings(deadline=None)
@given(_URLS)
async def test_a_url_that_is_taken_never_fails_when_clients_and_connections_are_made(url: str) -> None:
    try:
        redis_target(url, local=True)
    except InvalidRedisUrl:
        return
    client = connect(url, socket_connect_timeout=0.1)
    pool: Any = client.connection_pool
    connection = pool.make_connection()
    if url.startswith("rediss"):
        with contextlib.suppress(OSError):  # a file that is not there: an error of the connection
            connection.ssl_context.get()
    await client.aclose()


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ("redis://redis", True),
        ("redis://u:p@redis:6379/0", True),
        (" REDIS://u:p@Redis/\n", True),
        ("redis://:a%40b@redis?password=c", True),
        ("redis://redis?password=x&username=y", True),
        ("redis://redis/1", False),
        ("redis://redis:6380", False),
        ("redis://other", False),
        ("rediss://redis", False),
        ("redis://redis?client_name=x", False),
    ],
)
def test_a_user_and_a_password_make_no_other_server(other: str, same: bool) -> None:
    assert same_server("redis://:secret@redis", other) is same
