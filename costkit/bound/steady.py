"""Is a rung still what it was? A watch over what the certificate takes for granted: that its labels are exchangeable.

Against exchangeable labels stands that from some label on another rate holds. The likelihood of that, a mixture over
changes after 16, 32, 64, ... labels and over the rates before and after (Krichevsky and Trofimov, IEEE Trans. Inf.
Theory 27, 1981), over the greatest likelihood that one rate for all can have, is an e-process: one that reaches k is
false with probability at most 1/k, however often one looks (Wasserman, Ramdas and Balakrishnan, Universal inference,
PNAS 117, 2020; for exchangeable binary sequences Ramdas, Ruf, Larsson and Koolen, Int. J. Approx. Reasoning 141, 2022).
"""

from __future__ import annotations

import math

__all__ = ["Steady"]

# Labels after which the first change is looked for.
_FIRST = 16

# A false word about one rung in so many.
_SURE = 200.0


class Steady:
    """The labels of one rung in their order, as counts up to each possible change.

    >>> rung = Steady()
    >>> worse = [rung.see(wrong) for wrong in [False] * 256 + [True] * 64]
    >>> worse.index(True) < 270, rung.labels < 64
    (True, True)
    """

    def __init__(self) -> None:
        self.labels = self.wrong = 0
        self._before: list[tuple[int, int]] = []  # labels, and wrong ones, up to each possible change

    def see(self, wrong: bool) -> bool:
        """One label more; True where the rung has got worse: its count then starts anew."""
        if self.labels >= _FIRST and self.labels & (self.labels - 1) == 0:
            self._before.append((self.labels, self.wrong))
        self.labels += 1
        self.wrong += bool(wrong)
        if not wrong or not self._before or self.log_e() < math.log(_SURE) or not self._worse():
            return False
        self.labels = self.wrong = 0
        self._before.clear()
        return True

    def log_e(self) -> float:
        """The log evidence against one rate for all labels."""
        if not self._before:
            return 0.0
        changes = [
            _mixed(wrong, labels) + _mixed(self.wrong - wrong, self.labels - labels)
            for labels, wrong in self._before
        ]
        most = max(changes)
        mean = most + math.log(sum(math.exp(one - most) for one in changes) / len(changes))
        return mean - _greatest(self.wrong, self.labels)

    def _worse(self) -> bool:
        """Whether the likeliest change was for the worse."""
        labels, wrong = max(
            self._before,
            key=lambda one: _mixed(one[1], one[0]) + _mixed(self.wrong - one[1], self.labels - one[0]),
        )
        return (self.wrong - wrong) * labels > wrong * (self.labels - labels)


def _mixed(wrong: int, labels: int) -> float:
    """The log likelihood of one order of labels, mixed over rates by a beta prior of halves."""
    return (
        math.lgamma(wrong + 0.5)
        + math.lgamma(labels - wrong + 0.5)
        - math.lgamma(labels + 1)
        - math.log(math.pi)
    )


def _greatest(wrong: int, labels: int) -> float:
    """The log likelihood of one order of labels at the rate that fits them best."""
    if not 0 < wrong < labels:
        return 0.0
    rate = wrong / labels
    return wrong * math.log(rate) + (labels - wrong) * math.log1p(-rate)
