"""The assistant: retrieve, ask a model once, verify. No loop, no second call, no tool.

1. Small talk (a short list of rules) gets a fixed text. So does a question that shares fewer than two search
   words with every passage: the documents cannot answer it. Neither costs a model call. The floor is a number
   of words and not a BM25 score, because a score says nothing across questions or sets of documents.
2. The best passages are retrieved by BM25, for one tenant, and cut to the sentences nearest to the question.
3. One call asks the model to copy the sentence that answers.
4. The answer is that sentence and the article it stands in. A reply that is no retrieved sentence is a
   format failure: the caller gets one safe text, never a second try that nobody sees.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serving.assistant.documents import (
    ContentError,
    Passage,
    load_documents,
    passages_of,
    tenants_of,
    visible,
)
from serving.assistant.prompt import NO_ANSWER, request_body
from serving.assistant.retrieve import Index

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletion

REFUSAL = "The help articles do not answer this question."
FALLBACK = "I could not find a sure answer. Please contact support, a person will look into it."
DEFAULT_MODEL = "SmolLM2-135M-Instruct"
PASSAGES = 3
SENTENCES = 4
SMALL_TALK_WORDS = 14

SMALL_TALK = (
    (
        r"\b(speak|talk|chat|connect|transfer|put)\b.*\b(human|person|agent|someone|somebody|staff|colleague)\b"
        r"|\b(someone|somebody|a) real\b|^(stop )?(give me an? |an? )?(human|agent)( please)?$",
        "I am an automated assistant. To reach a person, please contact support: a human will answer.",
    ),
    (
        r"^(who|what) are you|^are you a (human|person|bot|robot)|^(who )?am i (talking|chatting|speaking)"
        r"|^what can you do|^what( is|s| s)? your name",
        "I am the help desk assistant, an automated program. I answer questions from the help articles.",
    ),
    (
        r"^(please |sorry |can you |could you )*(repeat|say|explain|sum|put) (that|it|your)\b"
        r"|^(too long )?(shorter|shorten)\b|^once more|^tl ?dr|didn ?t get that",
        "I do not keep earlier answers. Please ask the whole question again and I will help.",
    ),
    (
        r"^(ok |great |perfect |many |that helped )*(thanks|thank you|thx|cheers|perfect)\b",
        "You are welcome! I am glad to help.",
    ),
    (r"^(ok |thx )*(bye|goodbye|see you|have a nice day)\b|\bbye$", "Goodbye, and have a nice day!"),
    (
        r"^(hi|hello|hey|hiya|good (morning|afternoon|evening))( (there|to you|anyone|here|are you|all))*$",
        "Hello! I am the help desk assistant. How can I help you?",
    ),
)

Complete = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """What the assistant says, and how it came to it.

    ``citations`` are article ids, ``retrieved`` the article ids found, best first. ``quote_ok`` is True where
    ``quote`` stands word for word in the cited article, False for a format failure, None where nothing was to
    be quoted (a refusal or small talk).
    """

    text: str
    citations: tuple[str, ...] = ()
    quote: str | None = None
    quote_ok: bool | None = None
    refused: bool = False
    retrieved: tuple[str, ...] = ()
    model_called: bool = False


class Assistant:
    """Answers questions over a folder of documents, each tenant from its own.

    ``complete`` is called as ``complete(question, passages, model=model)`` and returns a chat completion (see
    ``connect``). Raises ContentError for documents that cannot be read.
    """

    def __init__(
        self, docs: Path | str, complete: Complete, *, model: str | None = None, k: int = PASSAGES
    ) -> None:
        articles = load_documents(docs)
        self.complete = complete
        self.model = model or os.environ.get("COSTKIT_MODEL") or DEFAULT_MODEL
        self.k = k
        self._indexes = {
            tenant: Index([p for article in visible(articles, tenant) for p in passages_of(article)])
            for tenant in tenants_of(articles)
        }

    @property
    def tenants(self) -> tuple[str, ...]:
        """The tenants the documents name, or ``("default",)``."""
        return tuple(self._indexes)

    def retrieve(self, question: str, tenant: str) -> tuple[Passage, ...]:
        """The passages nearest to the question, best first; raises ContentError for an unknown tenant."""
        return tuple(hit.passage for hit in self._index(tenant).search(question, self.k))

    def ask(self, question: str, *, tenant: str) -> Answer:
        """One answer, with at most one model call; errors of ``complete`` pass through."""
        plan = self.plan(question, tenant)
        if isinstance(plan, Answer):
            return plan
        found, evidence = plan
        reply = self.complete(question, evidence, model=self.model)
        return verify(reply.choices[0].message.content or "", evidence, articles_of(found))

    def request(self, question: str, tenant: str) -> dict[str, Any] | None:
        """The body of the chat completion that ``ask`` sends, or None where it makes no model call."""
        plan = self.plan(question, tenant)
        return None if isinstance(plan, Answer) else request_body(question, plan[1], self.model)

    def plan(self, question: str, tenant: str) -> Answer | tuple[tuple[Passage, ...], tuple[Passage, ...]]:
        """The answer where no model is needed, else the passages found and what of them the model is shown."""
        index = self._index(tenant)
        if text := small_talk(question):
            return Answer(text)
        found = self.retrieve(question, tenant)
        if not index.covers(question, found):
            return Answer(REFUSAL, refused=True, retrieved=articles_of(found))
        return found, index.narrow(question, found, SENTENCES)

    def _index(self, tenant: str) -> Index:
        if tenant not in self._indexes:
            raise ContentError(f"unknown tenant {tenant!r}; the documents know {', '.join(self._indexes)}")
        return self._indexes[tenant]


def articles_of(passages: Sequence[Passage]) -> tuple[str, ...]:
    """The passages' articles, each once, in their order."""
    return tuple(dict.fromkeys(p.article for p in passages))


def small_talk(question: str) -> str | None:
    """The fixed text for a greeting, thanks and the like, or None for a question.

    >>> small_talk("Hello there!")
    'Hello! I am the help desk assistant. How can I help you?'
    >>> small_talk("Hello, how long do refunds take?")
    """
    words = re.sub(r"\W+", " ", question.lower()).strip()
    if len(words.split()) > SMALL_TALK_WORDS or re.search(r"\d", words):
        return None
    return next((text for rule, text in SMALL_TALK if re.search(rule, words)), None)


def verify(reply: str, passages: Sequence[Passage], retrieved: tuple[str, ...]) -> Answer:
    """The answer in a model's reply: its quote must be, word for word, a sentence of one of the passages."""
    try:
        quote = json.loads(reply)["quote"]
    except (ValueError, TypeError, KeyError):
        quote = None
    if quote == NO_ANSWER:
        return Answer(REFUSAL, refused=True, retrieved=retrieved, model_called=True)
    for passage in passages:
        if quote in passage.sentences:
            text = f"{quote} [{passage.article}]"
            return Answer(text, (passage.article,), quote, True, False, retrieved, True)
    return Answer(FALLBACK, quote_ok=False, retrieved=retrieved, model_called=True)


def connect(
    base_url: str | None = None,
    api_key: str | None = None,
    *,
    timeout: float = 60.0,
) -> Callable[..., ChatCompletion]:
    """A plain function ``complete(question, passages, *, model)`` over the OpenAI SDK, without its retries.

    ``base_url`` and ``api_key`` default to OPENAI_BASE_URL and OPENAI_API_KEY; a server of one's own
    gets a placeholder for the key. ``timeout`` is in seconds. Errors of the SDK pass through.
    """
    from openai import OpenAI

    base_url = base_url or os.environ.get("OPENAI_BASE_URL")
    api_key = api_key or os.environ.get("OPENAI_API_KEY") or ("none" if base_url else None)
    client = OpenAI(base_url=base_url, api_key=api_key, max_retries=0, timeout=timeout)

    def complete(question: str, passages: Sequence[Passage], *, model: str) -> ChatCompletion:
        reply: ChatCompletion = client.chat.completions.create(**request_body(question, passages, model))
        return reply

    return complete
