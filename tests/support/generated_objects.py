"""QueueWorkers that are valid by the schema of the CRD, made from the schema itself. Its CEL rules may refuse some."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from queueworker.resource.generate import crd_yaml
from tests.support.bad_urls import BASE_URLS, GOOD, HTTP_URLS, REDIS_URLS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Spec = dict[str, Any]


def _good(part: str, name: str) -> list[str]:
    return [spec[part][name] for spec in GOOD if name in spec.get(part, {})]


HTTP = [*_good("queue", "url"), *(url for url, _ in HTTP_URLS)]
BASE = [*_good("executors", "baseURL"), *(url for url, _ in BASE_URLS)]
REDIS = [*_good("events", "redisURL"), *(url for url, _ in REDIS_URLS)]


def schema() -> dict[str, Any]:
    """Of `spec`."""
    crd = yaml.safe_load(crd_yaml())
    found: dict[str, Any] = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return found


def _texts(known: Sequence[str], usable: Sequence[str]) -> st.SearchStrategy[str]:
    """One of `usable` half the time, else one that is known to be good or bad, or a good one with a piece put in."""
    mutated = st.builds(
        lambda text, at, piece: text[: at % (len(text) + 1)] + piece + text[at % (len(text) + 1) :],
        st.sampled_from([*usable, *known]),
        st.integers(0, 60),
        st.sampled_from([".", "/", ":", "{n}", "-", "[", "@", "%41", "é", "0", "..", "?", " "]),
    )
    return st.one_of(st.sampled_from(usable), st.sampled_from(usable), st.sampled_from(known), mutated)


def _integers(least: int, most: int) -> st.SearchStrategy[int]:
    """Small ones most of the time: a thousand executors in each object would measure the machine."""
    few = st.integers(least, min(most, least + 4))
    return st.one_of(few, few, few, st.sampled_from([least, most]), st.integers(least, most))


def _string(node: Mapping[str, Any]) -> st.SearchStrategy[str]:
    if "pattern" not in node:
        return st.text("abc-1.", min_size=node.get("minLength", 0), max_size=min(20, node["maxLength"]))
    return st.from_regex(node["pattern"], fullmatch=True).filter(lambda text: len(text) <= node["maxLength"])


def _of(node: Mapping[str, Any], path: str, own: Mapping[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    if path in own:
        return own[path]
    if "enum" in node:
        return st.sampled_from(node["enum"])
    if node.get("x-kubernetes-int-or-string"):
        return st.one_of(_integers(node["minimum"], node["maximum"]), _string(node))
    match node["type"]:
        case "object":
            parts = {name: _of(child, f"{path}.{name}", own) for name, child in node["properties"].items()}
            required = {name: parts.pop(name) for name in node.get("required", ())}
            return st.fixed_dictionaries(required, optional=parts)
        case "array":
            return st.lists(_of(node["items"], f"{path}[]", own), max_size=min(4, node["maxItems"]))
        case "integer":
            return _integers(node["minimum"], node["maximum"])
        case "boolean":
            return st.booleans()
        case "string":
            return _string(node)
    raise NotImplementedError(f"{path}: {node['type']}")


def specs(
    *, queues: Sequence[str], executors: Sequence[str], redis: Sequence[str], secrets: Sequence[tuple[str, str]]
) -> st.SearchStrategy[Spec]:
    """`queues`, `executors` and `redis` are URLs that exist, `secrets` names and keys: half of the references."""
    node = schema()
    reference = node["properties"]["queue"]["properties"]["apiKeySecretRef"]
    references = st.one_of(
        st.sampled_from(secrets).map(lambda pair: {"name": pair[0], "key": pair[1]}), _of(reference, "", {})
    )
    own: dict[str, st.SearchStrategy[Any]] = {
        ".suspend": st.sampled_from([False, False, False, True]),
        ".queue.url": _texts(HTTP, queues),
        ".queue.apiKeySecretRef": references,
        ".executors.baseURL": _texts(BASE, ["http://127-0-0-1", "http://localhost:9/{n}"]),
        ".executors.endpoints[]": _texts(HTTP, executors),
        ".events.redisURL": _texts(REDIS, redis),
        ".events.redisURLSecretRef": references,
    }
    return _of(node, "", own)


def examples(strategy: st.SearchStrategy[Spec], count: int, *, always_the_same: bool) -> list[Spec]:
    """So many specs."""
    found: list[Spec] = []

    @settings(
        max_examples=count,
        derandomize=always_the_same,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def collect(spec: Spec) -> None:
        found.append(spec)

    run: Callable[[], None] = collect
    run()
    return found[:count]
