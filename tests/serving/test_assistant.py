"""The sample assistant: its documents, its retrieval and its bounded workflow."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from serving.assistant.documents import (
    ContentError,
    Passage,
    load_documents,
    passages_of,
    tenants_of,
    visible,
)
from serving.assistant.prompt import NO_ANSWER, request_body
from serving.assistant.workflow import FALLBACK, REFUSAL, Answer, Assistant, connect, small_talk

TRASH = """---
id: kb-1
title: Trash
topic: files
updated: 2026-03-02
tenants: all   # everybody
---
Deleted files stay in Trash for 30 days. You can **restore** them at any time, e.g. by a click.

## Emptying

| Plan | Days |
|---|---|
| Solo | 30 days |
| Team | 60 days |

1. Open [Settings](kb-2).
2. Press `Empty`.
"""
REFUNDS = """---
id: kb-2
title: Refunds
---
An annual plan is refunded in full within 14 days. Monthly plans are never refunded.
"""
GLOBEX = """---
id: gx-1
title: Trash at Globex
tenants: [globex]
replaces: kb-1
---
At Globex, deleted files stay in Trash for 365 days.
"""
ACME = """---
id: ac-1
title: Parking
tenants: [acme]
---
Visitors of Acme park behind the red gate.
"""


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    """Four small articles for two tenants."""
    for name, text in {"trash": TRASH, "refunds": REFUNDS, "globex": GLOBEX, "acme": ACME}.items():
        (tmp_path / f"{name}.md").write_text(text, "utf-8")
    return tmp_path


@dataclass
class Model:
    """A stand-in for a model: replies with ``reply`` and remembers what it was asked."""

    reply: Any = None
    asked: int = 0

    def __call__(self, question: str, passages: tuple[Passage, ...], *, model: str) -> Any:
        self.asked += 1
        quote = self.reply or passages[0].sentences[0]
        content = quote.decode() if isinstance(quote, bytes) else json.dumps({"quote": quote})
        return SimpleNamespace(choices=[SimpleNamespace(message=SimpleNamespace(content=content))])


def test_front_matter_is_read_and_markdown_becomes_sentences(docs: Path) -> None:
    """Prose, table rows with their column names, and steps each become quotable sentences without marks."""
    article = next(a for a in load_documents(docs) if a.id == "kb-1")
    assert (article.title, article.topic, str(article.updated), article.tenants) == (
        "Trash",
        "files",
        "2026-03-02",
        None,
    )
    (passage,) = passages_of(article)
    assert passage.sentences == (
        "Deleted files stay in Trash for 30 days.",
        "You can restore them at any time, e.g. by a click.",
        "Plan: Solo; Days: 30 days.",
        "Plan: Team; Days: 60 days.",
        "Open Settings.",
        "Press Empty.",
    )


def test_a_tenant_sees_common_and_own_articles_without_the_replaced(docs: Path) -> None:
    """Globex sees its own Trash article in place of the common one; Acme's article is Acme's alone."""
    articles = load_documents(docs)
    assert tenants_of(articles) == ("acme", "globex")
    assert [a.id for a in visible(articles, "acme")] == ["ac-1", "kb-1", "kb-2"]
    assert [a.id for a in visible(articles, "globex")] == ["gx-1", "kb-2"]


def test_a_folder_without_front_matter_works(tmp_path: Path) -> None:
    """Plain .md and .txt files are articles for one tenant "default", their id the file's name."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "opening hours.txt").write_text("We open at 9. We close at 17.", "utf-8")
    (tmp_path / "sub" / "map.md").write_text("# How to find us\n\nTurn left at the mill.", "utf-8")
    articles = load_documents(tmp_path)
    assert [(a.id, a.title) for a in articles] == [
        ("map", "How to find us"),
        ("opening-hours", "opening hours"),
    ]
    answer = Assistant(tmp_path, Model()).ask("when do you open in the mornings, is it 9?", tenant="default")
    assert answer.text == "We open at 9. [opening-hours]"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("---\nid: kb-9\nText", "never closed"),
        ("---\nid: kb-9\n---\n", "empty"),
        ("", "empty"),
        ("---\ntenant: acme\n---\nText.", "did you mean 'tenants'"),
        ("---\nzzz: acme\n---\nText.", "known are id, title"),
        ("---\nid kb-9\n---\nText.", "not 'key: value'"),
        ("---\nid: a\nid: b\n---\nText.", "stands twice"),
        ("---\nid: a/b\n---\nText.", "letters, digits"),
        ("---\nupdated: yesterday\n---\nText.", "2026-03-02"),
        ("---\ntenants: acme\n---\nText.", "a list such as [acme, globex]"),
        ("---\ntenants: []\n---\nText.", "a list such as [acme, globex]"),
        ("---\nid: kb-1\n---\nText.", "'kb-1' is taken by"),
        ("---\nreplaces: kb-1\n---\nText.", "replaces needs a list of tenants"),
        ("---\ntenants: [acme]\nreplaces: kb-77\n---\nText.", "'kb-77', which no other article has"),
        ("---\ntenants: [globex]\nreplaces: ac-1\n---\nText.", "which globex does not see"),
        ("---\ntenants: [globex]\nreplaces: kb-1\n---\nText.", "already replaced for globex by globex.md"),
    ],
)
def test_a_broken_document_is_named_with_its_mend(docs: Path, text: str, part: str) -> None:
    """Each mistake in front matter is a ContentError that names the file and what to write."""
    (docs / "zz-new.md").write_text(text, "utf-8")
    with pytest.raises(ContentError) as caught:
        load_documents(docs)
    assert "zz-new.md" in str(caught.value) and part in str(caught.value)


def test_missing_empty_and_unreadable_folders_are_named(tmp_path: Path) -> None:
    """No folder, no article, and a file that is not UTF-8 are ContentErrors."""
    with pytest.raises(ContentError, match="no such folder"):
        load_documents(tmp_path / "nowhere")
    with pytest.raises(ContentError, match=r"holds no \.md or \.txt"):
        load_documents(tmp_path)
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    with pytest.raises(ContentError, match=r"latin\.txt: not UTF-8"):
        load_documents(tmp_path)


def test_an_answer_quotes_a_retrieved_sentence_and_cites_its_article(docs: Path) -> None:
    """One model call; text, quote and citation come from the verified sentence."""
    model = Model("An annual plan is refunded in full within 14 days.")
    answer = Assistant(docs, model).ask("is an annual subscription refunded?", tenant="acme")
    assert answer == Answer(
        "An annual plan is refunded in full within 14 days. [kb-2]",
        ("kb-2",),
        "An annual plan is refunded in full within 14 days.",
        True,
        False,
        ("kb-2",),
        True,
    )
    assert model.asked == 1


@pytest.mark.parametrize(
    "reply",
    [
        "Annual plans are refunded within 14 days.",
        b"not json",
        b"[]",
        b'{"answer": 1}',
        b'{"quote": 3}',
        b"{}",
    ],
)
def test_a_reply_that_is_no_retrieved_sentence_is_a_format_failure(docs: Path, reply: Any) -> None:
    """Paraphrase, broken JSON or a wrong type gives the one safe text after one call, never a second call."""
    model = Model(reply)
    answer = Assistant(docs, model).ask("is an annual subscription refunded?", tenant="acme")
    assert (answer.text, answer.quote_ok, answer.citations, model.asked) == (FALLBACK, False, (), 1)


def test_the_models_refusal_is_a_refusal(docs: Path) -> None:
    """The refusal option of the schema becomes the refusal sentence, with the retrieved articles named."""
    answer = Assistant(docs, Model(NO_ANSWER)).ask("is an annual subscription refunded?", tenant="acme")
    assert (
        answer.refused
        and answer.text == REFUSAL
        and answer.quote_ok is None
        and answer.retrieved == ("kb-2",)
    )


@pytest.mark.parametrize(
    "question",
    [
        "hello there!",
        "Thanks, that worked",
        "speak to a human",
        "who won the world cup?",
        "is the green bin for trash?",
        "",
    ],
)
def test_small_talk_and_foreign_questions_cost_no_call(docs: Path, question: str) -> None:
    """A greeting and a question that shares no words with the documents get a fixed text, no request."""
    model = Model()
    assistant = Assistant(docs, model)
    answer = assistant.ask(question, tenant="acme")
    assert model.asked == 0 and not answer.model_called and answer.text
    assert assistant.request(question, "acme") is None
    assert answer.refused is (small_talk(question) is None)


@pytest.mark.parametrize(
    "question",
    ["hi, how long do deleted files stay in trash?", "how do i get a seat for a new colleague",
     "can we give somebody the Auditor role", "thanks to the 30 day rule I lost a file?"],
)  # fmt: skip
def test_a_question_with_a_greeting_is_still_a_question(question: str) -> None:
    """The rules do not swallow real questions that begin politely or name a colleague."""
    assert small_talk(question) is None


def test_each_tenant_is_answered_from_its_own_documents(docs: Path) -> None:
    """The same question retrieves the tenant's article; nothing of another tenant is in a request."""
    assistant = Assistant(docs, Model())
    ask = "how many days do deleted files stay in trash?"
    assert assistant.ask(ask, tenant="globex").citations == ("gx-1",)
    assert assistant.ask(ask, tenant="acme").citations == ("kb-1",)
    assert "365" not in json.dumps(assistant.request(ask, "acme"))
    assert assistant.retrieve("where do visitors of acme park", "globex") == ()


def test_an_unknown_tenant_is_refused_with_the_known_ones(docs: Path) -> None:
    """A misspelt tenant raises, also for small talk, and names the tenants there are."""
    for question in ("hello", "are refunds paid in full?"):
        with pytest.raises(ContentError, match="unknown tenant 'acmee'; the documents know acme, globex"):
            Assistant(docs, Model()).ask(question, tenant="acmee")


def test_errors_of_the_model_pass_through(docs: Path) -> None:
    """The assistant wraps no error of the call."""

    def complete(*args: Any, **kwargs: Any) -> Any:
        raise TimeoutError("busy")

    with pytest.raises(TimeoutError, match="busy"):
        Assistant(docs, complete).ask("are annual fees refunded in full?", tenant="acme")


def test_the_request_offers_only_the_sentences_and_the_refusal(docs: Path) -> None:
    """The schema's enum is the sentences and the refusal; temperature 0, at most 64 output tokens."""
    body = Assistant(docs, Model(), model="m").request("are annual fees refunded in full?", "acme")
    assert body is not None
    enum = body["response_format"]["json_schema"]["schema"]["properties"]["quote"]["enum"]
    assert enum == [
        "An annual plan is refunded in full within 14 days.",
        "Monthly plans are never refunded.",
        NO_ANSWER,
    ]
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("m", 0, 64)
    assert body["response_format"]["json_schema"]["strict"] is True


class Provider(BaseHTTPRequestHandler):
    """A chat completion endpoint on loopback that answers with the first offered sentence, or 503."""

    def do_POST(self) -> None:
        server: Any = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server.seen.append((self.path, self.headers["Authorization"], body))
        if server.broken:
            self._send(503, {"error": {"message": "busy"}})
            return
        quote = body["response_format"]["json_schema"]["schema"]["properties"]["quote"]["enum"][0]
        message = {"role": "assistant", "content": json.dumps({"quote": quote})}
        usage = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
        choices = [{"index": 0, "finish_reason": "stop", "message": message}]
        self._send(200, {"id": "1", "object": "chat.completion", "created": 1, "model": body["model"],
                         "choices": choices, "usage": usage})  # fmt: skip

    def _send(self, status: int, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Silent."""


@pytest.fixture
def provider() -> Iterator[Any]:
    """A provider on a free port of loopback."""
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
    server.seen, server.broken = [], False
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_connect_sends_exactly_the_request_body(
    docs: Path, provider: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the real SDK the provider receives what ``request`` promises, and no key is needed."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{provider.server_port}/v1")
    monkeypatch.setenv("COSTKIT_MODEL", "tiny")
    assistant = Assistant(docs, connect())
    answer = assistant.ask("are annual fees refunded in full?", tenant="acme")
    assert answer.quote_ok and answer.citations == ("kb-2",)
    ((path, key, body),) = provider.seen
    assert (path, key) == ("/v1/chat/completions", "Bearer none")
    assert body == assistant.request("are annual fees refunded in full?", "acme") and body["model"] == "tiny"


def test_connect_does_not_retry(docs: Path, provider: Any) -> None:
    """A busy provider is one call and the SDK's own error, so that costkit alone decides about retries."""
    from openai import InternalServerError

    provider.broken = True
    complete = connect(f"http://127.0.0.1:{provider.server_port}/v1", "secret")
    with pytest.raises(InternalServerError):
        Assistant(docs, complete).ask("are annual fees refunded in full?", tenant="acme")
    assert len(provider.seen) == 1 and provider.seen[0][1] == "Bearer secret"


def test_the_body_is_a_pure_function_of_question_passages_and_model() -> None:
    """The same arguments give equal bodies and no shared mutable parts."""
    passage = Passage("a#1", "a", "A", "", ("It is so.",))
    one, two = (request_body("  why\nis it? ", [passage], "m") for _ in range(2))
    assert one == two and one["messages"] is not two["messages"]
    assert one["messages"][-1]["content"].endswith("Question: why is it?")
