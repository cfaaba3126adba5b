"""Mutants: deliberate faults in what decides who sees a row, each of which the oracle or a test has to find.

`make mutants`, or `python -m tests.mutants --fault NAME`. An oracle that finds nothing proves nothing by itself:
this shows that it would.
"""
