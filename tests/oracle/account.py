"""The account: verdicts by class and by construct, and the failures among them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

__all__ = ["AGREE", "DEFECT", "FLOOR", "LEAK", "REASONED", "Account", "Failure"]

AGREE, LEAK, REASONED, DEFECT = "agree", "leak", "over-denial with a reason", "over-denial without a reason"
FLOOR = 0.85
"""The share of policies that has to be supported, or the oracle asks about nothing."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A leak or an over-denial without a reason.

    Attributes:
        sort: which of them, or what else is wrong, in words.
        seed: of the scene.
        text: a reproduction.
        after: how many verdicts there had been.
    """

    sort: str
    seed: str
    text: str
    after: int = 0


@dataclass(slots=True)
class Account:
    """What was found so far."""

    verdicts: Counter[str] = field(default_factory=Counter)
    visible: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    details: Counter[str] = field(default_factory=Counter)
    policies: int = 0
    supported: int = 0
    rejected: int = 0
    drawn: Counter[str] = field(default_factory=Counter)
    decided: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    checks: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def total(self) -> int:
        """All verdicts."""
        return sum(self.verdicts.values())

    @property
    def share(self) -> float:
        """The share of policies that are supported."""
        return self.supported / self.policies if self.policies else 0.0

    @property
    def is_good(self) -> bool:
        """Whether nothing failed, and enough was asked."""
        return not self.failures and self.share >= FLOOR

    def add(self, other: Account) -> None:
        """Add another account to this one."""
        for name in ("verdicts", "reasons", "details", "drawn", "decided", "refused", "checks"):
            getattr(self, name).update(getattr(other, name))
        for name in ("visible", "policies", "supported", "rejected", "seconds"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.failures += other.failures

    def policy(self, constructs: frozenset[str], problem: str | None) -> None:
        """Count a policy for reading, and the construct that is not supported in it."""
        self.policies += 1
        self.supported += problem is None
        self.drawn.update(constructs)
        if problem is None:
            self.decided.update(constructs)
        else:
            self.refused[problem] += 1

    def report(self, constructs: bool = False) -> str:
        """A few lines for people."""
        total = max(1, self.total)
        lines = [f"{self.total:,} verdicts in {self.seconds:.0f} s, {self.visible:,} of rows that PostgreSQL shows"]
        lines += [f"  {name:<32}{self.verdicts[name]:>12,}" for name in (AGREE, REASONED, DEFECT, LEAK)]
        lines += [f"    {name:<40}{count:>12,}" for name, count in self.reasons.most_common()]
        lines.append(f"  {', '.join(f'{count:,} {name}' for name, count in self.checks.most_common())}")
        lines.append(
            f"  {self.policies:,} policies, {self.share:.1%} of them supported (floor {FLOOR:.0%}); "
            f"{self.rejected:,} more that PostgreSQL did not take"
        )
        lines.append(f"  {self.total / max(self.seconds, 0.001):,.0f} verdicts a second, {len(self.failures)} failures")
        if constructs:
            lines.append(f"\n  {'construct':<44}{'drawn':>8}{'supported':>11}")
            for name, count in self.drawn.most_common():
                lines.append(f"  {name:<44}{count:>8,}{self.decided[name] / count:>11.0%}")
            lines.append("\n  not supported:")
            lines += [f"    {count:>6,} {name}" for name, count in self.refused.most_common(80)]
            lines.append("\n  hidden with a reason, though PostgreSQL shows the row:")
            lines += [f"    {count:>6,} {name}" for name, count in self.details.most_common(200)]
        assert total
        return "\n".join(lines)
