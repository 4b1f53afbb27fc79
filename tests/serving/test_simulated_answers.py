"""The simulated server's answers, with the real process and a real client."""

from __future__ import annotations

import time
from pathlib import Path

import openai
import pytest

from serving.simulated.timing import PrefixCache
from tests.serving.simulators import FIXED, body, serving


def test_sdk_stream_and_plain_answer(tmp_path: Path) -> None:
    """The OpenAI SDK reads both kinds of answer, usage last in a stream, with ids that name the log's row."""
    with serving(tmp_path, "--output-tokens-mean", "7", *FIXED) as server, server.sdk() as sdk:
        plain = sdk.chat.completions.create(**body())
        chunks = list(
            sdk.chat.completions.create(**body(), stream=True, stream_options={"include_usage": True})
        )
        bare = list(sdk.chat.completions.create(**body(), stream=True))
        assert [model.id for model in sdk.models.list()] == ["simulated"]
        rows = server.truth()
    assert plain.choices[0].message.content and plain.choices[0].finish_reason == "stop"
    assert plain.usage and plain.usage.completion_tokens == 7
    assert plain.usage.total_tokens == plain.usage.prompt_tokens + 7
    assert chunks[0].choices[0].delta.role == "assistant" and chunks[0].choices[0].delta.content == ""
    assert sum(bool(chunk.choices and chunk.choices[0].delta.content) for chunk in chunks) == 7
    assert chunks[-2].choices[0].finish_reason == "stop" and chunks[-1].choices == []
    assert chunks[-1].usage and chunks[-1].usage.completion_tokens == 7
    assert all(chunk.usage is None for chunk in bare) and bare[-1].choices[0].finish_reason == "stop"
    assert [row["id"] for row in rows] == [plain.id, chunks[0].id, bare[0].id]


def test_chunks_and_early_role(tmp_path: Path) -> None:
    """Five tokens come in one chunk due with its last; an early role chunk does not wait for prefill."""
    options = ["--tokens-per-chunk", "5", "--role-chunk-early", "--prefill-base-ms", "300"]
    with serving(tmp_path, *options, "--output-tokens-mean", "12", *FIXED) as server, server.sdk() as sdk:
        began = time.perf_counter()
        stream = sdk.chat.completions.create(**body(), stream=True)
        role = next(stream)
        early = time.perf_counter() - began
        texts = [text for chunk in stream if (text := chunk.choices[0].delta.content)]
        (row,) = server.truth()
    assert role.choices[0].delta.role == "assistant" and early < 0.28
    assert [len(text.split()) for text in texts] == [5, 5, 2]
    prefill = 0.300 + 0.00005 * row["prompt_tokens"]
    assert row["first_token"] - row["start"] == pytest.approx(prefill + 4 * 0.010, abs=2e-6)


def test_repeated_prefix_is_cached_and_prefills_faster(tmp_path: Path) -> None:
    """A shared beginning counts as cached in whole blocks, shortens prefill, and is evicted."""
    options = ["--prefix-cache-blocks", "40", "--block-tokens", "16", "--prefill-ms-per-token", "1"]
    shared = "alpha beta gamma delta " * 50
    with serving(tmp_path, *options, "--output-tokens-mean", "2", *FIXED) as server, server.sdk() as sdk:

        def cached(text: str) -> int:
            usage = sdk.chat.completions.create(**body(text)).usage
            assert usage and usage.prompt_tokens_details
            return usage.prompt_tokens_details.cached_tokens or 0

        counts = [
            cached(shared + "one"),
            cached(shared + "two"),
            cached("other " * 640),
            cached(shared + "three"),
        ]
        rows = server.truth()
    assert counts == [0, 192, 0, 0]
    assert [row["cached_tokens"] for row in rows] == counts
    for row in rows:
        uncached = row["prompt_tokens"] - row["cached_tokens"]
        assert row["first_token"] - row["start"] == pytest.approx(0.020 + 0.001 * uncached, abs=2e-6)


def test_prefix_cache_forgets_the_tail_of_a_prompt_first() -> None:
    """When one block too many comes, the last block of the oldest prompt goes and its shared head stays."""
    cache = PrefixCache(blocks=3, block_tokens=1)
    assert [cache.use(prompt) for prompt in ("abc", "x", "abz")] == [0, 0, 2]


def test_seed_decides_text_length_and_fault(tmp_path: Path) -> None:
    """Two runs with one seed give equal answers and faults in order; another seed gives others."""

    def run(seed: str) -> list[object]:
        arguments = ["--seed", seed, "--fault", "error500:0.3", "--speed", "50", "--output-tokens-mean", "8"]
        seen: list[object] = []
        with serving(tmp_path, *arguments) as server, server.sdk() as sdk:
            for _ in range(20):
                try:
                    seen.append(sdk.chat.completions.create(**body()).choices[0].message.content)
                except openai.InternalServerError:
                    seen.append(500)
        return seen

    first = run("1")
    assert first == run("1") and first != run("2")
    assert 500 in first and len({len(str(text).split()) for text in first}) > 4
