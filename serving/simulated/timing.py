"""When things happen: K slots with a queue, the prefix cache that shortens prefill, absolute deadlines.

No delay here is relative to the moment a callback happened to run. A slot passes to the next request at
the deadline at which it became free, so a busy machine makes single tokens late but lets nothing drift.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Timeline:
    """Deadlines of one answer, in seconds of the loop's clock; a stall delays token `stall_at` and all after.

    >>> line = Timeline(first=1.0, step=0.5, end=2.0, stall_at=2, stall=3.0)
    >>> [line.due(token) for token in range(3)], line.done
    ([1.0, 1.5, 5.0], 5.0)
    """

    first: float
    step: float
    end: float
    stall_at: int = 0
    stall: float = 0.0

    def due(self, token: int) -> float:
        """Return the deadline of a token, counted from 0."""
        return self.first + token * self.step + (self.stall if token >= self.stall_at else 0.0)

    @property
    def done(self) -> float:
        """The deadline of the answer's end."""
        return self.end + self.stall


class Waiter(Protocol):
    """A request that wants a slot."""

    def begin(self, start: float) -> None:
        """Take the slot at `start`, which may lie a little in the past."""


class Slots:
    """K places, first come first served.

    >>> class Shown:
    ...     def begin(self, start: float) -> None: print("begins at", start)
    >>> slots = Slots(1)
    >>> slots.enter(Shown(), now=1.0); slots.enter(Shown(), now=2.0)
    begins at 1.0
    >>> slots.leave(at=5.0)
    begins at 5.0
    """

    __slots__ = ("_waiting", "running", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.running = 0
        self._waiting: deque[tuple[Waiter, float]] = deque()

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return len(self._waiting)

    def enter(self, waiter: Waiter, now: float) -> None:
        """Give `waiter` a slot now, or queue it."""
        if self.running < self.size:
            self.running += 1
            waiter.begin(now)
        else:
            self._waiting.append((waiter, now))

    def leave(self, at: float) -> None:
        """Free a slot that became free at `at`; the request that waited longest gets it."""
        if self._waiting:
            waiter, arrival = self._waiting.popleft()
            waiter.begin(max(at, arrival))
        else:
            self.running -= 1

    def give_up(self, waiter: Waiter) -> None:
        """Take `waiter` out of the queue."""
        self._waiting = deque(entry for entry in self._waiting if entry[0] is not waiter)


class PrefixCache:
    """Prompt blocks seen lately, least recently used out first: how much of a prompt needs no prefill.

    Only whole blocks count, each known by all tokens up to its end. As in vLLM the last token is never
    cached, so a fully known prompt still computes one block. Blocks count as cached from the start of the
    first request that has them.

    >>> cache = PrefixCache(blocks=8, block_tokens=2)
    >>> cache.use(["a", "b", "c"]), cache.use(["a", "b", "x"]), cache.use(["a", "b"])
    (0, 2, 0)
    """

    __slots__ = ("_block_tokens", "_blocks", "_seen")

    def __init__(self, blocks: int, block_tokens: int) -> None:
        self._blocks = blocks
        self._block_tokens = block_tokens
        self._seen: OrderedDict[bytes, None] = OrderedDict()

    def use(self, tokens: Sequence[str]) -> int:
        """Return how many leading tokens are cached, and remember the prompt's blocks."""
        if not self._blocks:
            return 0
        size, digest, chain = self._block_tokens, b"", list[bytes]()
        for start in range(0, len(tokens) - size + 1, size):
            text = "\0".join(tokens[start : start + size]).encode("utf-8", "surrogatepass")
            digest = hashlib.blake2b(text, digest_size=16, key=digest).digest()
            chain.append(digest)
        known = next((i for i, block in enumerate(chain) if block not in self._seen), len(chain))
        # Last block first: the head of a prompt, which others share, then leaves the cache last.
        for block in reversed(chain):
            self._seen[block] = None
            self._seen.move_to_end(block)
        while len(self._seen) > self._blocks:
            self._seen.popitem(last=False)
        return min(known, max(0, len(tokens) - 1) // size) * size
