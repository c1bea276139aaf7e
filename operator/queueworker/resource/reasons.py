"""Condition types and their reasons. Reasons are part of the API: people and alerts match on them."""

from __future__ import annotations

from enum import StrEnum


class ConditionType(StrEnum):
    READY = "Ready"
    EXECUTORS_AVAILABLE = "ExecutorsAvailable"
    QUEUE_REACHABLE = "QueueReachable"
    EVENTS_PUBLISHED = "EventsPublished"
    JOURNAL_WRITABLE = "JournalWritable"
    POOL_READY = "PoolReady"


class Reason(StrEnum):
    # Ready
    STARTING = "Starting"
    ROUTING = "Routing"
    DRAINING = "Draining"
    STANDBY = "Standby"
    SUSPENDED = "Suspended"
    NO_EXECUTORS = "NoExecutors"
    QUEUE_UNREACHABLE = "QueueUnreachable"
    INVALID_SPEC = "InvalidSpec"
    RECONCILE_FAILED = "ReconcileFailed"
    STALLED = "Stalled"
    # ExecutorsAvailable
    ALL_HEALTHY = "AllHealthy"
    SOME_UNHEALTHY = "SomeUnhealthy"
    NONE_HEALTHY = "NoneHealthy"
    DISCOVERY_FAILED = "DiscoveryFailed"
    # QueueReachable, EventsPublished, JournalWritable
    UNKNOWN = "Unknown"
    CONNECTED = "Connected"
    CONNECTION_FAILED = "ConnectionFailed"
    AUTHENTICATION_FAILED = "AuthenticationFailed"
    SECRET_NOT_FOUND = "SecretNotFound"  # noqa: S105 -- a reason, not a secret
    INVALID_SECRET = "InvalidSecret"  # noqa: S105 -- a reason, not a secret
    SECRET_READ_FAILED = "SecretReadFailed"  # noqa: S105 -- a reason, not a secret
    INVALID_ANSWER = "InvalidAnswer"
    # PoolReady
    ALL_READY = "AllReady"
    PROGRESSING = "Progressing"
    POD_NOT_READY = "PodNotReady"
    REMOVING = "Removing"
    INVALID_TEMPLATE = "InvalidTemplate"
    NAME_TAKEN = "NameTaken"
    NOT_PERMITTED = "NotPermitted"
