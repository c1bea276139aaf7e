"""Whether tracing is on, with what, and what is said of variables that cannot be used."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from queueworker.processes import environment_reference
from queueworker.processes.environment import load
from queueworker.processes.tracing_settings import FIELDS, Compression, Sampler, read_tracing

if TYPE_CHECKING:
    from pathlib import Path

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
ON = {ENDPOINT: "http://collector:4318"}


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {ENDPOINT: " "},
        {"OTEL_TRACES_SAMPLER": "no such sampler"},
        ON | {"OTEL_SDK_DISABLED": "TRUE"},
        ON | {"OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_tracing_is_off_without_an_endpoint_and_when_it_is_turned_off(environ: dict[str, str]) -> None:
    assert read_tracing(environ) == (None, ())


@pytest.mark.parametrize(
    ("environ", "endpoint"),
    [
        (ON, "http://collector:4318/v1/traces"),
        ({ENDPOINT: "https://collector/otlp/"}, "https://collector/otlp/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c/spans"}, "http://c/spans"),
        (ON | {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c/spans"}, "http://c/spans"),
    ],
)
def test_spans_go_to_the_endpoint_of_the_environment(environ: dict[str, str], endpoint: str) -> None:
    settings, problems = read_tracing(environ)
    assert problems == ()
    assert settings is not None
    assert settings.endpoint == endpoint


def test_every_variable_is_read(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("")
    environ = ON | {
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_HEADERS": "Authorization=Basic%20abc=, x-tenant = a b",
        "OTEL_EXPORTER_OTLP_CERTIFICATE": str(file),
        "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": str(file),
        "OTEL_EXPORTER_OTLP_CLIENT_KEY": str(file),
        "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
        "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION": "GZIP",
        "OTEL_TRACES_SAMPLER": "ParentBased_TraceIdRatio",
        "OTEL_TRACES_SAMPLER_ARG": "0.25",
    }
    assert {field.alias for field in FIELDS.values()} < environ.keys()
    settings, problems = read_tracing(environ)
    assert problems == ()
    assert settings is not None
    assert settings.headers == {"authorization": "Basic abc=", "x-tenant": "a b"}
    assert "abc" not in repr(settings)
    assert (settings.compression, settings.sampler, settings.ratio) == (Compression.GZIP, Sampler.PARENT_OR_RATIO, 0.25)
    assert {settings.certificate, settings.client_certificate, settings.client_key} == {str(file)}


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        (ENDPOINT, "collector:4317", "='collector:4317': must be an http:// or https:// URL with a host"),
        (ENDPOINT, "grpc://me:secret@collector", "='grpc://collector': must be an http:// or https:// URL"),
        (ENDPOINT, "http://me:se/secret@collector", " (value not shown): must be an http:// or https:// URL"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://", "='http://': must be an http:// or https:// URL"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "='grpc': must be http/protobuf (usually on port 4318)"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "secret", " (value not shown): must be name=value pairs"),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "x=secret%0D%0A", " (value not shown): must be name=value pairs"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/no/such", "='/no/such': must be the path of a file in PEM format"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zip", "='zip': must be none, gzip or deflate"),
        ("OTEL_TRACES_SAMPLER", "some", "='some': must be always_on, always_off, traceidratio, parentbased_always_on"),
        ("OTEL_TRACES_SAMPLER_ARG", "2", "='2': must be a number from 0.0 to 1.0"),
        ("OTEL_TRACES_SAMPLER_ARG", "nan", "='nan': must be a number from 0.0 to 1.0"),
    ],
)
def test_a_variable_that_cannot_be_used_turns_tracing_off_and_is_named_with_the_way_out(
    name: str, value: str, said: str
) -> None:
    settings, problems = read_tracing(ON | {name: value})
    assert settings is None
    (problem,) = problems
    assert problem.startswith(f"tracing is off: {name}{said}")
    assert "secret" not in problem


def test_a_worker_with_an_unusable_endpoint_routes_and_warns() -> None:
    settings = load({ENDPOINT: "collector:4317"})
    assert settings.tracing is None
    assert [note for note in settings.notes if note.startswith(f"tracing is off: {ENDPOINT}")]


def test_a_variable_of_the_sdks_own_that_cannot_be_used_turns_tracing_off_in_one_sentence() -> None:
    code = "import asyncio, logging\nfrom queueworker.processes.tracing_settings import *\n"
    code += f"logging.basicConfig()\nsettings, _ = read_tracing({ON!r})\n"
    code += "async def main():\n    async with tracing(settings, 'a', 'b') as tracer:\n        print(tracer)\n"
    code += "asyncio.run(main())"
    environ = os.environ | {"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "many"}
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environ)
    assert said.stdout.strip() == "None"
    assert "tracing is off: OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT must be a non-negative integer" in said.stderr
    assert "Traceback" not in said.stderr


def test_the_reference_has_every_variable() -> None:
    text = environment_reference.reference()
    assert [field.alias for field in FIELDS.values() if f"\n| `{field.alias}` | " not in text] == []


def test_a_worker_without_tracing_does_not_load_the_sdks_tracing_and_its_exporter() -> None:
    """redis-py loads the SDK's metrics wherever the SDK is installed."""
    code = "import sys, queueworker.cli.main, queueworker.processes.worker, queueworker.processes.operator\n"
    code += "print({'opentelemetry.sdk.trace', 'opentelemetry.exporter', 'google.protobuf'} & sys.modules.keys())"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "set()"
