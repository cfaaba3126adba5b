"""The crash ledger: a writer that knows what it committed, a consumer with a sink, and faults in between.

`make chaos`, or `python -m tests.chaos --seed 7 --fault kill-consumer`. A round has a plan, which is drawn from a seed.
At its end what was committed is compared with what the sink has: in order, once, and all of it.
"""
