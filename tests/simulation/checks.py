"""What must be true of a call: when it begins to spend, when it stores, and of what it tells and is told."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from costkit.effects import Abandoned, Done, Left
from costkit.errors import RecentFailure

from .meaning import check_evidence, check_lossy
from .world import Answer, Broken, Written

if TYPE_CHECKING:
    from .caller import Caller


def check_spending(caller: Caller) -> None:
    """It is in the right to spend money now."""
    world, flight = caller.world, caller.waited
    if world.budgeted and caller not in world.holds:
        raise Broken(f"{caller.id} spends without a hold")
    if caller.met >= 2 or (caller.met and world.settings.negative):
        raise Broken(f"{caller.id} calls though {caller.met} calls that it waited for have failed")
    if caller.flight is None:
        shared = flight is None or (flight.landed is None or flight.landed.why is None)
        if shared and not (flight and flight.chunks and not isinstance(flight.chunks[0], str)):
            raise Broken(f"{caller.id} calls beside its flight, though the answer could be shared")
    elif not caller.patient:
        if not caller.claimed:
            raise Broken(f"{caller.id} calls without a claim")
        for other in world.callers if world.now < caller.turn else ():
            if (
                other is not caller
                and other.flown == caller.flown
                and other.spends()
                and world.now < other.turn
            ):
                raise Broken(f"{caller.id} calls while {other.id} does")
    found = world.truth(caller.key, caller.process)
    if found is None or caller.missed or not world.servable(found, caller.request):
        return
    if max(found.at, found.seen_from if found.by != caller.process.number else 0.0) <= caller.looked:
        raise Broken(f"{caller.id} calls though the answer is stored")
    mine = caller.flight is not None and not caller.patient and world.now < caller.until
    if mine and found.claimed and found.at > caller.looked:
        raise Broken(f"{caller.id} calls though the answer was stored in its turn")


def check_kept_failure(caller: Caller, found: Written | None) -> None:
    if caller.request.role == "refresh":
        raise Broken(f"{caller.id} is a refresh, and stores that it failed")
    if found is None or caller.missed or found.entry.failed:
        return
    failed = caller.world.answers[caller.serial].over
    if max(found.at, found.seen_from) <= failed and caller.world.servable(found, caller.request):
        raise Broken(f"{caller.id} stores its failure over a good answer")


def check_end(caller: Caller, done: Done) -> None:
    """What it wrote down, and what it was answered."""
    check_row(caller, done)
    check_evidence(caller, done)
    if isinstance(done.error, RecentFailure):
        check_failure(caller, str(done.error))
    if done.error is not None or caller.request.role == "refresh":
        return
    text = "".join(map(str, done.value)) if isinstance(done.value, list) else done.value
    if not isinstance(text, str) or "object" in text:
        return
    if text.count("|") != 3:
        raise Broken(f"{caller.id} was answered with a part: {text!r}")
    key, epoch, serial, end = text.split("|")
    answer = caller.world.answers[int(serial)]
    check_lossy(caller, done, int(serial))
    truly = f"{caller.request.scope}/{caller.key.rpartition('/')[2]}"
    if done.saving == "semantic":
        truly = f"{caller.request.scope}/{key.rpartition('/')[2]}"
    if key != truly:
        raise Broken(f"{truly} got {text!r}, a foreign answer")
    if epoch != caller.request.epoch:
        raise Broken(f"{caller.request.epoch} got {text!r}, of another epoch")
    if (done.saving is None) != (answer.caller is caller):
        raise Broken(f"{caller.id} says that {done.saving} saved {text!r}")
    if done.saving in ("exact", "stale", "semantic") and not end:
        raise Broken(f"half an answer was served: {text!r}")
    if done.saving is not None:
        check_age(caller, done.saving, answer)


def check_row(caller: Caller, done: Done) -> None:
    idle = (
        caller.request.role == "refresh"
        and not caller.calling
        and (caller.refused is None or not caller.claimed)
    )
    if len(caller.writes) != (not idle):
        raise Broken(f"{caller.id} wrote {len(caller.writes)} rows")
    if caller.held:
        raise Broken(f"{caller.id} ended, and still holds money")
    for write in caller.writes:
        own = () if caller.result is None else caller.result.own
        left = isinstance(caller.result, Abandoned) or isinstance(caller.refused, Left)
        error = None if done.error is None else type(done.error).__name__
        wrote, query = (write.query.error, write.query.saved_by, write.attempts), write.query
        if wrote != (error, done.saving, own) or query.complete == left or query.role != caller.request.role:
            raise Broken(f"{caller.id} wrote a row that is not true: {write}")
        if query.provider_cost != sum(a.cost or 0 for a in own):
            raise Broken(f"{caller.id} wrote a cost that is not true: {write}")


def check_age(caller: Caller, saving: str, answer: Answer) -> None:
    now, asked, settings = caller.request.now, answer.asked, caller.world.settings
    age = max(now.wall - asked.wall, now.mono - asked.mono)
    if settings.life is None or settings.ttl is None:
        return
    if age >= settings.life and not (saving == "coalesced" and now.mono - answer.over < settings.life):
        raise Broken(f"{caller.id} was answered ({saving}) what is {age:.3f} s old")
    if saving in ("exact", "stale") and (saving == "stale") != (age >= settings.ttl):
        raise Broken(f"{caller.id} was told that an answer {age:.3f} s old is {saving}")


def check_failure(caller: Caller, said: str) -> None:
    found = re.search(r"\(Failure(\d+)\)", said)
    if found is None or not caller.world.settings.negative:
        raise Broken(f"a failure is remembered unasked: {said}")
    age = caller.request.now.mono - caller.world.answers[int(found[1])].over
    if age >= caller.world.settings.negative:
        raise Broken(f"{caller.id} was told of a failure {age:.3f} s ago: {said}")
