"""The stress of the fenced cache: many readers, writers whose commits are seen late, and delays at every lock and wait.

`make stress`, or `python -m tests.stress --reads 50000 --kind blocking`. A read is stale when it gives a value from
before a change that this process had received when the read began. With `--defect` the run has to find such reads.
"""
