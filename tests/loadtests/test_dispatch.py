"""The open-loop sender against real sockets: nothing waits for what came before, nothing is lost at the end."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import islice, pairwise

import gevent
from gevent.event import Event

from loadtests.arrivals import Plan, Stage, arrivals
from loadtests.dispatch import Dispatcher, ceiling
from loadtests.pricing import Pricing
from loadtests.sample import Sample, as_row, from_row
from loadtests.traffic import Model, Traffic, chat, multiturn
from loadtests.wire import Client, parse_target
from tests.loadtests.test_stream import HEAD, STOP, USAGE, chunked, text
from tests.loadtests.test_wire import GOOD, Peer, good, peer

ONE = chat(Model("tiny"), words=3)


def dispatcher(
    server: Peer,
    times: list[float],
    traffic: Traffic = ONE,
    *,
    timeout: float = 10.0,
    most: int = 100,
    lead: float = 0.05,
) -> tuple[Dispatcher, list[Sample], Event]:
    samples, over = list[Sample](), Event()
    one = Dispatcher(
        Client(parse_target(server.url), timeout=timeout), traffic, iter(enumerate(times)),
        time.monotonic() + lead, Pricing((1.0, 2.0, 0.5)), samples.append, over.set, most=most, worker=3,
    )  # fmt: skip
    one.begin()
    return one, samples, over


def after(seconds: float) -> Callable[[socket.socket, int], bool]:
    def answer(link: socket.socket, _: int) -> bool:
        time.sleep(seconds)
        link.sendall(GOOD)
        return True

    return answer


def test_sends_on_time_however_slow_the_server_is() -> None:
    """Requests that take 0.4 s are sent every 20 ms all the same, each when it is due."""
    times = [0.02 * n for n in range(20)]
    with peer(after(0.4)) as server:
        one, samples, over = dispatcher(server, times)
        assert over.wait(10)
        one.drain(1)
    assert sorted(row.id for row in samples) == list(range(20))
    assert all(row.intended == round(times[row.id], 6) for row in samples)
    # One after the other they would be up to 8 s late; the server's threads share this process.
    assert max(row.lag for row in samples) < 0.4
    assert max(row.in_flight for row in samples) >= 10
    assert {row.worker for row in samples} == {3}


def test_a_frozen_server_is_seen_from_the_intended_moment() -> None:
    """Requests that were due while the server stood still count that time, each its own part of it."""
    begun = time.monotonic()

    def frozen(link: socket.socket, _: int) -> bool:
        time.sleep(max(0.0, begun + 0.6 - time.monotonic()))
        link.sendall(GOOD)
        return True

    with peer(frozen) as server:
        one, samples, over = dispatcher(server, [0.0, 0.1, 0.2, 0.3])
        assert over.wait(10)
        one.drain(1)
    waits = [row.ttft or 0.0 for row in sorted(samples, key=lambda row: row.id)]
    assert all(early > late + 0.05 for early, late in pairwise(waits))


def test_a_generator_that_slept_tells_on_itself() -> None:
    """Where the process itself stood still, the lag says so, and it is part of the time to first token."""
    with peer(good) as server:
        one, samples, over = dispatcher(server, [0.0, 0.1, 0.15, 0.5])
        gevent.sleep(0.1)
        time.sleep(0.25)
        assert over.wait(10)
        one.drain(1)
    late = [row for row in samples if row.lag > 0.1]
    assert sorted(row.id for row in late) == [1, 2] and all((row.ttft or 0.0) > 0.1 for row in late)


def test_drain_waits_for_what_is_under_way() -> None:
    """After a halt nothing more is sent, and what was sent is answered and kept."""
    with peer(after(0.3)) as server:
        one, samples, _ = dispatcher(server, [0.0, 0.05, 5.0])
        gevent.sleep(0.2)
        one.drain(5)
    assert [row.error for row in samples] == [None, None]
    assert one.halted_at is not None and 0.1 < one.halted_at < 1.0


def test_what_outlives_the_drain_is_a_failure() -> None:
    """A request that is not answered when the drain ends is kept as failed, once, and giving up ends the wait."""
    with peer(after(3.0)) as server:
        one, samples, _ = dispatcher(server, [0.0, 0.05])
        gevent.sleep(0.2)
        begun = time.monotonic()
        gevent.spawn_later(0.1, one.give_up)
        one.drain(30)
        one.drain(0)
        assert time.monotonic() - begun < 2
    assert sorted((row.id, row.error) for row in samples) == [(0, "unfinished"), (1, "unfinished")]
    assert one.in_flight == 0


def test_too_many_at_once_is_the_generators_failure() -> None:
    """Beyond its limit a request is not sent but kept as failed, and the run is told to be worthless."""
    with peer(after(0.5)) as server:
        one, samples, over = dispatcher(server, [0.0, 0.01, 0.02, 0.03], most=2)
        assert over.wait(10)
        one.drain(1)
    assert sorted(row.error or "" for row in samples) == ["", "", "generator_limit", "generator_limit"]
    assert one.trouble is not None and "--max-in-flight" in one.trouble


def test_a_request_that_cannot_be_made_is_lost_to_nobody() -> None:
    """What goes wrong in the generator itself is a failed sample and makes the run invalid; the others go on."""
    odd = replace(
        ONE, ask=lambda number: replace(ONE.ask(number), headers={"X-Tenant": "東京"} if number == 1 else {})
    )
    with peer(good) as server:
        one, samples, over = dispatcher(server, [0.0, 0.01, 0.02], odd)
        assert over.wait(5)
        begun = time.monotonic()
        one.drain(30)
    assert time.monotonic() - begun < 5
    assert sorted((row.id, row.error) for row in samples) == [(0, None), (1, "generator_error"), (2, None)]
    assert one.trouble is not None and "UnicodeEncodeError" in one.trouble


def test_hopelessly_behind_is_an_end() -> None:
    """A generator that is ten seconds behind its plan stops by itself and says why."""
    with peer(good) as server:
        one, samples, over = dispatcher(server, [0.0, 0.1, 30.0], lead=-11.0)
        assert over.wait(5)
        one.drain(0)
    assert samples == [] and one.trouble is not None and "behind" in one.trouble


def test_counts_and_money_come_from_the_usage() -> None:
    """Tokens, prefix cache, cost and saving are the server's own, priced where it names no price."""
    told = b'{"prompt_tokens":10,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":4}%b}'
    own = b',"costkit":{"cost_nano_usd":17,"saving":"semantic","query_id":"q"}'

    def answer(link: socket.socket, number: int) -> bool:
        usage = b'data: {"model":"m","choices":[],"usage":' + told % (own if number == 2 else b"") + b"}\n\n"
        link.sendall(HEAD + chunked(text("a"), text("b"), STOP, usage))
        return True

    with peer(answer) as server:
        _, samples, over = dispatcher(server, [0.0, 0.2])
        assert over.wait(5)
    first, second = samples
    assert (first.prompt_tokens, first.cached_tokens, first.output_tokens) == (10, 4, 3)
    assert (first.cost_nano, first.saving) == (6 * 1000 + 4 * 500 + 3 * 2000, None)
    assert (second.cost_nano, second.saving) == (17, "semantic")
    assert all(from_row(as_row(row)) == row for row in samples)


def test_conversations_go_on_with_what_was_answered() -> None:
    """A later turn says the answer before it again, comes after its pause, and has a number no plan has."""

    def answer(link: socket.socket, _: int) -> bool:
        link.sendall(HEAD + chunked(text("a"), text('say "b"'), STOP, USAGE))
        return True

    with peer(answer) as server:
        one, samples, _ = dispatcher(server, [0.0], multiturn(Model("tiny"), turns=50, think=0.01, words=3))
        gevent.sleep(0.6)
        one.drain(1)
        bodies = [request.partition(b"\r\n\r\n")[2] for request in server.requests]
    assert len(samples) >= 3
    assert [row.id for row in samples][:3] == [0, -1, -2]
    assert {row.conversation for row in samples} == {"c0"}
    assert bodies[1].count(b'"role":"assistant","content":"asay \\"b\\""') == 1
    assert bodies[2].count(b'"role":"assistant"') == 2
    turn, later = samples[0], samples[1]
    assert later.intended >= turn.ended - 0.01


def test_the_end_of_conversations_is_the_end() -> None:
    """The end is told once, after the last turn of the last conversation and not before."""
    with peer(good) as server:
        one, samples, over = dispatcher(
            server, [0.0, 0.01], multiturn(Model("tiny"), turns=2, think=0.05, words=3)
        )
        assert over.wait(10)
        assert one.in_flight == 0
        count = len(samples)
        gevent.sleep(0.2)
        assert len(samples) == count


def test_poisson_arrivals_are_sent_as_planned() -> None:
    """What is sent are the plan's own numbers and moments, to the microsecond."""
    plan = Plan((Stage(40, 40, 1.0),), seed=5)
    due = list(islice(arrivals(plan), 1000))
    with peer(good) as server:
        _, samples, over = dispatcher(server, [at for _, at in due])
        assert over.wait(10)
    assert sorted((row.id, row.intended) for row in samples) == [(n, round(at, 6)) for n, at in due]


def test_no_machine_makes_a_million_a_second() -> None:
    """The ceiling that a rate is held against is finite and not absurdly low."""
    assert 50 < ceiling(ONE) < 1_000_000
