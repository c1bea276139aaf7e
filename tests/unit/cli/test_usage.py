"""Errors of usage: in our words, and not in those of the library that validates options."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from queueworker.cli.main import app
from queueworker.cli.plugin.completion import candidates
from queueworker.cli.plugin.main import PROG
from queueworker.cli.plugin.main import app as plugin

WORDS_OF_LIBRARIES = ("Value error", "Input should", "pydantic", "validation", "Traceback")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["failed", "list", "-o", "yaml"], "'yaml' is not one of 'table', 'wide', 'json'"),
        (["failed", "list", "--limit", "x"], "'x' is not a whole number"),
        (["failed", "list", "--limit", "0"], "0 is too small: it must be at least 1"),
        (["operator", "--port", "70000"], "70000 is too large: it must be at most 65535"),
        (["operator", "--log-format", "xml"], "'xml' is not one of"),
    ],
)
def test_an_option_that_cannot_be_used_is_told_in_plain_words(words: list[str], message: str) -> None:
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2
    assert message in result.output
    assert not [word for word in WORDS_OF_LIBRARIES if word in result.output]


def test_an_option_of_the_plugin_is_told_in_plain_words() -> None:
    result = CliRunner().invoke(plugin, ["status", "-o", "yaml"])
    assert result.exit_code == 2
    assert "'yaml' is not one of 'text', 'json'" in result.output
    assert not [word for word in WORDS_OF_LIBRARIES if word in result.output]


@pytest.mark.parametrize("words", [["status", "legacy"], ["check", "legacy"], ["status", "--wait", "Ready"]])
def test_all_namespaces_are_not_asked_for_together_with_one_object(words: list[str]) -> None:
    result = CliRunner().invoke(plugin, [*words, "-A"])
    assert result.exit_code == 2
    assert "give it without NAME and without --wait" in " ".join(result.output.split())


@pytest.mark.parametrize("given", ["soon", "25h", "-1s", "1d"])
def test_a_wait_that_is_no_time_is_told_with_examples(given: str) -> None:
    result = CliRunner().invoke(plugin, ["status", "--wait", "Ready", f"--timeout={given}"])
    assert result.exit_code == 2
    assert "give for example 60s, 5m or 1h" in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["st"], {"status"}),
        (["failed", ""], {"list", "show", "retry"}),
        (["check", "--sh"], {"--short"}),
        (["status", "-o", ""], {"text", "json"}),
    ],
)
def test_words_are_completed(words: list[str], expected: set[str]) -> None:
    assert {line.split("\t")[0] for line in candidates(plugin, PROG, words)} == expected


@pytest.mark.parametrize("blank", ["\n", " ", "\r\n"])
def test_a_command_reads_the_variables_without_the_blanks_around_them_as_a_worker_does(
    monkeypatch: pytest.MonkeyPatch, blank: str
) -> None:
    monkeypatch.setenv("JOURNAL_GROUP", f"default/legacy{blank}")
    monkeypatch.setenv("REDIS_URL", f"{blank}redis://127.0.0.1:1{blank}")
    monkeypatch.setenv("HOST", f"::{blank}")
    monkeypatch.setenv("PORT", f"1{blank}")
    listed = CliRunner().invoke(app, ["failed", "list"])
    assert listed.output == "Redis redis://127.0.0.1:1: connection refused; set --redis-url or REDIS_URL\n"
    asked = CliRunner().invoke(app, ["healthcheck"])
    assert asked.output == "no answer from :::1: [Errno 111] Connection refused\n"


def test_a_variable_of_blanks_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("JOURNAL_GROUP", "REDIS_URL", "QUEUE_SERVICE_URL"):
        monkeypatch.setenv(name, " \n")
    monkeypatch.setattr("queueworker.cli.failed_options.DEFAULT_REDIS_URL", "redis://127.0.0.1:1")
    listed = CliRunner().invoke(app, ["failed", "list"])
    assert listed.output == "Redis redis://127.0.0.1:1: connection refused; set --redis-url or REDIS_URL\n"


@pytest.mark.parametrize("url", ["http://queue:80a", "http://[::1", "queue:8081", "http://queue:99999"])
def test_a_queue_url_from_which_no_group_can_be_made_is_told(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.delenv("JOURNAL_GROUP", raising=False)
    monkeypatch.setenv("QUEUE_SERVICE_URL", url)
    result = CliRunner().invoke(app, ["failed", "list"])
    assert result.exit_code == 2
    assert f"without --group, QUEUE_SERVICE_URL must be an http:// or https:// URL, not {url!r}" in result.output


def test_a_queue_url_with_a_password_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JOURNAL_GROUP", raising=False)
    monkeypatch.setenv("QUEUE_SERVICE_URL", "http://user:pass/word@queue:8081")
    result = CliRunner().invoke(app, ["failed", "list"])
    assert result.exit_code == 2
    assert "pass" not in result.output


def test_a_host_that_is_no_name_does_not_answer() -> None:
    result = CliRunner().invoke(app, ["healthcheck", "--host", "a b"])
    assert result.exit_code == 1
    assert result.output.startswith("no answer from a b:8084: ")
