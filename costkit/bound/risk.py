"""The bound a user sets on a lossy saving."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from costkit.errors import ConfigError

__all__ = ["PER_HIT", "PER_REQUEST", "Bound", "Per", "bound_of"]

Per = Literal["hit", "request"]
PER_HIT: Per = "hit"
PER_REQUEST: Per = "request"


@dataclass(frozen=True, slots=True)
class Bound:
    """At most ``max_error`` of the answers served (``per="hit"``) or of all calls (``per="request"``) may be wrong.

    ``confidence``: each certificate is false with probability at most 1 - confidence. ``audit``: the least share of
    served answers that is checked by making the reference call instead. ``arl``: looks of the alarm, one a call (or
    one a served answer with ``per="hit"``), between two false alarms at the bound, on average.
    """

    max_error: float
    per: Per = "hit"
    confidence: float = 0.95
    audit: float = 0.05
    arl: float = 1e5

    @property
    def least_labels(self) -> int:
        """Labels without one error before anything can be certified: ln(1 - confidence) / ln(1 - max_error).

        >>> Bound(0.05).least_labels, Bound(0.01).least_labels
        (59, 299)
        """
        import math

        return math.ceil(math.log(1 - self.confidence) / math.log1p(-self.max_error))


def bound_of(max_error: object, per: object, confidence: object, audit: object, *, where: str) -> Bound:
    """The bound, checked; raises ConfigError that names the argument and the mend.

    >>> bound_of(0.02, None, None, None, where="kit.call")
    Bound(max_error=0.02, per='hit', confidence=0.95, audit=0.05, arl=100000.0)
    """
    if max_error is None:
        raise ConfigError(
            f"{where}(max_error=...): a lossy saving needs the share of wrong answers you accept, e.g. max_error=0.02"
        )
    if per not in (None, PER_HIT, PER_REQUEST):
        raise ConfigError(
            f'{where}(per={per!r}): say per="hit" (wrong answers of those served) or per="request" (of all calls)'
        )
    return Bound(
        max_error=_share(max_error, f"{where}(max_error=...)", "a share of wrong answers, e.g. 0.02"),
        per=PER_REQUEST if per == PER_REQUEST else PER_HIT,
        confidence=0.95
        if confidence is None
        else _share(confidence, f"{where}(confidence=...)", "e.g. 0.95"),
        audit=0.05
        if audit is None
        else _share(audit, f"{where}(audit=...)", "a share of served answers, e.g. 0.05"),
    )


def _share(value: object, what: str, mend: str) -> float:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not 0 < float(value) < 1:  # type: ignore[arg-type]
        raise ConfigError(f"{what}: {value!r} is not between 0 and 1; give {mend}")
    return float(value)  # type: ignore[arg-type]
