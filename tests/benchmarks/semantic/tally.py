"""What a rule did on one stream."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Tally"]


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts over the questions asked.

    ``hits`` and ``wrong`` are of the lossy rule; ``exact`` and ``wrong_exact`` of the identical questions before it,
    whose label may differ where labels are noisy.
    """

    asked: int
    exact: int = 0
    hits: int = 0
    wrong: int = 0
    wrong_exact: int = 0

    @property
    def hit_rate(self) -> float:
        """Served, identical questions among them, of all that was asked."""
        return (self.exact + self.hits) / max(1, self.asked)

    @property
    def wrong_per_request(self) -> float:
        """Wrong answers served, those to identical questions among them, of all that was asked."""
        return (self.wrong + self.wrong_exact) / max(1, self.asked)

    @property
    def wrong_per_hit(self) -> float:
        """Wrong answers of those that the lossy rule served; the harder denominator, for it has no identical ones."""
        return self.wrong / max(1, self.hits)

    def holds(self, max_error: float, per: str) -> bool:
        """Whether the share of wrong answers is within the bound.

        >>> tally = Tally(asked=100, hits=10, wrong=1)
        >>> tally.holds(0.01, "request"), tally.holds(0.01, "hit")
        (True, False)
        """
        return (self.wrong_per_request if per == "request" else self.wrong_per_hit) <= max_error
