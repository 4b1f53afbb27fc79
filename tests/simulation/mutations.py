"""Mistakes put into the flow, the flights and the drivers, each of which the simulation must find."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from costkit import flow, written
from costkit.effects import (
    Abandoned,
    Claim,
    Claimed,
    Effect,
    Held,
    Keep,
    Land,
    Lookup,
    Raised,
    Request,
    Reserve,
    Returned,
    Write,
)
from costkit.flight import Flight, Flights

Steps = Generator[Effect, Any, Any]
# An effect and how the call has ended: the effects in its place.
Mistake = Callable[[Effect, Any, Request], list[Effect]]

WORLDS = (
    "keys without scope", "land forgotten", "flights without epoch", "claims ignored", "a cancelled hold is kept",
    "an abandoned hold is kept", "an abandoned call is free", "every stale hit refreshes", "memory is trusted",
)  # fmt: skip

MISTAKES: dict[str, Mistake] = {
    "lands no failure": lambda e, end, _: [] if isinstance(e, Land) and isinstance(end, Raised) else [e],
    "lands nothing when gone": lambda e, end, _: [] if isinstance(e, Land) and e.gone else [e],
    "calls what is gone unshareable": lambda e, end, _: [replace(e, gone=False)] if isinstance(e, Land) else [e],
    "hides failures from followers": lambda e, end, _: (
        [replace(e, error=None, gone=True)] if isinstance(e, Land) and e.error is not None else [e]
    ),
    "settles twice": lambda e, end, _: [e, e] if isinstance(e, Write) and e.settles else [e],
    "settles never": lambda e, end, _: [replace(e, settles=False)] if isinstance(e, Write) else [e],
    "settles at nothing": lambda e, end, _: [replace(e, actual=0)] if isinstance(e, Write) else [e],
    "reserves nothing": lambda e, end, _: [] if isinstance(e, Reserve) else [e],
    "no row of a failure": lambda e, end, _: [] if isinstance(e, Write) and e.query.error else [e],
    "rows without attempts": lambda e, end, _: [replace(e, attempts=())] if isinstance(e, Write) else [e],
    "no evidence": lambda e, end, _: [replace(e, evidence=None)] if isinstance(e, Write) else [e],
    "evidence without its label": lambda e, end, _: (
        [replace(e, evidence=replace(e.evidence, wrong=None))] if isinstance(e, Write) and e.evidence else [e]
    ),
    "followers take lossy answers for whole": lambda e, end, _: (
        [replace(e, lossy=False)] if isinstance(e, Land) else [e]
    ),
    "lands before it stores": lambda e, end, request: (
        [Land(e.key, e.entry, None), e] if isinstance(e, Keep) and not e.entry.failed else [e]
    ),
    "a failed refresh is kept": lambda e, end, request: (
        [Keep(e.key, written.failure_of(request, request.exact, end)), e]
        if isinstance(e, Land) and isinstance(end, Raised) and request.exact and request.role == "refresh"
        else [e]
    ),
}  # fmt: skip


def _mistaken(mistake: Mistake) -> Callable[..., Steps]:
    real = flow.flow

    def mistaken(request: Request, clock: Callable[[], float]) -> Steps:
        steps, reply, end = real(request, clock), None, None
        try:
            while True:
                effect = steps.send(reply)
                reply = Held(0) if isinstance(effect, Reserve) else None
                for other in mistake(effect, end, request):
                    reply = yield other
                end = reply if isinstance(reply, (Abandoned, Raised, Returned)) else end
        except StopIteration as stop:
            return stop.value
        finally:
            steps.close()

    return mistaken


def _looks_first(request: Request, exact: Any, key: str, clock: Any, sought: Any) -> Steps:
    hit = yield from flow._look(request, exact, key, clock, leading=True)
    if hit is not None:
        return hit
    steps, reply = _LEAD(request, exact, key, clock, sought), None
    try:
        while True:
            effect = steps.send(reply)
            reply = None if isinstance(effect, Lookup) else (yield effect)
    except StopIteration as stop:
        return stop.value
    finally:
        steps.close()


def _never_looks_again(*args: Any, leading: bool = False, **settings: Any) -> Steps:
    return None if leading else (yield from _LOOK(*args, leading=leading, **settings))


def _any_epoch(request: Request, exact: Any, entry: Any) -> bool:
    return _SERVABLE(replace(request, epoch=entry.epoch), exact, entry)


def _any_age(request: Request, exact: Any, entry: Any) -> bool:
    return bool(entry.epoch == request.epoch and entry.stream == request.stream)


def _any_kind(request: Request, exact: Any, entry: Any) -> bool:
    return _SERVABLE(replace(request, now=replace(request.now, boot="another")), exact, entry)


def _waits(seconds: float) -> Callable[..., Steps]:
    def lead(request: Request, exact: Any, key: str, clock: Any, sought: Any) -> Steps:
        return (yield from _LEAD(request, replace(exact, wait=seconds), key, clock, sought))

    return lead


def _remembers(request: Request, exact: Any, *rest: Any, **settings: Any) -> Steps:
    return (yield from _REMEMBER(request, replace(exact, negative=1e9), *rest, **settings))


def _tells_followers(*args: Any, **settings: Any) -> Steps:
    effects, done = [], None
    steps = _REMEMBER(*args, **settings)
    try:
        while True:
            effects.append(next(steps))
    except StopIteration as stop:
        done = stop.value
    for effect in effects:
        yield Land(effect.key, None, done.error) if isinstance(effect, Land) and done else effect
    return done


def _keeps_at_once(request: Request, exact: Any, key: str, result: Raised) -> Steps:
    yield Keep(key, written.failure_of(request, exact, result))


def _lasts(*args: Any) -> Any:
    return replace(_FAILURE(*args), at=_FAILURE(*args).at + 2.0, mono=_FAILURE(*args).mono + 2.0)


def _unclaimed(request: Request, exact: Any, key: str, clock: Any) -> Steps:
    steps, reply = _RENEW(request, exact, key, clock), None
    try:
        while True:
            effect = steps.send(reply)
            reply = yield effect
            reply = Claimed() if isinstance(effect, Claim) else reply
    except StopIteration as stop:
        return stop.value
    finally:
        steps.close()


def _admitted(*args: Any) -> Any:
    return _ENTRY(*args)[0], True


def _no_successor(self: Flights, key: str, epoch: str, member: Any, owner: object, **settings: Any) -> Any:
    member.waited = None
    return _JOIN(self, key, epoch, member, owner, **settings)


def _leads_again(self: Flights, key: str, epoch: str, member: Any, owner: object, **settings: Any) -> Any:
    after = None if member.waited is None else member.waited.successor
    if after is not None and after.overdue():
        self._flights.pop((key, epoch), None)
        after.successor = None
    return _JOIN(self, key, epoch, member, owner, **settings)


_LOOK, _SERVABLE, _LEAD, _REMEMBER = flow._look, flow._servable, flow._lead, flow._remember
_FAILURE, _RENEW, _ENTRY, _JOIN = written.failure_of, flow._renew, written.entry_of, Flights.join

PATCHES: dict[str, tuple[Any, str, Any]] = {
    "labels by half an answer": (Returned, "whole", True),
    "stores what is not whole": (flow, "entry_of", _admitted),
    "serves any epoch": (flow, "_servable", _any_epoch),
    "serves any age": (flow, "_servable", _any_age),
    "trusts the wall clock": (flow, "_servable", _any_kind),
    "followers take what is too old": (flow, "_too_old", lambda request, exact, entry: False),
    "a failure replaces an answer": (flow, "_keep_failure", _keeps_at_once),
    "followers hear of old failures": (flow, "_remember", _tells_followers),
    "all lead after one that is overdue": (Flights, "join", _leads_again),
    "stale is never stale": (flow, "_is_stale", lambda request, exact, entry: False),
    "all is stale": (flow, "_is_stale", lambda request, exact, entry: exact.ttl is not None),
    "every follower tries itself": (flow, "MAX_LOST", 1_000_000),
    "looks before it claims": (flow, "_lead", _looks_first),
    "never looks again": (flow, "_look", _never_looks_again),
    "waits for ever": (flow, "_lead", _waits(1e9)),
    "waits not at all": (flow, "_lead", _waits(0.0)),
    "remembers failures too long": (flow, "failure_of", _lasts),
    "refreshes without a claim": (flow, "_renew", _unclaimed),
    "one flight, many successors": (Flights, "join", _no_successor),
    "flights never overdue": (Flight, "overdue", lambda self: False),
    "flights overdue at once": (Flight, "overdue", lambda self: self.landed is None),
}

MUTATIONS = (*WORLDS, *MISTAKES, *PATCHES)


@contextmanager
def mutated(name: str) -> Iterator[None]:
    """With this mistake made; those of the world are the world's own affair."""
    with pytest.MonkeyPatch.context() as patch:
        if name in MISTAKES:
            patch.setattr(flow, "flow", _mistaken(MISTAKES[name]))
        elif name in PATCHES:
            patch.setattr(*PATCHES[name])
        yield
