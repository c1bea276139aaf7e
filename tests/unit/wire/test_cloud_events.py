"""Events as CloudEvents: the attributes, the ids, and the event of the legacy worker as data."""

from __future__ import annotations

from itertools import count
from typing import Any

import orjson
import pytest

from queueworker.resource.spec import EventFormat
from queueworker.routing.wire.cloud_events import TYPES, Envelope
from queueworker.routing.wire.outcome import CHANNEL_COMPLETED, CHANNEL_FAILED, Event, Outcome, event

RESULT = b'{"eval_id":"a","status":"completed","output":"h\\u00e9","exit_code":0}'


def envelope(form: EventFormat = EventFormat.CLOUD_EVENTS) -> Envelope:
    numbers = count(1)
    return Envelope("team/legacy", form, new_id=lambda: f"id-{next(numbers)}", clock=lambda: 1_700_000_000.5)


def wrapped(told: Event, event_id: str = "") -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(envelope().wrap(told, "a", event_id).payload)
    return found


def test_an_event_has_the_attributes_of_cloudevents_and_the_legacy_event_as_data() -> None:
    legacy = event("a", Outcome(completed=True, result=RESULT))
    assert wrapped(legacy, "id-of-the-journal") == {
        "specversion": "1.0",
        "id": "id-of-the-journal",
        "source": "/queueworkers/team/legacy",
        "type": "dev.crucible.evaluation.completed",
        "subject": "a",
        "time": "2023-11-14T22:13:20.500000Z",
        "datacontenttype": "application/json",
        "data": orjson.loads(legacy.payload),
    }


@pytest.mark.parametrize("channel", TYPES)
def test_the_channel_stays_and_the_type_names_what_happened(channel: str) -> None:
    told = envelope().wrap(Event(channel, b"{}"), "a")
    assert told.channel == channel
    assert orjson.loads(told.payload)["type"] == f"dev.crucible.{channel.replace(':', '.')}"


def test_the_legacy_format_is_the_event_itself_and_has_no_ids() -> None:
    legacy = envelope(EventFormat.LEGACY)
    told = event("a", Outcome(completed=False, error="e"))
    assert legacy.wrap(told, "a", "id") is told
    assert legacy.event_id() == ""


def test_ids_are_new_for_each_event_unless_the_journal_has_one() -> None:
    events = envelope()
    told = Event(CHANNEL_FAILED, b"{}")
    ids = [events.event_id(), events.event_id()]
    ids += [orjson.loads(events.wrap(told, "a").payload)["id"] for _ in range(2)]
    assert ids == ["id-1", "id-2", "id-3", "id-4"]


def test_a_changed_format_applies_to_the_next_event() -> None:
    events = envelope(EventFormat.LEGACY)
    events.format = EventFormat.CLOUD_EVENTS
    assert b"specversion" in events.wrap(Event(CHANNEL_COMPLETED, b"{}"), "a").payload


def test_the_source_is_a_uri_reference_whatever_the_group_is_called() -> None:
    events = Envelope("worker/queue:8081 ü", EventFormat.CLOUD_EVENTS)
    source = orjson.loads(events.wrap(Event(CHANNEL_COMPLETED, b"{}"), "a").payload)["source"]
    assert source == "/queueworkers/worker/queue%3A8081%20%C3%BC"


def test_an_id_that_is_half_a_surrogate_pair_cannot_break_the_event() -> None:
    payload = envelope().wrap(Event(CHANNEL_COMPLETED, b"{}"), "half \ud83d").payload
    assert orjson.loads(payload)["specversion"] == "1.0"
