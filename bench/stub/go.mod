module queueworker.crucible.dev/bench/stub

go 1.22
