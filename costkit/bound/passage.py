"""What a gate decided about one call, and where it stands, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Kind", "Passage", "Standing"]

Kind = Literal["none", "declined", "unlabelled", "audit", "unanswered", "served", "rehearsed"]


@dataclass(frozen=True, slots=True)
class Passage:
    """What a gate decided about one call.

    ``kind``: "none" (no candidate), "declined" (the reference is called, the candidate labelled), "audit" (it would
    have been served and is checked instead), "served"; "unlabelled": declined, and the answer was no reference, for
    a lossy saving had a part in it; "unanswered": an audit whose call failed, was cancelled or gave no whole
    answer; "rehearsed": a row of a log or of gold tests, no call of anybody's. ``rung``: of the ladder; its length
    for a candidate that may never be served. ``risk``: the score's probability that it is wrong. ``chance``: the
    probability with which a served answer like this one is audited. ``generation``: how many demotions the gate had
    seen. ``scope`` and ``tag`` are labels of the traffic it is part of; a rehearsed row's tag names the row.
    ``pair`` is a digest of the question and the stored answer.
    """

    kind: Kind
    rung: int | None
    risk: float | None
    features: tuple[float, ...] | None
    chance: float = 1.0
    generation: int = 0
    scope: str | None = None
    tag: str | None = None
    pair: str | None = None

    @property
    def labelled(self) -> bool:
        """Whether a label will come of it."""
        return self.kind in ("declined", "audit") or (self.kind == "rehearsed" and self.rung is not None)

    @property
    def groups(self) -> tuple[str, ...]:
        """The parts of the traffic that it belongs to, each with an alarm of its own."""
        tag = None if self.kind == "rehearsed" else self.tag
        return tuple(group for group in (self.scope, tag) if group is not None)


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a gate stands, for people: :meth:`Gate.standing`.

    ``lost_audits``: audits that were never answered and count as wrong; ``unanswered``: those left out, for the
    provider was down, or not counted yet; ``silent``: so many in a row that nothing is served;
    ``worsened``: how often a rung's labels got worse since the last demotion.
    """

    state: Literal["shadow", "open"]
    requests: int
    rehearsed: int
    hits: int
    would_be_hits: int
    audits: int
    wrong_audits: int
    lost_audits: int
    unanswered: int
    unlabelled: int
    silent: bool
    labels: int
    certified: float | None
    average: float | None
    running: tuple[float, float]
    demotions: int
    level: int
    share: float
    next_share: float | None
    next_labels: int | None
    before_demotion: float
    worsened: int
    groups: tuple[tuple[str, int, int], ...]
