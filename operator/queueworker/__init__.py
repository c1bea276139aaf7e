"""The QueueWorker operator: a queue, a pool of executors, and the router between them."""

__version__ = "0.1.0"
