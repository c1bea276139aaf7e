"""Accounts of a memory budget, for parts that need one."""

from __future__ import annotations

from queueworker.routing.memory_budget import DEFAULT_BUDGET_BYTES, MemoryAccount, MemoryBudget


def account(max_bytes: int = DEFAULT_BUDGET_BYTES) -> MemoryAccount:
    """The only account of a budget."""
    return MemoryAccount(MemoryBudget(max_bytes), lambda: None)
