"""How a provider's count of input tokens compares with ours."""

from __future__ import annotations

from typing import NamedTuple

from costkit.tokens.text import is_openai

# Before enough calls are known: other tokenizers made 1.0 to 1.47 tokens of one of ours where it was measured.
_CAUTIOUS = 1.5
# The chance that the next of n + 1 calls like each other is the largest is 1 / (n + 1): here under 5 %.
_ENOUGH = 20


class Ratio(NamedTuple):
    """Reported input tokens against our own count, of one function's calls to one model.

    ``counted`` and ``reported`` are sums over ``calls``, ``most`` is the largest ratio of a single call.

    >>> ratio = learn(learn(Ratio(), 100, 110), 100, 150)
    >>> ratio.mean, ratio.bound("claude-sonnet-5"), ratio.bound("gpt-5-mini")
    (1.3, 1.5, 1.5)
    """

    calls: int = 0
    counted: int = 0
    reported: int = 0
    most: float = 0.0

    @property
    def mean(self) -> float:
        """Factor for estimates: reported over counted; 1.0 where nothing was learned."""
        return self.reported / self.counted if self.counted > 0 else 1.0

    def bound(self, model: str | None) -> float:
        """Factor for upper limits: the largest ratio seen, never below 1.

        Until 20 calls are known it is 1.5 at least, but for OpenAI's own models, whose tokenizer is ours.
        """
        least = 1.0 if self.calls >= _ENOUGH or is_openai(model) else _CAUTIOUS
        return max(least, self.most)


def learn(ratio: Ratio, counted: int, reported: int) -> Ratio:
    """The ratio with one more call; one without tokens on either side teaches nothing."""
    if counted <= 0 or reported <= 0:
        return ratio
    most = max(ratio.most, reported / counted)
    return Ratio(ratio.calls + 1, ratio.counted + counted, ratio.reported + reported, most)
