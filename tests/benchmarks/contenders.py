"""What a hit costs in one cache, in a process of its own: `python -m tests.benchmarks.contenders NAME FOLDER`.

Run by :mod:`tests.benchmarks.peers` with the interpreter of that cache's own environment, so that nothing but the
standard library is imported up here. On standard output: one JSON line once the cache is warm, then for every
number read from standard input one line with that many timings, in nanoseconds. Every timing is one whole hit as
its users call it, the request handed over as Python objects and the answer's text read out of what comes back.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

Hit = Callable[[], str]

MODEL = "gpt-4o-mini"
FACTS = "Article {0} may be returned within {0} days; shelf {0} of the annex holds the form for it. "
SYSTEM = "Answer from the passages below, briefly. " + "".join(FACTS.format(n) for n in range(100, 113))
QUESTION = "A customer asks what holds for these: " + "".join(FACTS.format(n) for n in range(200, 214))
ANSWER = "The customer has these days: " + "".join(FACTS.format(n) for n in range(300, 311))
MESSAGES = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTION}]


class Upstream:
    """The model that is not there: counts how often it was needed."""

    def __init__(self) -> None:
        self.calls = 0

    def answer(self, *_: Any, **__: Any) -> str:
        self.calls += 1
        return ANSWER


def costkit(folder: str, upstream: Upstream) -> Hit:
    """A wrapped function that returns text: scope, exact tier on disk, one ledger row a call."""
    kit = importlib.import_module("costkit")

    @kit.Kit(folder).call(kit.exact(ttl="1d"), scope="tenant")
    def ask(messages: list[dict[str, str]], *, model: str, tenant: str) -> str:
        return upstream.answer()

    return lambda: str(ask(MESSAGES, model=MODEL, tenant="acme"))


def costkit_completion(folder: str, upstream: Upstream) -> Hit:
    """The same, returning the OpenAI SDK's ChatCompletion: what LiteLLM and LangChain give back is an object too."""
    kit, chat = importlib.import_module("costkit"), importlib.import_module("openai.types.chat")

    @kit.Kit(folder).call(kit.exact(ttl="1d"), scope="tenant")
    def ask(messages: list[dict[str, str]], *, model: str, tenant: str) -> Any:
        return chat.ChatCompletion.model_validate(completion(upstream))

    return lambda: str(ask(MESSAGES, model=MODEL, tenant="acme").choices[0].message.content)


def completion(upstream: Upstream) -> dict[str, Any]:
    """A chat completion as the API writes it."""
    message = {"role": "assistant", "content": upstream.answer()}
    usage = {"prompt_tokens": 700, "completion_tokens": 250, "total_tokens": 950}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1_700_000_000, "model": MODEL}
    return {**head, "choices": [choice], "usage": usage}


def costkit_wrap(folder: str, upstream: Upstream) -> Hit:
    """``kit.wrap(OpenAI())``: the SDK's own call, the answer out of the cache."""
    kit = importlib.import_module("costkit")
    client = kit.Kit(folder).wrap(sdk(upstream), kit.exact(ttl="1d"), scope=None)
    return lambda: str(
        client.chat.completions.create(model=MODEL, messages=MESSAGES).choices[0].message.content
    )


def openai_sdk(folder: str, upstream: Upstream) -> Hit:
    """No cache at all: the bare SDK over a transport that answers at once, in this process. No hit, a floor."""
    client = sdk(upstream)
    return lambda: str(
        client.chat.completions.create(model=MODEL, messages=MESSAGES).choices[0].message.content
    )


def sdk(upstream: Upstream) -> Any:
    """An OpenAI client without a network below it."""
    openai, base = importlib.import_module("openai"), importlib.import_module("openai._base_client")
    http = getattr(base, "httpx2", None) or base.httpx  # what the SDK calls over: httpx2 since its version 3
    transport = http.MockTransport(lambda request: http.Response(200, json=completion(upstream)))
    return openai.OpenAI(api_key="none", http_client=http.Client(transport=transport), max_retries=0)


def diskcache(folder: str, upstream: Upstream) -> Hit:
    """Raw diskcache; the request's JSON is the key."""
    cache = importlib.import_module("diskcache").Cache(folder)
    cache.set(json.dumps(MESSAGES), upstream.answer(), expire=86400)
    return lambda: str(cache.get(json.dumps(MESSAGES)))


def memoize(folder: str, upstream: Upstream) -> Hit:
    """diskcache's memoize; its arguments must be hashable or picklable, so the messages go in as JSON."""
    cache = importlib.import_module("diskcache").Cache(folder)

    @cache.memoize(expire=86400)
    def ask(messages: str, *, model: str, tenant: str) -> str:
        return upstream.answer()

    return lambda: str(ask(json.dumps(MESSAGES), model=MODEL, tenant="acme"))


def litellm(folder: str, upstream: Upstream) -> Hit:
    """`litellm.completion(caching=True)` with its default cache, which lives in this process's memory."""
    return _litellm(upstream, type="local")


def litellm_disk(folder: str, upstream: Upstream) -> Hit:
    """The same with its disk cache."""
    return _litellm(upstream, type="disk", disk_cache_dir=folder)


def _litellm(upstream: Upstream, **cache: Any) -> Hit:
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else importing it downloads a price list
    module: Any = importlib.import_module("litellm")
    module.telemetry = False
    module.cache = importlib.import_module("litellm.caching.caching").Cache(**cache)
    upstream.answer()

    def hit() -> str:
        answer = module.completion(model=MODEL, messages=MESSAGES, caching=True, mock_response=ANSWER)
        upstream.calls += not (warm and answer.id == warm[0])
        warm[:] = warm or [answer.id]
        return str(answer.choices[0].message.content)

    warm: list[str] = []
    hit()
    time.sleep(0.5)  # LiteLLM stores the answer from another thread, after it has returned it
    upstream.calls = 1
    return hit


def langchain_sqlite(folder: str, upstream: Upstream) -> Hit:
    """`invoke` of a chat model under LangChain's SQLiteCache."""
    messages = importlib.import_module("langchain_core.messages")
    models = importlib.import_module("langchain_core.language_models.chat_models")
    results = importlib.import_module("langchain_core.outputs")
    cache = importlib.import_module("langchain_community.cache").SQLiteCache(f"{folder}/langchain.db")

    class Model(models.BaseChatModel):  # type: ignore[misc, name-defined]
        """A chat model without a model."""

        model: str = MODEL

        @property
        def _llm_type(self) -> str:
            return "none"

        def _generate(self, *_: Any, **__: Any) -> Any:
            message = messages.AIMessage(content=upstream.answer())
            return results.ChatResult(generations=[results.ChatGeneration(message=message)])

    model = Model(cache=cache)
    asked = [messages.SystemMessage(SYSTEM), messages.HumanMessage(QUESTION)]
    return lambda: str(model.invoke(asked).content)


def gptcache_exact(folder: str, upstream: Upstream) -> Hit:
    """GPTCache's own start: `gptcache.adapter.openai` over its map, which lives in memory and counts what was saved.

    Its defaults are kept: the key is the last message's text alone, model and system prompt are not in it.
    """
    cache = _gptcache(folder)
    chat = importlib.import_module("gptcache.adapter.openai").ChatCompletion
    chat.llm = staticmethod(lambda *_, **__: completion(upstream))
    return lambda: str(
        chat.create(model=MODEL, messages=MESSAGES, cache_obj=cache)["choices"][0]["message"]["content"]
    )


def gptcache_map(folder: str, upstream: Upstream) -> Hit:
    """The map below it, bare: no response is built and no token counted; the key is the last message's text alone."""
    cache = _gptcache(folder)
    adapt = importlib.import_module("gptcache.adapter.adapter").adapt

    def keep(answer: str, update: Callable[[str], None], *_: Any, **__: Any) -> str:
        update(answer)
        return answer

    return lambda: str(
        adapt(upstream.answer, lambda text: text, keep, messages=MESSAGES, model=MODEL, cache_obj=cache)
    )


def _gptcache(folder: str) -> Any:
    cache = importlib.import_module("gptcache").Cache()
    manager = importlib.import_module("gptcache.manager").get_data_manager
    cache.init(data_manager=manager(data_path=f"{folder}/map.pickle", max_size=1000))
    return cache


HITS: dict[str, Callable[[str, Upstream], Hit]] = {
    made.__name__: made
    for made in (
        costkit, costkit_completion, costkit_wrap, openai_sdk, diskcache, memoize, litellm, litellm_disk,
        langchain_sqlite, gptcache_exact, gptcache_map,
    )
}  # fmt: skip


def timed(hit: Hit, calls: int) -> list[int]:
    """Nanoseconds of single hits; each must bring the answer."""
    taken = []
    for _ in range(calls):
        start = time.perf_counter_ns()
        text = hit()
        taken.append(time.perf_counter_ns() - start)
        assert text == ANSWER, "another answer came back"
    return taken


def costkit_async(folder: str, upstream: Upstream) -> Callable[[int], list[int]]:
    """:func:`costkit` as a coroutine function, awaited one call after the other in one task."""
    kit = importlib.import_module("costkit")
    runner = asyncio.Runner()

    @kit.Kit(folder).call(kit.exact(ttl="1d"), scope="tenant")
    async def ask(messages: list[dict[str, str]], *, model: str, tenant: str) -> str:
        return upstream.answer()

    async def batch(call: Callable[..., Awaitable[str]], calls: int) -> list[int]:
        taken = []
        for _ in range(calls):
            start = time.perf_counter_ns()
            text = await call(MESSAGES, model=MODEL, tenant="acme")
            taken.append(time.perf_counter_ns() - start)
            assert text == ANSWER, "another answer came back"
        return taken

    return lambda calls: runner.run(batch(ask, calls))


def _offline() -> None:
    """Nothing measured here needs a network, and some of it would call home."""

    def refuse(self: socket.socket, address: Any) -> None:
        raise OSError(f"the benchmark opens no connection (asked for {address!r})")

    socket.socket.connect = refuse  # type: ignore[method-assign, assignment]


def main() -> None:
    """Warm up, then serve timings until standard input ends."""
    name, folder = sys.argv[1:]
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a cache prints is not a reply
    _offline()
    Path(folder).mkdir(parents=True, exist_ok=True)
    upstream = Upstream()
    if name == "costkit_async":
        batch = costkit_async(folder, upstream)
    else:
        hit = HITS[name](folder, upstream)
        batch = lambda calls: timed(hit, calls)  # noqa: E731 - one name, two kinds
    batch(20)
    print(json.dumps({"ready": name}), file=replies, flush=True)
    for line in sys.stdin:
        taken = batch(int(line))
        print(json.dumps({"taken": taken, "upstream": upstream.calls}), file=replies, flush=True)


if __name__ == "__main__":
    main()
