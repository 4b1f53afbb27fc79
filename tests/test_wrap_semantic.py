"""The semantic tier on a wrapped SDK client: its messages are the claimed text, its answers stay the SDK's own."""

from __future__ import annotations

from typing import Any

import pytest

import costkit
from costkit.errors import ConfigError
from tests.meanings import AUDIT, SERVE, SURE, evidence, meaning, opened
from tests.scripted import Script
from tests.wrapping import GPT, QUIET, Caller, caller, create, kit, rows, script, sdk_of, server

__all__ = ["caller", "kit", "script", "server"]

FIELD = {"chat": "messages", "completions": "prompt", "responses": "input", "messages": "messages"}
ONE, OTHER = "how do I get a refund", "how do I get my refund"


class Opened:
    """What ``opened`` needs of a wrapped function, for a client's calls of one API."""

    def __init__(self, client: Any, api: str, stream: bool) -> None:
        asked = client.request.__closure__
        route = next(c.cell_contents for c in asked if hasattr(c.cell_contents, "plans"))
        path = {
            "chat": "/chat/completions", "completions": "/completions", "responses": "/responses",
            "messages": "/v1/messages",
        }[api]  # fmt: skip
        self._plan = route.plans[path, stream]


def model_of(api: str) -> str:
    from tests.wrapping import CLAUDE

    return CLAUDE if api == "messages" else GPT


@QUIET
@pytest.mark.parametrize("api", list(FIELD))
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_served_and_audited(kit: costkit.Kit, script: Script, caller: Caller, api: str, stream: bool) -> None:
    """Another wording is answered as the SDK's own object or stream, without a request; an audit makes one."""
    client = kit.wrap(
        caller.client(sdk_of(api), script.url),
        costkit.exact(ttl="1d"),
        meaning(FIELD[api]),
        **SURE,
        scope=None,
    )

    def ask(what: str) -> Any:
        if stream:
            return [chunk.to_dict() for chunk in caller.listed(create(api, client, what, stream=True))]
        return caller.run(create(api, client, what)).to_dict()

    first = ask(ONE)
    tended = opened(kit, Opened(client, api, stream), model=model_of(api))
    assert ask(OTHER) == first and len(script.asked) == 1
    tended._random = AUDIT  # type: ignore[assignment]
    ask(OTHER)
    assert len(script.asked) == 2 and rows(kit) == [None, "semantic", None]
    kinds = [(row["kind"], row["wrong"]) for row in evidence(kit)]
    assert kinds[:2] == [("none", None), ("served", None)] and kinds[2][0] == "audit"


@QUIET
def test_embeddings_have_no_meaning_tier(kit: costkit.Kit, script: Script, caller: Caller) -> None:
    """A text's vector is never another text's, whatever field is claimed."""
    client = kit.wrap(
        caller.client("openai", script.url), costkit.exact(), meaning("input"), **SURE, scope=None
    )
    for what in (ONE, OTHER):
        caller.run(client.embeddings.create(model="text-embedding-3-small", input=what))
    assert evidence(kit) == [] and rows(kit) == [None, None] and len(script.asked) == 2


@QUIET
def test_judges_and_admit_see_json(kit: costkit.Kit, script: Script, caller: Caller) -> None:
    """The judge and semantic(admit=) are shown the answer's JSON as a dict."""
    seen: list[Any] = []

    def judge(served: Any, reference: Any) -> bool:
        seen.append((served, reference))
        return True

    def admit(answer: Any) -> bool:
        seen.append(answer)
        return True

    client = kit.wrap(
        caller.client("openai", script.url), meaning("messages", admit=admit), max_error=0.3,
        judge=costkit.judges.asked(judge, name="mine", version="1", defines=True), scope=None,
    )  # fmt: skip
    for what in (ONE, OTHER):
        caller.run(create("chat", client, what))
    kit.close()
    assert len(seen) == 3 and all(
        part["object"] == "chat.completion"
        for one in seen
        for part in (one if isinstance(one, tuple) else (one,))
    )


@QUIET
def test_another_system_prompt(kit: costkit.Kit, script: Script, caller: Caller) -> None:
    """What differs besides the last message's text, in messages or in another field, is another namespace."""
    client = kit.wrap(caller.client("openai", script.url), meaning("messages"), **SURE, scope=None)
    caller.run(create("chat", client, ONE))
    opened(kit, Opened(client, "chat", False), coin=SERVE, model=GPT)
    caller.run(create("chat", client, OTHER, temperature=0.5))
    messages = [{"role": "system", "content": "Be rude"}, {"role": "user", "content": OTHER}]
    caller.run(client.chat.completions.create(model=GPT, messages=messages))
    assert rows(kit) == [None, None, None]
    caller.run(create("chat", client, OTHER))
    assert rows(kit)[-1] == "semantic"


def test_wrong_settings(kit: costkit.Kit, script: Script, caller: Caller) -> None:
    """A bound or judge that is missing is refused where the client is wrapped."""
    client = caller.client("openai", script.url)
    with pytest.raises(ConfigError, match=r"kit.wrap\(max_error=...\)"):
        kit.wrap(client, meaning("messages"), judge=costkit.judges.same_answer, scope=None)
    with pytest.raises(ConfigError, match="judge=None"):
        kit.wrap(client, meaning("messages"), max_error=0.1, scope=None)
    with pytest.raises(ConfigError, match="only a lossy saving takes it"):
        kit.wrap(client, costkit.exact(), max_error=0.1, scope=None)
