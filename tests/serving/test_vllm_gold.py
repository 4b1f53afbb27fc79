"""A real vLLM with SmolLM2 in float32 on gold items: the same text whoever else is asking; and the cheap tier."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from serving.assistant.workflow import Assistant, verify
from serving.engine import server
from serving.engine.layout import SERVED_NAMES, here
from tests.serving import real

pytestmark = real.vllm
ASSISTANT = Path(__file__).parents[2] / "serving" / "assistant"
MODEL = SERVED_NAMES["smollm2"]
ITEMS = 20


@pytest.fixture(scope="module")
def smollm2() -> Iterator[server.Server]:
    """SmolLM2 in profile "ci"; stopped whatever happened."""
    with real.served("--model smollm2") as found:
        yield found


def gold() -> list[dict[str, Any]]:
    """The first gold items that need the model, from every file in turn."""
    items = [
        {**test, "file": file.stem}
        for file in sorted((ASSISTANT / "gold").glob("*.toml"))
        for test in tomllib.loads(file.read_text(encoding="utf-8"))["test"]
    ]
    assistant = Assistant(ASSISTANT / "docs", _never)
    asked = [{**one, "body": assistant.request(one["question"], one["tenant"])} for one in items]
    asked = [one for one in asked if one["body"] is not None]
    return asked[:: max(1, len(asked) // ITEMS)][:ITEMS]


def _never(*_: object, **__: object) -> None:
    raise AssertionError("the assistant only writes the requests")


def bodies() -> list[dict[str, Any]]:
    """Each gold item as the assistant asks it, answers limited to sentences, and as free text, where nothing is."""
    guided = [one["body"] for one in gold()]
    free = [{name: value for name, value in body.items() if name != "response_format"} for body in guided]
    return [*guided, *({**body, "max_tokens": 24} for body in free)]


def texts(root: str, asked: list[dict[str, Any]], at_once: int) -> list[str]:
    """The answers, ``at_once`` requests in flight at a time."""
    with ThreadPoolExecutor(at_once) as pool:
        replies = list(pool.map(lambda body: real.post(root, body), asked))
    assert {reply.status for reply in replies} == {200}
    return [reply.text for reply in replies]


def test_float32_says_the_same_at_any_load(smollm2: server.Server) -> None:
    """40 greedy answers to gold items are the same text at concurrency 1 and 8, guided and free."""
    asked = bodies()
    assert len(asked) == 2 * ITEMS
    alone = texts(smollm2.root, asked, 1)
    assert len(set(alone)) > ITEMS / 2, "the answers differ from item to item"
    assert texts(smollm2.root, asked, 8) == alone


def test_the_gold_items_are_not_out_of_reach(smollm2: server.Server) -> None:
    """Of the items some are answered right and every guided answer is a sentence of its article."""
    items = gold()
    assistant = Assistant(ASSISTANT / "docs", _never)
    right = 0
    for item, text in zip(items, texts(smollm2.root, [one["body"] for one in items], 8), strict=True):
        plan = assistant.plan(item["question"], item["tenant"])
        assert isinstance(plan, tuple)
        answer = verify(text, plan[1], ())
        assert answer.quote_ok or answer.refused
        right += bool(answer.citations) and set(answer.citations) <= set(item.get("cite", ()))
    assert right >= 5


@pytest.mark.skipif(
    not here().model("cheap").exists(), reason="optional: python3 -m serving.engine setup --also cheap"
)
def test_the_cheap_tier_is_another_model() -> None:
    """The depth-pruned tier answers under its own name, on the same tokenizer, with text of its own."""
    name = SERVED_NAMES["cheap"]
    with real.served("--model cheap") as found:
        asked = [{**one["body"], "model": name} for one in gold()[:6]]
        free = [{key: value for key, value in body.items() if key != "response_format"} for body in asked]
        said = texts(found.root, [*asked, *free], 4)
        assert real.post(found.root, {**asked[0], "model": MODEL}).status == 404
    assert all(text.strip() for text in said)


@pytest.mark.skipif(
    not here().model("gemma").exists(), reason="opt-in, for its terms: see serving/engine/gemma.py"
)
def test_gemma_answers_in_one_line() -> None:
    """Where a person has set gemma-3-270m up, it answers a question in one line and stops by itself."""
    with real.served("--model gemma") as found:
        reply = real.ask(
            found.root, "Refunds take 14 days. How long do refunds take?", 24, model=SERVED_NAMES["gemma"]
        )
    assert reply.body["choices"][0]["finish_reason"] == "stop"
    assert "14" in reply.text and "\n" not in reply.text.strip()
