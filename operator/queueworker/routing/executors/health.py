"""When an executor counts as healthy: thresholds over its checks, as a value with no clock and no socket."""

from __future__ import annotations

from dataclasses import dataclass

# An executor that is away is looked for at least this often, so that it is back in the pool within two seconds.
UNHEALTHY_PERIOD_SECONDS = 1.0


@dataclass(slots=True)
class HealthState:
    """Consecutive results of one executor's checks. A new executor is unhealthy until its first good check."""

    healthy: bool = False
    passed: int = 0
    failed: int = 0
    reason: str = "not checked yet"
    seen: bool = False
    """Whether it was ever healthy: the first good check counts at once, whatever the success threshold."""

    def good(self, success_threshold: int) -> bool:
        """Take a good check. Returns whether `healthy` changed."""
        self.passed += 1
        self.failed = 0
        if self.healthy or (self.seen and self.passed < success_threshold):
            return False
        self.healthy = self.seen = True
        self.reason = ""
        return True

    def bad(self, reason: str, failure_threshold: int) -> bool:
        """Take a bad check. Returns whether `healthy` changed."""
        self.failed += 1
        self.passed = 0
        if not self.healthy:
            self.reason = reason
            return False
        if self.failed < failure_threshold:
            return False
        self.healthy = False
        self.reason = reason
        return True


def period(healthy: bool, period_seconds: float) -> float:
    """Seconds to the next check."""
    return period_seconds if healthy else min(period_seconds, UNHEALTHY_PERIOD_SECONDS)
