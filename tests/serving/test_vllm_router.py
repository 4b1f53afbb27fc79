"""Two real replicas of the tiny model behind a real vllm-router: what routing does, and what a full replica does."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from serving.engine import profile, router, server
from serving.engine.layout import EngineError, here
from serving.engine.process import end_group, members
from serving.engine.scrape import Work, between, scrape
from tests.serving import real
from tests.serving.real import ask, crowd

pytestmark = real.vllm
SMALL = ["--max-num-seqs", "2", "--max-num-queued-reqs", "4"]  # vLLM counts running ones as queued too


@pytest.fixture(scope="module")
def replicas() -> Iterator[list[server.Server]]:
    """Two replicas that compute two answers each and let two more wait."""
    router.make_environment(here())
    started: list[server.Server] = []
    try:
        for _ in range(2):
            started.append(server.start(here(), "tiny", 0, profile.load("ci"), alone=False, extra=SMALL))
        for one in started:
            server.wait_ready(one)
        yield started
    finally:
        for one in started:
            server.stop(here(), one)


def routed(
    replicas: list[server.Server], policy: str, balance: int = router.BALANCE
) -> Iterator[server.Server]:
    front = router.start(here(), replicas, 0, policy, balance)
    try:
        yield front
    finally:
        server.stop(here(), front)
        assert members(front.group) == ()


@pytest.fixture(scope="module")
def turns(replicas: list[server.Server]) -> Iterator[server.Server]:
    """A router that takes the replicas in turn."""
    yield from routed(replicas, "round_robin")


@pytest.fixture(scope="module")
def aware(replicas: list[server.Server]) -> Iterator[server.Server]:
    """A router that knows prompts and balances as soon as one replica is busier."""
    yield from routed(replicas, "cache_aware", balance=0)


def work_of(replicas: list[server.Server], root: str, texts: list[str]) -> list[Work]:
    """What each replica did while ``texts`` were asked one after the other."""
    before = [scrape(one.root) for one in replicas]
    assert [ask(root, text).status for text in texts] == [200] * len(texts)
    return [between(old, scrape(one.root)) for old, one in zip(before, replicas, strict=True)]


def conversations(name: str) -> list[str]:
    """Five long beginnings, asked four times each, so that taking turns splits each over both replicas."""
    beginnings = [f"{name} article {number} says this and that. " * 60 for number in range(5)]
    return [f"{beginnings[turn % 5]} question {turn}" for turn in range(20)]


def test_prefix_aware_routing_prefills_less(
    replicas: list[server.Server], turns: server.Server, aware: server.Server
) -> None:
    """Taking turns, each replica prefills each beginning once; prefix-aware, each is prefilled once in all."""
    apart = work_of(replicas, turns.root, conversations("turns"))
    together = work_of(replicas, aware.root, conversations("aware"))
    assert [one.finished for one in apart] == [10, 10]
    assert sum(one.finished for one in together) == 20
    hits = [sum(one.cached_tokens for one in works) for works in (apart, together)]
    assert hits[1] > 1.2 * hits[0] > 0


def test_a_full_replica_spills_to_the_other(replicas: list[server.Server], turns: server.Server) -> None:
    """While one replica is full and refuses with 503, requests through the router are all answered, by the other."""
    full, other = replicas
    with crowd(full.root, 8):
        before = [scrape(one.root) for one in replicas]
        replies = [ask(turns.root, f"spill {number}") for number in range(10)]
        refused, spilled = between(before[0], scrape(full.root)), between(before[1], scrape(other.root))
    assert [reply.status for reply in replies] == [200] * 10
    assert refused.refused >= 4, "half of them were sent to the full one first"
    assert spilled.finished > 7


def test_both_full_is_503_and_soon_over(replicas: list[server.Server], aware: server.Server) -> None:
    """A crowd with one beginning uses both replicas; who finds no room is told 503; afterwards all is well."""
    before = [scrape(one.root) for one in replicas]
    with crowd(aware.root, 16, 300) as statuses:
        time.sleep(2)
    done = [between(old, scrape(one.root)) for old, one in zip(before, replicas, strict=True)]
    assert set(statuses) == {200, 503}
    assert all(one.finished > 0 and one.refused > 0 for one in done), "balance beats prefixes under load"
    assert sum(one.finished for one in done) == statuses.count(200)
    assert ask(aware.root, "after the crowd").status == 200


def test_the_count_and_the_policy_are_checked_first() -> None:
    """A count or policy that cannot be is refused before anything starts."""
    for count, policy, said in (
        (0, "random", "--count 0"),
        (99, "random", "--count 99"),
        (2, "best", "--policy best"),
    ):
        with (
            pytest.raises(EngineError, match=said),
            router.replicated(here(), "tiny", profile.load("ci"), count=count, port=0, policy=policy),
        ):
            pass


def test_a_replica_that_dies_is_left_out(replicas: list[server.Server], turns: server.Server) -> None:
    """kill -9 of one whole replica: requests through the router are answered by the other (last of this file)."""
    assert not end_group(replicas[0].group, 0.5)
    assert [ask(turns.root, f"alone {number}").status for number in range(6)] == [200] * 6


def test_kill_9_of_the_command_leaves_nothing() -> None:
    """`replicas` as a user starts it answers on one address; kill -9 of it ends the router and both replicas."""
    with subprocess.Popen(
        [sys.executable, "-m", "serving.engine", "replicas", "--model", "tiny", "--port", "0"],
        cwd=real.REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        said = ""
        for line in process.stdout:
            said += line
            if line.startswith("base URL"):
                break
        ports = [int(port) for port in re.findall(r"http://127\.0\.0\.1:(\d+)/v1", said)]
        assert len(ports) == 3, said
        groups = [one.group for one in server.running(here()) if one.port in ports]
        assert ask(f"http://127.0.0.1:{ports[-1]}", "through the router").status == 200
        process.kill()
    deadline = time.monotonic() + 40
    while any(members(group) for group in groups) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert len(groups) == 3 and not any(members(group) for group in groups)
