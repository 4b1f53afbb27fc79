"""What of a kit begins and ends each call."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

from .call import Outcome, new_id
from .effects import Done, Request
from .errors import ScopeError
from .plan import Plan
from .ports import Ports
from .prices import Prices
from .reserve import Allowance, Reservation
from .scope import Scopes
from .session import Session, current, in_reference, texts
from .store import Moment, Store

__all__ = ["Calls"]


class Calls:
    """The part of :class:`costkit.Kit` that wrapped functions use; what it is made of is the kit's."""

    prices: Prices
    _ports: Ports
    _store: Store
    _boot: str
    _text: bool
    _scope: ContextVar[Mapping[str, Any] | None]
    _allowed: ContextVar[Allowance]
    _scopes: Scopes
    _warn: Callable[[str], None]

    def _begin(self, plan: Plan, arguments: Mapping[str, Any]) -> Session:
        """Everything that is decided before the flow starts; raises before anything is spent."""
        started, now = time.perf_counter(), Moment(time.time(), time.monotonic(), self._boot)
        same, role = plan.exact, "call"
        if in_reference():
            same, role = None, "reference"
        scope = self._resolve(plan, arguments)
        scope_id, label = self._scopes.named(scope)
        key, epoch = None, ""
        if same is not None:
            epoch = self._store.epoch(same.epochs, scope_id)
            key = plan.digest(scope, arguments)
        parent = current.get()
        above = parent if parent is not None and parent.home is self else None  # rows join within one ledger
        call_id = new_id()
        owner = f"call {plan.name} {scope_id}", plan.name if label is None else f"{plan.name} {label}"
        reservation = self._reservation(plan, call_id, owner, parent, now.wall)
        request = Request(
            id=call_id,
            parent_id=None if above is None else above.request.id,
            root_id=call_id if above is None else above.request.root_id,
            name=plan.name, version=plan.version, scope=label, tag=self._tag(plan), key=key, exact=same, epoch=epoch,
            stream=plan.stream, started=started, now=now, role=role,
            reserves=bool(reservation) or not self._ports.known(plan.model_of(arguments), plan.provider),
            meaning=key is not None and plan.meaning is not None and not (parent is not None and parent.audited),
            text=texts(arguments) if self._text else None,
        )  # fmt: skip
        return Session(
            request, plan, scope_id=scope_id, arguments=arguments, prices=self.prices, warn=self._warn, parent=parent,
            home=self, reservation=reservation, scope=scope, learned=self._ports.learned,
        )  # fmt: skip

    def _reservation(
        self, plan: Plan, call_id: str, owner: tuple[str, str], parent: Session | None, now: float
    ) -> Reservation:
        """The budgets that a call comes under: those in force here, its own, and those of the calls around it."""
        allowed = self._allowed.get()
        if plan.budget:
            allowed = allowed.under(plan.budget, *owner)
        if parent is not None and parent.reservation:
            allowed = allowed.inside(parent.reservation.allowance, same_kit=parent.home is self)
        return Reservation(call_id, allowed, now)

    def _finish(self, session: Session, done: Done) -> None:
        """Report to the caller's call, and raise what the function raised."""
        session.report(done)
        if done.error is not None:
            raise done.error

    def _tag(self, plan: Plan) -> str | None:
        """The label of ``kit.scope(tag=...)``; None where there is none, or where it says who may share answers."""
        tag = (self._scope.get() or {}).get("tag")
        return None if tag is None or "tag" in (plan.scope or ()) else self._scopes.label({"tag": tag})

    def _outcome(self, session: Session, done: Done) -> Outcome[Any]:
        return Outcome(done.value, done.cost, done.latency, done.saving, session.request.id, done.ttft)

    def _resolve(self, plan: Plan, arguments: Mapping[str, Any]) -> dict[str, Any] | None:
        if plan.scope is None:
            return None
        given = self._scope.get() or {}
        found: dict[str, Any] = {}
        for name in plan.scope:
            value = arguments.get(name)
            if value is None:
                value = given.get(name)
            if value is None:
                raise ScopeError(
                    f"{plan.name}(): the scope {name!r} has no value; pass {name}=..., or call inside "
                    f"`with kit.scope({name}=...)`"
                )
            found[name] = value
        return found
