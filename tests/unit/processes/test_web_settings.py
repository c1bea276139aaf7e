"""What the HTTP API shows and allows, from the environment; and where other replicas reach it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from queueworker.processes.environment import InvalidEnvironment, load, load_web
from queueworker.processes.operator import reached_at
from queueworker.web.options import Failures, WebOptions

if TYPE_CHECKING:
    from pathlib import Path

TOKEN = "a-token-of-some-length"


def test_nothing_is_allowed_and_everything_shown_by_default() -> None:
    assert load_web({"WEB_TOKEN": TOKEN, "QUEUE_SERVICE_URL": "no URL"}) == WebOptions(Failures.FULL, "")


def test_actions_need_a_token_from_a_variable_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"\ufeff {TOKEN}\r\n")  # as editors on Windows write it
    environ = {"WEB_ALLOW_ACTIONS": "true", "WEB_FAILURES": "off"}
    assert load_web(environ | {"WEB_TOKEN": TOKEN}) == WebOptions(Failures.OFF, TOKEN)
    assert load_web(environ | {"WEB_TOKEN_FILE": str(file)}).token == TOKEN
    assert load(environ | {"WEB_TOKEN": TOKEN}).web.token == TOKEN
    assert TOKEN not in repr(load(environ | {"WEB_TOKEN": TOKEN}))


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({}, "WEB_ALLOW_ACTIONS=true: set WEB_TOKEN or WEB_TOKEN_FILE to a token of at least 16 printable ASCII"),
        ({"WEB_TOKEN": "short"}, "at least 16 printable ASCII characters"),
        ({"WEB_TOKEN": "no-header-can-carry-\u00e9"}, "at least 16 printable ASCII characters"),
        ({"WEB_TOKEN": "a-token-on-two\nlines-of-a-file"}, "at least 16 printable ASCII characters"),
        ({"WEB_TOKEN_FILE": "/no/such/file"}, "WEB_TOKEN_FILE='/no/such/file' cannot be read: "),
    ],
)
def test_actions_without_a_usable_token_are_an_error_that_names_the_variable(
    environ: dict[str, str], says: str
) -> None:
    with pytest.raises(InvalidEnvironment, match=r"WEB_") as caught:
        load_web({"WEB_ALLOW_ACTIONS": "true", **environ})
    assert says in caught.value.problems[0]
    assert "short" not in caught.value.problems[0].removesuffix("characters")


@pytest.mark.parametrize(
    ("host", "pod_ip", "address"),
    [
        ("0.0.0.0", "10.0.0.7", "http://10.0.0.7:8084"),
        ("::", "fd00::7", "http://[fd00::7]:8084"),
        ("127.0.0.1", "", "http://127.0.0.1:8084"),
        ("0.0.0.0", "", ""),
    ],
)
def test_other_replicas_reach_the_pods_address_or_the_one_that_is_listened_on(
    host: str, pod_ip: str, address: str
) -> None:
    assert reached_at(host, 8084, pod_ip) == address
