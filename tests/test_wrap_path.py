"""Wrapped SDK clients take the whole path of a wrapped function: budgets, stale answers, recent failures, timing."""

from __future__ import annotations

import threading
import time
from typing import Any

import anthropic
import openai
import pytest

import costkit
from costkit.errors import BudgetExceeded, ConfigError, RecentFailure
from tests import wrapping
from tests.scripted import Script
from tests.wrapping import GPT, Caller, create, rows, sdk_of, until

pytestmark = wrapping.QUIET
caller = wrapping.caller
kit = wrapping.kit
script = wrapping.script
server = wrapping.server


def limited(api: str, client: Any, what: str, **more: Any) -> Any:
    """A call with a limit of its output, by each API's own name for it."""
    name = {"chat": "max_completion_tokens", "responses": "max_output_tokens"}.get(api, "max_tokens")
    return create(api, client, what, **{name: 2000}, **more)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("api", ["chat", "responses", "messages"])
def test_a_budget_refuses_before_anything_is_sent(
    api: str, stream: bool, script: Script, kit: costkit.Kit, caller: Caller
) -> None:
    """What does not fit is refused by ``create`` itself, as BudgetExceeded; what fits is held, then settled."""
    client = caller.client(sdk_of(api), script.url)
    small = kit.wrap(client, costkit.exact(), scope=None, budget="0.0000001 USD")
    with pytest.raises(BudgetExceeded):
        caller.run(limited(api, small, "text", stream=stream))
    assert script.asked == [] and rows(kit, "error") == ["BudgetExceeded"]
    enough = kit.wrap(client, costkit.exact(), scope=None, budget="5 USD/day", name="enough")
    for _ in range(2):
        got = limited(api, enough, "text", stream=stream)
        assert caller.listed(got) if stream else caller.run(got)
    assert rows(kit)[1:] == [None, "exact"] and len(script.asked) == 1
    reserved, paid = rows(kit, "reserved, provider_cost")[1]
    assert reserved > paid > 0
    spent, held = kit.ledger().execute("SELECT spent, held FROM budgets").fetchone()
    assert (spent, held) == (paid, 0)


def test_what_a_budget_needs_to_know(script: Script, kit: costkit.Kit, caller: Caller) -> None:
    """Without an output limit a call is refused unless max_cost says it; embeddings need no limit."""
    client = caller.client("openai", script.url)
    capped = kit.wrap(client, costkit.exact(), scope=None, budget="1 USD/day")
    with pytest.raises(ConfigError, match="max_completion_tokens"):
        caller.run(create("chat", capped, "text"))
    assert script.asked == []
    caller.run(capped.embeddings.create(model="text-embedding-3-small", input="hi"))
    given: list[dict[str, Any]] = []

    def most(**fields: Any) -> str:
        given.append(fields)
        return "0.01 USD"

    said = kit.wrap(client, scope=None, budget="1 USD/day", max_cost=most, name="said")
    caller.run(create("chat", said, "text"))
    assert given == [script.asked[-1].body] and rows(kit, "reserved")[-1] == 10_000_000


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_stale_answers_are_served_while_one_call_renews_them(
    stream: bool, script: Script, kit: costkit.Kit
) -> None:
    """After its ttl an answer comes at once, and one call in the background makes a new one."""
    client = openai.OpenAI(base_url=script.url + "/v1", api_key="k")
    wrapped = kit.wrap(client, costkit.exact(ttl=0.3, stale=60), scope=None)

    def ask() -> str:
        response = wrapped.chat.completions.with_raw_response.create(
            model=GPT, messages=[{"role": "user", "content": "text"}], stream=stream
        )
        told = response.parse()
        assert list(told)
        return str(response.headers.get("x-left", "hit"))

    assert ask() == "41"
    time.sleep(0.35)
    assert ask() == "hit"
    until(lambda: rows(kit, "role").count("refresh") == 1)
    assert ask() == "hit" and len(script.asked) == 2
    assert [row for row in rows(kit, "saved_by, role") if row[1] == "call"] == [
        (None, "call"),
        ("stale", "call"),
        ("exact", "call"),
    ]


def test_a_recent_failure_is_not_repeated(script: Script, kit: costkit.Kit, caller: Caller) -> None:
    """With negative= a failure is remembered for a moment: the next identical call raises without asking."""
    wrapped = kit.wrap(caller.client("anthropic", script.url), costkit.exact(negative="1m"), scope=None)
    with pytest.raises(anthropic.InternalServerError):
        caller.run(create("messages", wrapped, "status 500"))
    for _ in range(2):
        with pytest.raises(RecentFailure, match="InternalServerError"):
            caller.run(create("messages", wrapped, "status 500"))
    assert len(script.asked) == 1


def test_ttft_is_that_of_the_first_event(script: Script, kit: costkit.Kit) -> None:
    """The time to the first token runs to the first event, for the leader and for who follows it, not to the head."""
    script.pause = 0.4
    wrapped = kit.wrap(openai.OpenAI(base_url=script.url + "/v1", api_key="k"), costkit.exact(), scope=None)

    def read() -> None:
        assert list(create("chat", wrapped, "text", stream=True))

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
        until(lambda: len(script.asked) == 1)
    for thread in threads:
        thread.join()
    found = rows(kit, "ttft, saved_by")
    assert {saved for _, saved in found} == {None, "coalesced"} and all(ttft > 0.2 for ttft, _ in found)


def test_a_refused_call_costs_nothing(script: Script, kit: costkit.Kit, caller: Caller) -> None:
    """A provider's error and a connection that was never made are free; both are known, not missing."""
    nowhere = kit.wrap(caller.client("openai", "http://127.0.0.1:9"), scope=None)
    here = kit.wrap(caller.client("openai", script.url), scope=None)
    for client, kind in ((here, openai.RateLimitError), (nowhere, openai.APIConnectionError)):
        with pytest.raises(kind):
            caller.run(create("chat", client, "status 429"))
    assert rows(kit, "provider_cost, unknown_costs") == [(0, 0), (0, 0)]
