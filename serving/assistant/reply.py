"""The assistant as a stream of text: the quote is passed on while the model writes it, and verified at the end.

What is passed on early is always the beginning, word for word, of a sentence that was retrieved. A reply that turns
out to be no such sentence ends with the assistant's safe text.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import costkit
from serving.assistant.documents import Passage
from serving.assistant.prompt import NO_ANSWER, request_body
from serving.assistant.upstream import Upstream, UpstreamError
from serving.assistant.workflow import Answer, Assistant, articles_of, verify

__all__ = ["Complete", "Quoting", "Reply", "Told", "asking", "replying"]

Complete = Callable[..., AsyncIterator[dict[str, Any]]]
Reply = Callable[..., AsyncIterator[str]]

# Many times what the output limit of the request allows.
MOST_REPLY = 20_000
_OPENING = re.compile(r'\s*\{\s*"quote"\s*:\s*"')
_WHOLE = re.compile(r'(?:[^"\\]|\\u[0-9a-fA-F]{4}|\\[^u])*')


@dataclass(slots=True)
class Told:
    """What the model's stream said beside its text; nothing where no model was called for this request."""

    usage: dict[str, Any] | None = None
    model: str | None = None


class Quoting:
    """A model's reply as it grows, and what of it may be shown.

    >>> quoting = Quoting([Passage("kb-1#1", "kb-1", "Trash", "", ("Trash is kept 30 days.",))])
    >>> quoting.add('{"quo'), quoting.add('te": "Trash is'), quoting.add(' kept 30 days."}')
    ('', 'Trash is', ' kept 30 days.')
    >>> quoting.end(("kb-1",))
    ' [kb-1]'
    """

    def __init__(self, passages: Sequence[Passage]) -> None:
        self._passages = passages
        self._sentences = tuple(s for p in passages for s in p.sentences)
        self._reply = ""
        self._shown = ""

    def add(self, text: str) -> str:
        """More of the reply; what may be shown of it that was not shown yet.

        Raises:
            UpstreamError: the reply has no end.
        """
        self._reply += text
        if len(self._reply) > MOST_REPLY:
            raise UpstreamError(502, "the model's reply has no end")
        opening = _OPENING.match(self._reply)
        if opening is None:
            return ""
        written = _WHOLE.match(self._reply, opening.end())
        try:
            quote = str(json.loads(f'"{written.group() if written else ""}"'))
        except ValueError:
            return ""
        # What begins like the refusal is held back until it is more, for the refusal is said in other words.
        begins = not NO_ANSWER.startswith(quote) and any(s.startswith(quote) for s in self._sentences)
        if not begins or len(quote) <= len(self._shown):
            return ""
        more, self._shown = quote[len(self._shown) :], quote
        return more

    def end(self, retrieved: tuple[str, ...]) -> str:
        """The rest of the answer, verified; the safe text where what was shown is no answer after all."""
        text = verify(self._reply, self._passages, retrieved).text
        if text.startswith(self._shown):
            return text[len(self._shown) :]
        return f" ...\n\n{text}"


def asking(upstream: Upstream) -> Complete:
    """``complete(question, passages, *, model)``: one streamed call of the model, as chunks."""

    async def complete(
        question: str, passages: Sequence[Passage], *, model: str
    ) -> AsyncIterator[dict[str, Any]]:
        body = request_body(question, passages, model)
        async with contextlib.aclosing(upstream.chat(body)) as chunks:
            async for chunk in chunks:
                yield chunk

    return complete


def replying(assistant: Assistant, complete: Complete) -> Reply:
    """``reply(question, *, tenant, told)``: the assistant's answer as a stream of texts, at most one model call.

    Errors of ``complete`` pass through; an unknown tenant raises ContentError.
    """

    async def reply(question: str, *, tenant: str, told: Told) -> AsyncIterator[str]:
        plan = assistant.plan(question, tenant)
        if isinstance(plan, Answer):
            costkit.record(free=True)
            yield plan.text
            return
        found, evidence = plan
        quoting = Quoting(evidence)
        stream = cast(
            AsyncGenerator[dict[str, Any], None], complete(question, evidence, model=assistant.model)
        )
        async with contextlib.aclosing(stream) as chunks:
            async for chunk in chunks:
                told.usage = chunk.get("usage") or told.usage
                told.model = chunk.get("model") or told.model
                for choice in chunk.get("choices") or ():
                    if more := quoting.add((choice.get("delta") or {}).get("content") or ""):
                        yield more
        if rest := quoting.end(articles_of(found)):
            yield rest

    return reply
