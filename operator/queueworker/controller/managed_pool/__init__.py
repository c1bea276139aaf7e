"""The pool that the operator runs: a StatefulSet with its Service and PodDisruptionBudget for `executors.template`."""
