"""What a flow writes: the entry it stores, and the row of the ledger."""

from __future__ import annotations

from typing import Any

from . import codec
from .call import Attempt, Cost
from .effects import Raised, Request, Returned
from .exact import Exact
from .ledger import Query
from .store import Entry

__all__ = ["entry_of", "failure_of", "row", "total"]


def entry_of(request: Request, exact: Exact, result: Returned, spent: Cost) -> tuple[Entry, bool]:
    """The answer to be stored, and whether it may be; raises codec.NotStorable."""
    admitted = exact.admits(result.value, result.finish) and not result.lossy
    return Entry(
        payload=codec.encode(result.value),
        at=request.now.wall,
        ttl=exact.ttl,
        life=exact.life,
        cost=None if spent.unknown else spent.counterfactual,
        latency=result.latency,
        stream=request.stream,
        epoch=request.epoch,
        mono=request.now.mono,
        boot=request.now.boot,
    ), admitted


def failure_of(request: Request, exact: Exact, result: Raised) -> Entry:
    """That the call failed, from now on: it may have taken longer to fail than this is to be remembered."""
    took = result.latency
    return Entry(
        payload=b"",
        at=request.now.wall + took,
        ttl=exact.negative,
        life=exact.negative,
        latency=took,
        stream=request.stream,
        epoch=request.epoch,
        failed=type(result.error).__name__,
        mono=request.now.mono + took,
        boot=request.now.boot,
    )


def total(own: tuple[Attempt, ...], nested: Cost) -> Cost:
    """What the call's own attempts and the calls inside it cost."""
    paid = sum(a.cost for a in own if a.cost is not None)
    return Cost(
        provider=nested.provider + paid,
        counterfactual=nested.counterfactual + paid,
        overhead=nested.overhead,
        unknown=nested.unknown + sum(a.cost is None for a in own),
        estimated=nested.estimated or any(a.usage_state == "estimated" for a in own),
    )


def row(
    request: Request, value: Any, *, latency: float, counterfactual: int | None, provider: int = 0,
    unknown: int = 0,
    saved_by: str | None = None, ttft: float | None = None, complete: bool = True, error: str | None = None,
    reserved: int | None = None,
) -> Query:  # fmt: skip
    """The row of one call; money in nano-dollars, durations in seconds."""
    asked, answered = (None, None) if request.text is None else request.text(value)
    return Query(
        id=request.id, parent_id=request.parent_id, root_id=request.root_id, name=request.name,
        version=request.version, scope=request.scope, key=request.key, at=request.now.wall, latency=latency,
        ttft=ttft,
        saved_by=saved_by, role=request.role, provider_cost=provider, counterfactual_cost=counterfactual,
        unknown_costs=unknown, complete=complete, error=error, reserved=reserved, request=asked, response=answered,
    )  # fmt: skip
