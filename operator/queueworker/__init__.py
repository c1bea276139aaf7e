"""The QueueWorker operator: a queue, a pool of executors, and the router between them."""
