"""One gate: what may be served, what is audited, and what each label changes.

A gate's state is a fold over its evidence, in order: every process that reads the same rows has the same gate. A
:class:`Passage` says what was decided about one call, before its label was known; a label says what it turned out to
be.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace

from costkit.bound.ladder import Ladder
from costkit.bound.passage import Kind, Passage, Standing
from costkit.bound.risk import PER_REQUEST, Bound
from costkit.bound.score import Score
from costkit.stats.detect import ShiryaevRoberts
from costkit.stats.sequences import RunningMean

__all__ = ["MOST_GROUPS", "Gate", "Kind", "Passage", "Standing"]

# Bets of the alarm against "the risk is at most the bound", as shares of the largest bet there is.
_BETS = (0.003, 0.01, 0.03, 0.1)

# Where the alarm asks for more audits, on a log scale from 0 to its going off. Half way it would ask for them in one
# served answer of eight at half the bound, for nothing; here in one of fifty, and a change costs some 10 wrong answers
# more (tests/test_bound_alarm.py).
_ALERT, _DENSE = 0.6, 0.5
_MOST_AUDITS = 500  # wrong ones; an alarm that has not gone off by then never will

# Audits unanswered in a row that are an outage, and answered ones in a row that end it.
_OUTAGE, _BACK = 3, 20

# Requests from one climb to the next.
_EVERY = 10

# Pairs of a question and an answer that count once.
_MOST_PAIRS = 10_000

# Scopes and tags that have an alarm of their own.
MOST_GROUPS = 1_000


class Gate:
    """Decides by what it has seen; see the module.

    What an audit whose call gives no answer says: nobody knows whether the stored answer was right, and the call may
    have failed for the very reason that it is not (its document is gone). So it counts as a wrong one, as a label that
    never comes does. But a provider that is down answers no audit, and says nothing of stored answers: three unanswered
    in a row are taken as an outage. Then nothing is served, every call that would have been is audited with certainty,
    until twenty in a row were answered, and after that those three and the unanswered ones since are left out. That is
    valid where failing does not depend on being right, as in an outage: which audits are left out then depends on
    failures only. Where failing does depend on it, little passes all the same: at small shares of wrong answers three
    in a row are rare, and the others count; at large ones twenty answers in a row do not come, so that nothing is
    served (tests/test_bound_outage.py). The answers served between the first unanswered audit and the third, about
    three for each that is audited, are taken to be wrong as often as those before. Scopes and tags beyond the first
    1,000 have no alarm of their own, only the gate's.

    Args:
        bound: what the user allows.
        prior: weights of the score before any label.

    >>> gate = Gate(Bound(0.05), prior=[0.0, 1.0])
    >>> gate.decide((1.0, 9.0), coin=0.5).kind
    'declined'
    """

    def __init__(self, bound: Bound, prior: Sequence[float]) -> None:
        self.bound = bound
        self.score = Score(prior)
        self.ladder = Ladder(bound)
        self.generation = 0
        self.counts = {
            "none": 0,
            "declined": 0,
            "unlabelled": 0,
            "audit": 0,
            "unanswered": 0,
            "served": 0,
            "rehearsed": 0,
        }
        self.wrong_audits = self.lost_audits = 0
        self.would_be = 0
        self._detectors: dict[str | None, ShiryaevRoberts] = {}
        self._groups: dict[str | None, list[int]] = {}
        self.closed: set[str] = set()
        self._pairs: OrderedDict[str, None] = OrderedDict()
        self.labels = 0
        self._running = RunningMean(confidence=bound.confidence, most=1 / bound.audit)
        self._stale = 0
        self._owed: list[Passage] = []  # audits unanswered in a row
        self._back = 0  # audits answered in a row

    def decide(
        self,
        features: tuple[float, ...] | None,
        *,
        coin: float,
        veto: bool = False,
        scope: str | None = None,
        tag: str | None = None,
        pair: str | None = None,
    ) -> Passage:
        """What happens to a call with this candidate (None: there is none); ``coin`` is uniform on [0, 1)."""
        if features is None:
            return Passage("none", None, None, None, 1.0, self.generation, scope, tag)
        ladder = self.ladder
        risk = self.score.wrong(features)
        rung = len(ladder.edges) if veto else ladder.rung(risk)
        kind: Kind = "declined"
        chance = 1.0
        if rung < ladder.level and not (self.closed and {scope, tag} & self.closed):
            chance = 1.0 if self.silent or ladder.worth[rung] else self.suspicion
            kind = "audit" if coin < chance else "served"
        return Passage(kind, rung, risk, features, chance, self.generation, scope, tag, pair)

    @property
    def silent(self) -> bool:
        """Whether so many audits in a row were not answered that nothing is served."""
        return len(self._owed) >= _OUTAGE

    @property
    def suspicion(self) -> float:
        """The share of served answers to audit: the floor, and every other one once the alarm is near."""
        return _audits(self.bound, _mean(self._detector(None).levels))

    def see(self, passage: Passage, wrong: bool | None = None) -> bool:
        """Fold one passage in, with its label where it has one by now; True: this demoted the gate."""
        self.counts[passage.kind] += 1
        if passage.generation != self.generation:
            return False  # decided before a demotion that its process had not seen
        self.ladder.passed(passage.rung, passage.features if self._moves(passage) else None)
        self._stale += 1
        if passage.kind == "declined" and passage.rung is not None and passage.rung < len(self.ladder.edges):
            self.would_be += 1
        if passage.kind == "unanswered":
            self._back = 0
            self._owed = [*self._owed, passage][:_OUTAGE]
        elif passage.kind == "audit":
            if self._answered():
                return True
        elif passage.kind != "rehearsed" and self._watch(passage, 0.0):
            return True
        if wrong is not None:
            return self.label(passage, wrong)
        self._climb()
        return False

    def label(self, passage: Passage, wrong: bool) -> bool:
        """Fold in the label of a passage seen before; True: this demoted the gate."""
        if passage.generation != self.generation or passage.rung is None or passage.features is None:
            return False
        if wrong or not self._repeats(passage.pair):
            self.ladder.label(passage.rung, wrong)
            if self.score.learn(passage.features, wrong):
                self.ladder.rescore(self.score)
                self._stale = _EVERY
            self.labels += 1
        if passage.kind == "audit":
            for group in passage.groups or (None,):
                if group in self._groups or len(self._groups) < MOST_GROUPS:
                    of = self._groups.setdefault(group, [0, 0])
                    of[0] += 1
                    of[1] += wrong
            self.wrong_audits += wrong
            if self._watch(passage, float(wrong) / passage.chance):
                return True
        self._climb()
        return False

    def _answered(self) -> bool:
        """An audit's call was answered: those just before it that were not count, or end; True: the alarm went off."""
        self._back += 1
        if self.silent:
            if self._back >= _BACK:
                self._owed = []
            return False
        lost, self._owed = self._owed, []
        for passage in lost:
            self.counts["unanswered"] -= 1
            self.counts["audit"] += 1
            self.lost_audits += 1
            if self.label(replace(passage, kind="audit"), True):
                return True
        return False

    def _repeats(self, pair: str | None) -> bool:
        """Whether this question was found to be rightly answered by this very answer before.

        One who asks the same for ever proves nothing about others. Where it is found wrong, each time counts.
        """
        if pair is None:
            return False
        if pair in self._pairs:
            return True
        self._pairs[pair] = None
        if len(self._pairs) > _MOST_PAIRS:
            self._pairs.popitem(last=False)
        return False

    def running(self) -> tuple[float, float]:
        """The confidence sequence of the running average: of what was let pass so far (of all calls: per="request")."""
        low, high = self._running.interval()
        return low, min(1.0, high)

    @property
    def average(self) -> float | None:
        """The share wrong of what was looked at, each look weighted by what it stands for; None before the first."""
        return self._running.seen / self._running.weight if self._running.weight else None

    def standing(self) -> Standing:
        """Where the gate stands, for people."""
        ladder, per_request = self.ladder, self.bound.per == PER_REQUEST
        shares = ladder.shares()
        served = sum(shares[: ladder.level])
        nearest = self._nearest(shares)
        return Standing(
            state="open" if ladder.level and served else "shadow",
            requests=sum(self.counts.values()) - self.counts["rehearsed"],
            rehearsed=self.counts["rehearsed"],
            hits=self.counts["served"],
            would_be_hits=self.would_be,
            audits=self.counts["audit"],
            wrong_audits=self.wrong_audits,
            lost_audits=self.lost_audits,
            unanswered=self.counts["unanswered"],
            unlabelled=self.counts["unlabelled"],
            silent=self.silent,
            labels=self.labels,
            certified=ladder.certified(),
            average=self.average,
            running=self.running(),
            demotions=self.generation,
            level=ladder.level,
            share=served if per_request or served else 0.0,
            next_share=None if nearest is None else nearest[0],
            next_labels=None if nearest is None else nearest[1],
            before_demotion=self._wrong_before_alarm(served),
            worsened=ladder.worsened,
            groups=tuple(
                (group or "", audits, wrong_ones)
                for group, (audits, wrong_ones) in sorted(
                    self._groups.items(), key=lambda item: (-item[1][1] / max(1, item[1][0]), str(item[0]))
                )
            ),
        )

    def _nearest(self, shares: list[float]) -> tuple[float, int] | None:
        """The share of calls served one rung up, and about how many more labels that takes at the rates seen so far."""
        ladder = self.ladder
        upto = ladder.level + 1
        while upto <= len(ladder.edges) and sum(shares[:upto]) <= sum(shares[: ladder.level]):
            upto += 1
        if upto > len(ladder.edges):
            return None
        labels = ladder.labels_to(upto, shares)
        return None if labels is None else (sum(shares[:upto]), labels)

    def _watch(self, passage: Passage, loss: float) -> bool:
        """Tell the alarms what this call lost (wrong answers served, by audits weighted); True: they went off."""
        served = passage.kind in ("served", "audit")
        if self.bound.per != PER_REQUEST and not served:
            return False
        # What was not served has lost nothing, for certain; what was served unchecked is not known.
        weight = {"audit": 1 / passage.chance, "served": 0.0}.get(passage.kind, 1.0)
        self._running.see(min(1.0, loss * passage.chance), weight)
        es = _es(loss, self.bound.max_error)
        if self._detector(None).look(es):
            self._demote()
            return True
        for group in passage.groups:
            if self._detector(group).look(es):
                self.closed.add(group)
        return False

    def _wrong_before_alarm(self, served: float) -> float:
        """Wrong answers served, to expect before the alarm, if from now on half of the served ones were wrong.

        Of wrong answers every so many is audited; in between, each call that lost nothing calms the alarm down.
        """
        bound, wrong = self.bound, 0.0
        share = max(served, 1e-3) if bound.per == PER_REQUEST else 1.0
        levels = self._detector(None).levels or [0.0] * len(_BETS)
        for _ in range(_MOST_AUDITS):
            if _mean(levels) >= bound.arl:
                return wrong
            chance = _audits(bound, _mean(levels))
            calm = math.ceil(1 / (chance * 0.5 * share)) - 1
            # So many looks at a loss of 0, then one at a loss of 1 / chance.
            fades = [(1 - bet) ** calm for bet in _BETS]
            levels = [
                (level * fade + (1 - bet) * (1 - fade) / bet + 1) * e
                for level, fade, bet, e in zip(
                    levels, fades, _BETS, _es(1 / chance, bound.max_error), strict=True
                )
            ]
            wrong += 1 / chance - 1
        return math.inf

    def _detector(self, group: str | None) -> ShiryaevRoberts:
        if group not in self._detectors:
            if len(self._detectors) > MOST_GROUPS:
                return ShiryaevRoberts(self.bound.arl)
            self._detectors[group] = ShiryaevRoberts(self.bound.arl)
        return self._detectors[group]

    def _demote(self) -> None:
        """Nothing is served any more; what was learned of rates and shares is of another world, and starts anew."""
        self.generation += 1
        self.ladder = Ladder(self.bound)
        self._detectors.clear()
        self.closed.clear()
        self._pairs.clear()
        self._stale = 0
        self._owed, self._back = [], 0

    def _moves(self, passage: Passage) -> bool:
        """Whether another score would place it anew; a veto shows where it stands higher than its own risk says."""
        risk, beyond = passage.risk, len(self.ladder.edges)
        if risk is None or passage.features is None or len(passage.features) != self.score.width:
            return False
        return passage.rung != beyond or self.ladder.rung(risk) == beyond

    def _climb(self) -> None:
        if self._stale >= _EVERY:
            self._stale = 0
            self.ladder.climb()


def _es(loss: float, limit: float) -> list[float]:
    """Bets that the mean loss is above its limit: each pays 1 on average, or less, while it is not."""
    return [1 + bet * (loss / limit - 1) for bet in _BETS]


def _audits(bound: Bound, level: float) -> float:
    return max(bound.audit, _DENSE) if level >= bound.arl**_ALERT else bound.audit


def _mean(levels: Sequence[float]) -> float:
    return sum(levels) / len(levels) if levels else 0.0
