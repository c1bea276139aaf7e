"""The QueueWorker operator: routes tasks from a legacy HTTP queue to a pool of executors."""

__version__ = "0.1.0"
