"""When an executor counts as healthy: thresholds over its checks, as a value without a clock or a socket."""

from __future__ import annotations

from dataclasses import dataclass

# An unhealthy executor is checked at least this often, so that it is back in the pool within two seconds.
UNHEALTHY_PERIOD_SECONDS = 1.0


@dataclass(slots=True)
class HealthState:
    """Consecutive results of one executor's checks. A new executor is unhealthy until its first check succeeds."""

    healthy: bool = False
    successes: int = 0
    failures: int = 0
    reason: str = "not checked yet"
    """Why the executor is unhealthy; empty when it is healthy."""
    was_healthy: bool = False
    """Until it was healthy once, a single success is enough, whatever the success threshold."""

    def succeeded(self, success_threshold: int) -> bool:
        """Record a check that succeeded. Returns whether `healthy` changed."""
        self.successes += 1
        self.failures = 0
        if self.healthy or (self.was_healthy and self.successes < success_threshold):
            return False
        self.healthy = self.was_healthy = True
        self.reason = ""
        return True

    def failed(self, reason: str, failure_threshold: int) -> bool:
        """Record a check that failed. Returns whether `healthy` changed."""
        self.failures += 1
        self.successes = 0
        if not self.healthy:
            self.reason = reason
            return False
        if self.failures < failure_threshold:
            return False
        self.healthy = False
        self.reason = reason
        return True


def period(healthy: bool, period_seconds: float) -> float:
    """Seconds until the next check."""
    return period_seconds if healthy else min(period_seconds, UNHEALTHY_PERIOD_SECONDS)
