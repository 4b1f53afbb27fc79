"""The parts of the service by themselves: the quote as it grows, and the client of the model on hostile bytes."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.assistant.documents import Passage
from serving.assistant.prompt import NO_ANSWER
from serving.assistant.reply import Quoting
from serving.assistant.upstream import Upstream, UpstreamError
from serving.assistant.workflow import FALLBACK, REFUSAL, verify

SENTENCES = ('Say "yes" twice.', "Tabs\tand \\ and \U0001f600 stay.", "The articles do not lie.", "Tabs")
PASSAGES = (
    Passage("kb-1#1", "kb-1", "One", "", SENTENCES[:2]),
    Passage("kb-2#1", "kb-2", "Two", "", SENTENCES[2:]),
)


def shown(reply: str, cuts: Sequence[int]) -> tuple[str, str]:
    """What is shown while the reply grows in pieces, and in all."""
    edges = sorted({0, len(reply), *(cut % (len(reply) + 1) for cut in cuts)})
    quoting = Quoting(PASSAGES)
    early = "".join(quoting.add(reply[a:b]) for a, b in itertools.pairwise(edges))
    return early, early + quoting.end(("kb-1", "kb-2"))


@given(st.sampled_from([*SENTENCES, NO_ANSWER]), st.lists(st.integers(0, 200)), st.booleans(), st.booleans())
def test_a_quote_is_shown_as_it_is_verified(
    quote: str, cuts: list[int], ascii_only: bool, spaced: bool
) -> None:
    """However the reply is cut, escapes included, the text is what the verified whole says, and its quote is early."""
    reply = json.dumps({"quote": quote}, ensure_ascii=ascii_only, indent=1 if spaced else None)
    early, whole = shown(reply, cuts)
    assert whole == verify(reply, PASSAGES, ("kb-1", "kb-2")).text
    assert early == ("" if quote == NO_ANSWER else quote)
    assert whole != NO_ANSWER


@given(st.sampled_from(SENTENCES), st.integers(0, 40), st.text(max_size=30), st.lists(st.integers(0, 200)))
def test_what_is_no_quote_ends_with_the_safe_text(quote: str, kept: int, other: str, cuts: list[int]) -> None:
    """A reply that leaves its sentence shows no more than that sentence's beginning before the safe text."""
    reply = json.dumps({"quote": quote[:kept] + "#" + other})
    early, whole = shown(reply, cuts)
    assert any(sentence.startswith(early) for sentence in SENTENCES)
    assert whole == (f"{early} ...\n\n{FALLBACK}" if early else FALLBACK)


@pytest.mark.parametrize(
    "reply",
    ["", "{", "[]", "The plan allows a refund", '{"quote": 3}', '{"quote": "Say', '{"quote": "\\ud83d"}'],
)
def test_odd_replies(reply: str) -> None:
    """Plain text, broken JSON and half surrogates end with the safe text and nothing else of the model's."""
    early, whole = shown(reply, list(range(len(reply))))
    assert whole.endswith(FALLBACK) and REFUSAL not in whole and early in ("", "Say")


def test_a_reply_without_end() -> None:
    """A model that never stops, which its request forbids, is cut off as an error."""
    quoting = Quoting(PASSAGES)
    with pytest.raises(UpstreamError, match="no end"):
        for _ in range(10_000):
            quoting.add('{"quote": "')


CHUNK = json.dumps({"choices": [{"delta": {"content": "é"}, "finish_reason": None}]}, ensure_ascii=False)
LAST = json.dumps({"choices": [{"delta": {}, "finish_reason": "stop"}]})
SSE = f": alive\n\ndata: {CHUNK}\n\ndata:{CHUNK}\r\n\r\ndata: {LAST}\n\ndata: [DONE]\n\n".encode()
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"


def chunked(data: bytes, size: int) -> bytes:
    parts = [data[i : i + size] for i in range(0, len(data), size)]
    return b"".join(b"%X;x=1\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


async def ask(answers: Sequence[bytes], *, close: bool = True, timeout: float = 5.0) -> list[object]:
    """Ask once for each answer, which a server sends in small writes; chunk counts, or the error's status."""
    asked: list[bytes] = []
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while len(asked) < len(answers):
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                asked.append(await reader.readexactly(length))
                answer = answers[len(asked) - 1]
                if close:
                    answer = answer.replace(b"\r\n", b"\r\nconnection: close\r\n", 1)
                for i in range(0, len(answer), 7):
                    writer.write(answer[i : i + 7])
                    await writer.drain()
                if close:
                    break
            else:
                await reader.read()  # until the client goes
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    upstream = Upstream(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", timeout=timeout)
    told: list[object] = []
    for _ in answers:
        try:
            told.append(len([chunk async for chunk in upstream.chat({"model": "m", "messages": []})]))
        except UpstreamError as error:
            told.append((error.status, error.status_code, str(error)))
    upstream.close()
    server.close()
    return [*told, connections]


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_streams_of_any_cut(size: int) -> None:
    """Chunks cut anywhere, in a character's middle too, comments, both line ends, and bodies that end by closing."""
    answers = [HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(SSE, size), HEAD + b"\r\n" + SSE]
    answers.append(HEAD + b"Content-Length: %d\r\n\r\n" % len(SSE) + SSE)
    assert asyncio.run(ask(answers)) == [3, 3, 3, 3]


def test_a_connection_is_used_again() -> None:
    """Whole answers leave their connection for the next request; a cut one does not."""
    whole = HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(SSE, 50)
    assert asyncio.run(ask([whole] * 4, close=False)) == [3, 3, 3, 3, 1]


@pytest.mark.parametrize(
    ("answer", "status", "paid", "words"),
    [
        (b"", 502, True, "lost"),
        (b"\x00\x01garbage\r\n\r\n", 502, True, "HTTP"),
        (b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n\r\n<html>", 502, True, "text/html"),
        (b"HTTP/1.1 503 X\r\ncontent-type: text/html\r\ncontent-length: 6\r\n\r\n<html>", 503, False, "503"),
        (
            b"HTTP/1.1 429 X\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{",
            429,
            False,
            "429",
        ),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 502, True, "damaged"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n40\r\nhalf", 502, True, "lost"),
        (HEAD + b"Content-Length: 999\r\n\r\n" + SSE, 502, True, "lost"),
        (HEAD + b"\r\ndata: {broken\n\n", 502, True, "damaged"),
        (HEAD + b'\r\ndata: {"error": {"message": "out of memory"}}\n\n', 502, True, "error"),
        (HEAD + b"\r\ndata: " + CHUNK.encode() + b"\n\ndata: [DONE]\n\n", 502, True, "finish reason"),
        (b"HTTP/1.1 200 " + b"x" * 200_000, 502, True, "lost"),
    ],
)
def test_damaged_answers(answer: bytes, status: int, paid: bool, words: str) -> None:
    """Each is an UpstreamError with its status; only a refusal counts as unpaid; nothing hangs."""
    (told, _) = asyncio.run(asyncio.wait_for(ask([answer]), 10))
    assert isinstance(told, tuple) and told[0] == status and words in told[2]
    assert told[1] == (None if paid else status)


def test_silence_has_an_end() -> None:
    """A server that stops in mid-answer costs the timeout, not for ever."""
    (told, _) = asyncio.run(
        ask([HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nda"], close=False, timeout=0.3)
    )
    assert isinstance(told, tuple) and told[0] == 504 and "silent" in told[2]


@pytest.mark.parametrize("url", ["", "127.0.0.1:8000", "ftp://x/v1", "http://", "http:///v1"])
def test_no_base_url(url: str) -> None:
    """What is no http URL is refused with an example."""
    with pytest.raises(ValueError, match="http://127"):
        Upstream(url)
