"""What the flow asks for and what it is told: its effects, and the replies to them.

effect    sent back                              what it asks for
Lookup    Entry | None                           the stored entry, if any
Join      Lead | Landed | Whole | Lost | Left    lead the flight of this key, or wait for its leader
Claim     Claimed | Taken                        make this call alone among all processes
Pause     None | Left                            wait for the process that has the claim
Seek      Sought | None                          look for an answer that means the same; ask the gate
Refresh   None                                   make the call anew in the background, unless somebody does
Reserve   Held | Refused | Left                  check the price, and hold the most it may cost
Call      Returned | Raised | Abandoned          run the user's function
Keep      None                                   store the entry; with ``sought`` for its meaning too
Judge     bool | None                            whether the candidate was wrong; None: said later, or never
Land      None                                   end flight and claim: followers get the entry or the error
Write     None                                   the rows for the ledger; with ``settles``, what was held is settled
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .call import Attempt, Cost
from .exact import Exact
from .ledger import Evidence, Query
from .store import Entry, Moment
from .usage import COMPLETE

if TYPE_CHECKING:
    from .semantic.pool import Sought

__all__ = [
    "Abandoned", "Call", "Claim", "Claimed", "Done", "Effect", "Held", "Join", "Judge", "Keep", "Land",
    "Landed", "Lead", "Left", "Lookup", "Lost", "Pause", "Raised", "Refresh", "Refused", "Request", "Reserve",
    "Returned", "Seek", "Taken", "Whole", "Write",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Lookup:
    """``fresh``: look past what this process remembers, for another may have stored something newer."""

    key: str
    fresh: bool = False


@dataclass(frozen=True, slots=True)
class Join:
    """``wait``: follow a leader there is; a refresh does not."""

    key: str
    wait: bool = True


@dataclass(frozen=True, slots=True)
class Claim:
    """``patience``: seconds after which another process may take the claim over."""

    key: str
    patience: float


@dataclass(frozen=True, slots=True)
class Pause:
    seconds: float


@dataclass(frozen=True, slots=True)
class Seek:
    pass


@dataclass(frozen=True, slots=True)
class Refresh:
    pass


@dataclass(frozen=True, slots=True)
class Reserve:
    pass


@dataclass(frozen=True, slots=True)
class Call:
    pass


@dataclass(frozen=True, slots=True)
class Keep:
    key: str
    entry: Entry
    value: Any = None
    sought: Sought | None = None


@dataclass(frozen=True, slots=True)
class Judge:
    """``value`` is the reference's."""

    sought: Sought
    value: Any


@dataclass(frozen=True, slots=True)
class Land:
    """``gone``: the leader was cancelled, so a follower should take over. ``why`` the answer cannot be stored.

    ``lossy``: a lossy saving answered a call inside, so no follower's caller may store what it makes of this.
    """

    key: str
    entry: Entry | None
    error: BaseException | None
    gone: bool = False
    why: str | None = None
    lossy: bool = False


@dataclass(frozen=True, slots=True)
class Write:
    """``actual``: nano-dollars spent of what was held, None where it is not known; ``evidence``: a gate's row."""

    query: Query
    attempts: tuple[Attempt, ...]
    durable: bool
    settles: bool = False
    actual: int | None = None
    evidence: Evidence | None = None


Effect = Lookup | Seek | Join | Claim | Pause | Refresh | Reserve | Call | Keep | Judge | Land | Write


@dataclass(frozen=True, slots=True)
class Lead:
    """This call leads: it must end with Land."""


@dataclass(frozen=True, slots=True)
class Landed:
    """The leader answered."""

    entry: Entry
    ttft: float | None = None
    lossy: bool = False


@dataclass(frozen=True, slots=True)
class Lost:
    """The leader failed (``error``), or went away, or its answer cannot be shared (``alone``).

    ``emitted``: this follower has passed chunks on already, so it cannot start over.
    """

    error: BaseException | None = None
    emitted: bool = False
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Whole:
    """The leader's stream ended well and this follower passed all of it on, but it cannot be stored."""

    chunks: tuple[Any, ...]
    ttft: float | None = None
    lossy: bool = False


@dataclass(frozen=True, slots=True)
class Left:
    """This call was cancelled, interrupted or left while it waited."""

    error: BaseException


@dataclass(frozen=True, slots=True)
class Claimed:
    """No other process makes this call."""


@dataclass(frozen=True, slots=True)
class Taken:
    """Another process makes it, and may until the monotonic clock says ``until``."""

    until: float


@dataclass(frozen=True, slots=True)
class Held:
    """So many nano-dollars are held for this call, in every budget it comes under."""

    amount: int | None


@dataclass(frozen=True, slots=True)
class Refused:
    """Nothing may be spent: no price, no estimate, no money left, or no ledger to ask."""

    error: Exception


@dataclass(frozen=True, slots=True)
class Returned:
    """The function's value (for a stream the list of its chunks), and what it spent.

    ``own`` are this call's attempts, ``nested`` the money of wrapped calls inside it, ``cut`` the finish of a
    model's answer inside that was not whole, ``lossy`` that a lossy saving answered a call inside.
    """

    value: Any
    own: tuple[Attempt, ...]
    nested: Cost
    latency: float
    ttft: float | None = None
    cut: str | None = None
    lossy: bool = False

    @property
    def finish(self) -> str | None:
        """Why the model stopped, where its provider says so."""
        return self.cut or next((a.finish for a in reversed(self.own) if a.finish is not None), None)

    @property
    def whole(self) -> bool:
        """Whether the provider calls the answer whole; ``exact(admit=...)`` may keep another one all the same."""
        return self.finish is None or self.finish.lower() in COMPLETE


@dataclass(frozen=True, slots=True)
class Raised:
    """The function's own exception."""

    error: Exception
    own: tuple[Attempt, ...]
    nested: Cost
    latency: float
    ttft: float | None = None


@dataclass(frozen=True, slots=True)
class Abandoned:
    """Cancelled, interrupted, or a stream left before its end."""

    error: BaseException
    own: tuple[Attempt, ...]
    nested: Cost
    latency: float
    ttft: float | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """Everything about one call that is known before it runs.

    ``scope`` and ``tag`` are labels. ``key`` is None where no saving may act; ``reserves`` says that something
    must be checked before money is spent, ``meaning`` that a call which means the same may have answered it.
    """

    id: str
    parent_id: str | None
    root_id: str
    name: str
    version: str
    scope: str | None
    key: str | None
    exact: Exact | None
    epoch: str
    stream: bool
    started: float
    now: Moment
    role: str = "call"
    reserves: bool = False
    meaning: bool = False
    tag: str | None = None
    text: Callable[[Any], tuple[str | None, str | None]] | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """How a call ended: with a value, or with ``error`` to be raised. ``lossy``: a lossy saving had a part in it."""

    value: Any
    cost: Cost
    latency: float
    saving: str | None
    error: BaseException | None = None
    ttft: float | None = None
    lossy: bool = False
