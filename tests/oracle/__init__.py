"""The oracle: random policies, subjects and rows, decided by cdc and by PostgreSQL itself.

`python -m tests.oracle --verdicts 20000 --seed 1`. A verdict is one answer to one question: does this subject see this
row under these policies? PostgreSQL answers as the role, with the claims, by SELECT. Where cdc shows what PostgreSQL
does not show, that is a leak; where it hides something without a stated reason, that is a defect too.
"""
