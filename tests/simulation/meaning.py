"""The semantic tier of the world: what a call finds that means the same, and what it must write of it.

In a world with meanings every word of a tenant may be asked in another tenant's words; the gate throws dice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from costkit.bound import Passage
from costkit.effects import Done, Judge, Keep, Returned
from costkit.semantic.features import Profile
from costkit.semantic.pool import Sought
from costkit.store import Entry

from .world import Broken

if TYPE_CHECKING:
    from .caller import Caller

_KINDS: tuple[Any, ...] = ("served", "served", "audit", "declined")


def seek(caller: Caller) -> Sought | None:
    """An answer that was admitted in the same scope and epoch and is still to be had, and the gate's decision."""
    world, request = caller.world, caller.request
    if world.meanings.random() < 0.1:
        return None  # a call without a text, or trouble with the encoder
    keys = sorted(world.pool.get((request.scope or "", request.epoch), set()) - {caller.key})
    found = world.disk(world.meanings.choice(keys), caller.process) if keys else None
    entry = None if found is None or not _fresh(caller, found.entry) else found.entry
    kind: Any = "none" if entry is None else world.meanings.choice(_KINDS)
    chance = 0.05 if kind in ("served", "audit") else 1.0
    passage = Passage(kind, None if entry is None else 0, 0.1, (1.0,), chance, scope=request.scope)
    world.seen.update({kind} - {"none"})
    return Sought(
        "gate", passage, request.scope or "", request.epoch, np.ones(1, np.float32), Profile((), ()),
        "q", None if entry is None else "k", entry,
    )  # fmt: skip


def _fresh(caller: Caller, entry: Entry) -> bool:
    now, ttl = caller.request.now, caller.world.settings.ttl
    fits = (
        entry.stream == caller.request.stream and not entry.failed and entry.usable(now, caller.request.epoch)
    )
    return fits and (ttl is None or entry.age(now) < ttl)


def judge(caller: Caller, effect: Judge) -> bool | None:
    """A verdict, or none yet; only on what a gate wants labelled, by the whole answer of a reference call."""
    if not effect.sought.passage.labelled:
        raise Broken(f"{caller.id} judges what needs no label")
    caller.verdicts.append(caller.world.meanings.choice([True, False, None]))
    return caller.verdicts[-1]


def admit(caller: Caller, effect: Keep) -> None:
    """What may be served to other questions from now on."""
    if effect.sought is not None:
        place = caller.request.scope or "", caller.request.epoch
        caller.world.pool.setdefault(place, set()).add(caller.key)


def check_evidence(caller: Caller, done: Done) -> None:
    """One row of evidence for what the gate decided, with the judge's own verdict, and none that there need not be."""
    wrote = [write.evidence for write in caller.writes if write.evidence is not None]
    kind = _expected(caller, done)
    if [row.kind for row in wrote] != ([] if kind is None else [kind]):
        raise Broken(f"{caller.id} left {wrote} as evidence, not {kind}")
    verdict = [row.wrong for row in wrote if row.kind in ("declined", "audit")]
    if verdict != caller.verdicts:
        raise Broken(f"{caller.id} was judged {caller.verdicts} and wrote {verdict}")


def _expected(caller: Caller, done: Done) -> str | None:
    """The row that a call leaves: of an audit always one, of others where an answer of their own was whole."""
    sought, result = caller.sought, caller.result
    if sought is None or caller.request.role == "refresh":
        return None
    if done.saving == "semantic":
        return "served"
    kind = "none" if sought.serves else sought.passage.kind
    if isinstance(result, Returned) and not caller.cut:
        unlabelled = {"audit": "unanswered", "declined": "unlabelled"}
        return unlabelled.get(kind, kind) if result.lossy else kind
    if kind != "audit":
        return None
    answered = (
        result is None and done.error is None and done.saving in ("exact", "coalesced") and not done.lossy
    )
    return "audit" if answered else "unanswered"


def check_lossy(caller: Caller, done: Done, serial: int) -> None:
    """Whoever is given what a lossy saving had a part in is told so."""
    lossy = serial in caller.world.lossy or done.saving == "semantic"
    if done.saving is not None and done.lossy != lossy:
        raise Broken(f"{caller.id} was told lossy={done.lossy} of an answer where it is {lossy}")
