"""The kubectl plugin: `kubectl queueworker …`, for people who look after QueueWorker objects."""
