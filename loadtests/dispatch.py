"""Open loop: every request is sent when it is due, however the ones before it fare.

One greenlet waits for the next moment of the plan, one greenlet a request talks to the server; both share one event
loop with all reading. So the lag of the sends, which come at moments of their own, is also a sample of how late the
loop reads (Wolff, Poisson Arrivals See Time Averages, 1982): one small lag vouches for both ends of a latency.
"""

from __future__ import annotations

import contextlib
import gc
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import gevent
from gevent import GreenletExit
from gevent.event import Event
from gevent.pool import Group

from loadtests.pricing import Pricing, count, detail
from loadtests.sample import Sample
from loadtests.stream import Answer
from loadtests.traffic import Ask, Traffic
from loadtests.wire import Client

__all__ = ["Dispatcher", "ceiling", "sample_of", "settle"]

_HOPELESS_S = 10.0  # behind the plan
_TURNS = 1000
_PRIORITY = -10  # of Unix; needs the right to raise it
_CANNED = 50  # events of the answer that the ceiling is measured on


@dataclass(slots=True, eq=False)
class Dispatcher:
    """Sends one worker's share of a run.

    ``times`` are numbers and moments in seconds from ``start``, which is on the monotonic clock. ``record`` is called
    with each sample, ``done`` once when the last of ``times`` was sent and answered.
    """

    client: Client
    traffic: Traffic
    times: Iterator[tuple[int, float]]
    start: float
    pricing: Pricing
    record: Callable[[Sample], None]
    done: Callable[[], None]
    most: int = 4000
    worker: int = 0
    sent: int = 0
    trouble: str | None = None
    halted_at: float | None = None
    _cpu: float = 0.0
    _busy: dict[int, tuple[Ask, float, float]] = field(default_factory=dict)
    _tasks: Group = field(default_factory=Group)
    _sender: Any = None
    _exhausted: bool = False
    _open: int = 0
    _idle: Event = field(default_factory=Event)

    @property
    def in_flight(self) -> int:
        """Requests under way."""
        return len(self._busy)

    @property
    def cpu_s(self) -> float:
        """Processor seconds of this process since the begin."""
        return time.process_time() - self._cpu

    def begin(self) -> None:
        """Start to send; returns at once."""
        self._cpu = time.process_time()
        self._idle.set()
        self._sender = gevent.spawn(self._send)

    def halt(self) -> None:
        """Send no more."""
        if self.halted_at is None:
            self.halted_at = time.monotonic() - self.start
            if self._sender is not None and self._sender is not gevent.getcurrent():
                self._sender.kill(block=False)

    def drain(self, seconds: float) -> None:
        """Send no more, wait for what is under way, and give up the rest as failed; safe to call twice."""
        self.halt()
        self._idle.wait(seconds)
        self._tasks.kill()
        # A greenlet that was killed before it first ran could not say so itself.
        for number, (ask, at, sent) in list(self._busy.items()):
            self._lost(number, ask, at, sent, "unfinished")
        self._busy.clear()
        self.client.close()

    def give_up(self) -> None:
        """Wait no longer: a :meth:`drain` under way ends now."""
        self._idle.set()

    def _send(self) -> None:
        for number, at in self.times:
            # Made before it is due, so that making it is no lag.
            ask = self.traffic.ask(number)
            due = self.start + at
            while (left := due - time.monotonic()) > 0:
                gevent.sleep(left)
            self.sent += 1
            if left < -_HOPELESS_S:
                self.trouble = f"the generator fell {_HOPELESS_S:.0f} s behind the plan and was stopped"
                break
            if len(self._busy) >= self.most:
                self.trouble = f"more than {self.most:,} requests were under way at once (--max-in-flight)"
                self._lost(number, ask, at, time.monotonic() - self.start, "generator_limit")
            else:
                self._start(number, ask, at)
        self._exhausted = True
        self._finish()

    def _start(self, number: int, ask: Ask, at: float) -> None:
        # From here on it is under way, even if it is killed before its greenlet first runs.
        self._busy[number] = ask, at, time.monotonic() - self.start
        self._idle.clear()
        self._open += 1
        self._tasks.spawn(self._conversation, number, ask, at)

    def _conversation(self, number: int, ask: Ask, at: float) -> None:
        """One request, and the turns that follow it."""
        follow = self.traffic.follow
        try:
            answer = self._request(number, ask, at)
            while follow is not None and answer.error is None and self.halted_at is None:
                after = follow(number, ask, "".join(answer.texts))
                if after is None:
                    return
                at, ask = time.monotonic() - self.start + after[0], after[1]
                while (left := self.start + at - time.monotonic()) > 0:
                    gevent.sleep(left)
                if self.halted_at is None:
                    self._busy[number] = ask, at, time.monotonic() - self.start
                    self._idle.clear()
                    answer = self._request(number, ask, at)
        finally:
            self._open -= 1
            self._finish()

    def _request(self, number: int, ask: Ask, at: float) -> Answer:
        flying = len(self._busy)
        try:
            answer, sent = self.client.post(ask.body, ask.headers, keep_text=self.traffic.follow is not None)
        except GreenletExit:
            self._lost(number, ask, at, self._busy[number][2], "unfinished")
            raise
        except Exception as error:  # noqa: BLE001 - the generator's own: no answer, and no run to trust
            self._lost(number, ask, at, self._busy[number][2], "generator_error")
            self.trouble = self.trouble or f"a request could not be made ({type(error).__name__})"
            answer = Answer()
            answer.end_of_input("generator_error")
            return answer
        finally:
            self._busy.pop(number, None)
            if not self._busy:
                self._idle.set()
        one = sample_of(answer, ask, self.pricing)
        self.record(
            Sample(
                id=_id(number, ask), name=ask.name, intended=_digits(at), sent=self._since(sent),
                ended=self._since(time.monotonic()), in_flight=flying, worker=self.worker,
                conversation=ask.conversation, **self._stamps(answer), **one,
            )
        )  # fmt: skip
        return answer

    def _lost(self, number: int, ask: Ask, at: float, sent: float, error: str) -> None:
        self.record(
            Sample(
                id=_id(number, ask), name=ask.name, intended=_digits(at), sent=_digits(sent),
                ended=self._since(time.monotonic()), error=error, in_flight=len(self._busy), worker=self.worker,
                conversation=ask.conversation,
            )
        )  # fmt: skip

    def _finish(self) -> None:
        # A conversation between two turns is not busy, and yet not over.
        if self._exhausted and self._open == 0:
            self._exhausted = False
            self.done()

    def _stamps(self, answer: Answer) -> dict[str, Any]:
        stamps = {name: getattr(answer, name) for name in ("first", "first_output", "last")}
        gaps = tuple(round(gap, 6) for gap in answer.gaps)
        return {
            **{name: None if at is None else self._since(at) for name, at in stamps.items()},
            "gaps": gaps,
        }

    def _since(self, moment: float) -> float:
        return _digits(moment - self.start)


def sample_of(answer: Answer, ask: Ask, pricing: Pricing) -> dict[str, Any]:
    """What an answer says beside its stamps: a sample's counts, money, status and error."""
    usage = answer.usage or {}
    money = pricing(answer.usage, answer.model)
    return {
        "prompt_tokens": count(usage.get("prompt_tokens")),
        "cached_tokens": detail(usage, "prompt_tokens_details", "cached_tokens"),
        "output_tokens": count(usage.get("completion_tokens")),
        "reasoning_tokens": detail(usage, "completion_tokens_details", "reasoning_tokens"),
        "cost_nano": money.cost_nano,
        "saving": money.saving,
        "model": answer.model,
        "status": answer.status,
        "finish": answer.finish,
        "error": answer.error,
    }


def settle() -> None:
    """Make this process fit to be on time, for the rest of its life.

    It is scheduled before others where the system allows it (nice -10): what comes late here would be told of the
    server. And what is in memory now stays there: a full collection in mid-run would be a stall.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000, 20, 100)
    with contextlib.suppress(OSError):
        if os.getpriority(os.PRIO_PROCESS, 0) > _PRIORITY:
            os.setpriority(os.PRIO_PROCESS, 0, _PRIORITY)


def ceiling(traffic: Traffic, seconds: float = 0.1) -> float:
    """Requests a second that this process could make and read if nothing else took time: no machine reaches it.

    Makes bodies and reads canned answers for that long. A rate above it cannot be generated by one process.
    """
    body = b'data: {"id":"x","choices":[{"index":0,"delta":{"content":"word"},"finish_reason":%b}]}\n\n'
    events = [body % b"null"] * (_CANNED - 1) + [body % b'"stop"', b"data: [DONE]\n\n"]
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    parts = [head, *(b"%x\r\n%b\r\n" % (len(one), one) for one in events), b"0\r\n\r\n"]
    made, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        _ = traffic.ask(traffic.trial).body
        answer = Answer()
        for part in parts:
            answer.feed(part, 0.0)
        made += 1
    return made / (time.perf_counter() - begun)


def _id(number: int, ask: Ask) -> int:
    """A plan's number; later turns, which no plan has, get negative ones."""
    return number if ask.turn == 0 else -(number * _TURNS + ask.turn)


def _digits(seconds: float) -> float:
    return round(seconds, 6)
