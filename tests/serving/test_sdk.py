"""Wrapped calls of the real OpenAI SDK over a real socket: a hit is what came from the server."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletion, ChatCompletionChunk

import costkit
from serving.simulated.run import running
from tests import wrapping

ROOT = Path(__file__).parents[2]
ASKED = "How long do refunds take?"
MODEL = "gpt-5-mini"


@pytest.fixture(scope="module")
def base_url() -> Iterator[str]:
    with running("--model", MODEL) as url:
        yield url


kit = wrapping.kit


def test_a_completion_comes_back_as_it_was(base_url: str, kit: costkit.Kit) -> None:
    """A hit is an equal ChatCompletion, request id included, at no cost, and the first call's cost is the saving."""
    client = OpenAI(base_url=base_url, api_key="none")

    @kit.call(costkit.exact(), scope=None)
    def ask(question: str, model: str = MODEL) -> ChatCompletion:
        return client.chat.completions.create(model=model, messages=[{"role": "user", "content": question}])

    first, second = ask.outcome(ASKED), ask.outcome(ASKED)
    assert (first.saving, second.saving) == (None, "exact")
    assert type(second.value) is ChatCompletion and second.value == first.value
    assert second.value._request_id == first.value._request_id is not None
    assert second.cost.provider == 0 < first.cost.provider == second.cost.saving


def test_a_completion_comes_back_in_another_process(base_url: str, tmp_path: Path) -> None:
    """Two runs of one script share the folder: the second is answered from it."""
    code = (
        "import costkit; from openai import OpenAI\n"
        f"client = OpenAI(base_url={base_url!r}, api_key='none')\n"
        "kit = costkit.Kit('kit')\n"
        "@kit.call(costkit.exact(), scope=None, version='1')\n"
        f"def ask(q, model={MODEL!r}):\n"
        "    return client.chat.completions.create(model=model, messages=[{'role': 'user', 'content': q}])\n"
        "out = ask.outcome('hi'); print(out.saving, out.value.choices[0].message.content)"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True,
            env={"PYTHONPATH": str(ROOT), "PATH": ""},
        ).stdout
        for _ in range(2)
    ]  # fmt: skip
    assert runs[0].startswith("None ") and runs[1] == "exact " + runs[0].removeprefix("None ")


def test_a_stream_comes_back_chunk_by_chunk(base_url: str, kit: costkit.Kit) -> None:
    """A replayed stream has the same chunks, usage chunk included; its usage priced the first one."""
    client = OpenAI(base_url=base_url, api_key="none")

    @kit.call(costkit.exact(), scope=None)
    def ask(question: str, model: str = MODEL) -> Iterator[ChatCompletionChunk]:
        yield from client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": question}], stream=True,
            stream_options={"include_usage": True}, max_tokens=2000,
        )  # fmt: skip

    streams = [ask.outcome(ASKED) for _ in range(2)]
    first, second = (list(stream) for stream in streams)
    assert [c.model_dump() for c in second] == [c.model_dump() for c in first] and first[-1].usage is not None
    outcomes = [stream.outcome for stream in streams]
    assert outcomes[0] is not None and outcomes[1] is not None
    assert (outcomes[0].saving, outcomes[1].saving) == (None, "exact")
    assert outcomes[1].cost.saving == outcomes[0].cost.provider > 0


def test_async_calls_and_streams_come_back(base_url: str, kit: costkit.Kit) -> None:
    """The same holds for AsyncOpenAI, whole and streamed."""

    async def run() -> None:
        async with AsyncOpenAI(base_url=base_url, api_key="none") as client:

            @kit.call(costkit.exact(), scope=None)
            async def ask(question: str, model: str = MODEL) -> ChatCompletion:
                return await client.chat.completions.create(
                    model=model, messages=[{"role": "user", "content": question}]
                )

            @kit.call(costkit.exact(), scope=None)
            async def stream(question: str, model: str = MODEL) -> AsyncIterator[ChatCompletionChunk]:
                opened = await client.chat.completions.create(
                    model=model, messages=[{"role": "user", "content": question}], stream=True
                )
                async for chunk in opened:
                    yield chunk

            first, second = await ask.outcome(ASKED), await ask.outcome(ASKED)
            assert second.saving == "exact" and second.value == first.value
            chunks = [[c.model_dump() async for c in stream(ASKED)] for _ in range(2)]
            assert chunks[0] == chunks[1]

    asyncio.run(run())
    rows = (
        kit.ledger()
        .execute("SELECT saved_by, COUNT(*) FROM queries GROUP BY saved_by ORDER BY saved_by")
        .fetchall()
    )
    assert [tuple(row) for row in rows] == [(None, 2), ("exact", 2)]
