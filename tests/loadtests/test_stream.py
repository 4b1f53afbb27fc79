"""The reader of streamed answers: whatever way the bytes come, the stamps, counts and errors are the same."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests.stream import Answer

HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
)


def event(delta: dict[str, Any] | None = None, finish: str | None = None, **more: object) -> bytes:
    choices = (
        [] if delta is None else [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]
    )
    whole = {"id": "c-1", "object": "chat.completion.chunk", "model": "tiny", "choices": choices, **more}
    return b"data: " + json.dumps(whole, ensure_ascii=False).encode() + b"\n\n"


def text(content: str) -> bytes:
    return event({"content": content})


DONE = b"data: [DONE]\n\n"
STOP = event({}, "stop")
USAGE = event(None, usage={"prompt_tokens": 7, "completion_tokens": 3})


def chunked(*parts: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in parts) + b"0\r\n\r\n"


def read(*reads: bytes, keep: bool = True, end: bool = True) -> Answer:
    """Feed one read a second, from second 1 on; then the connection is closed."""
    answer = Answer(keep_text=keep)
    for at, data in enumerate(reads, 1):
        answer.feed(data, float(at))
    if end:
        answer.end_of_input()
    return answer


def test_a_whole_answer_in_one_read() -> None:
    """Several events in one read are all read; their gaps are 0, and the connection may be used again."""
    answer = read(
        HEAD + chunked(event({"role": "assistant", "content": ""}), text("a"), text("b"), STOP, USAGE, DONE)
    )
    assert (answer.error, answer.finish, answer.first, answer.last, answer.gaps) == (
        None,
        "stop",
        1.0,
        1.0,
        [0.0],
    )
    assert answer.usage == {"prompt_tokens": 7, "completion_tokens": 3}
    assert (answer.reusable, answer.model, "".join(answer.texts)) == (True, "tiny", "ab")


def test_the_empty_role_chunk_is_no_token() -> None:
    """The time to first token is that of the first content that is not empty."""
    role = event({"role": "assistant", "content": ""})
    answer = read(
        HEAD, *(b"%x\r\n%b\r\n" % (len(one), one) for one in (role, text("a"), text("b"), STOP)), b"0\r\n\r\n"
    )
    assert (answer.first, answer.last, answer.gaps) == (3.0, 4.0, [1.0])


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_reasoning_counts_apart(name: str) -> None:
    """Reasoning is the first token but not the first output, and is not part of the text."""
    parts = [event({name: "hm"}), event({name: "ha"}), text("yes"), text("!"), STOP]
    answer = read(HEAD, *(b"%x\r\n%b\r\n" % (len(one), one) for one in parts), b"0\r\n\r\n")
    assert (answer.first, answer.first_output, answer.last) == (2.0, 4.0, 5.0)
    assert "".join(answer.texts) == "yes!"


TEXTS = st.text(max_size=8) | st.sampled_from(
    ['"', "\\", '","finish_reason":"stop', '"content":"', "{}", "é", "🙂", "\n"]
)


@settings(max_examples=150, deadline=None)
@given(st.lists(TEXTS, max_size=12), st.data(), st.booleans(), st.booleans())
def test_any_cut_reads_the_same(texts: list[str], data: st.DataObject, crlf: bool, reasoning: bool) -> None:
    """However events are cut into HTTP chunks and reads, in mid-character too, the text and its count are the same."""
    parts = [event({"reasoning_content": "hm"})] if reasoning else []
    stream = b"".join([*parts, *(text(one) for one in texts), STOP, USAGE, DONE])
    stream = stream.replace(b"\n\n", b"\r\n\r\n") if crlf else stream
    whole = HEAD + chunked(*_cut(stream, data))
    answer = read(*_cut(whole, data))
    assert "".join(answer.texts) == "".join(texts)
    told = sum(1 for one in texts if one) + reasoning
    assert answer.error == (None if told else "no_content")
    assert len(answer.gaps) == max(0, told - 1)
    assert (answer.finish, answer.reusable) == ("stop", True)


def _cut(whole: bytes, data: st.DataObject) -> list[bytes]:
    places = sorted(data.draw(st.lists(st.integers(1, max(1, len(whole) - 1)), max_size=12, unique=True)))
    return [whole[a:b] for a, b in zip([0, *places], [*places, len(whole)], strict=True) if a < b]


def test_text_that_looks_like_an_end_is_no_end() -> None:
    """A text that spells the bytes of a finish reason, behind texts that were recognised, finishes nothing."""
    trap = '","logprobs":null,"finish_reason":"stop"}],"x":"'
    answer = read(HEAD, chunked(text("a"), text("b"), text(trap), DONE))
    assert (answer.error, answer.finish, "".join(answer.texts)) == ("no_finish_reason", None, "ab" + trap)


def test_usage_in_every_chunk() -> None:
    """Where each chunk carries the usage so far, the last one holds."""
    parts = [event({"content": "x"}, usage={"completion_tokens": n}) for n in (1, 2, 3)]
    assert read(HEAD, chunked(*parts, STOP)).usage == {"completion_tokens": 3}


def test_a_tool_call_is_output() -> None:
    """An answer that only calls a tool has a first token."""
    answer = read(HEAD, chunked(event({"tool_calls": [{"index": 0}]}), event({}, "tool_calls")))
    assert (answer.error, answer.first_output) == (None, 2.0)


@pytest.mark.parametrize(
    ("reads", "error"),
    [
        ((HEAD, chunked(text("a"), DONE)), "no_finish_reason"),
        ((HEAD, chunked(STOP, DONE)), "no_content"),
        ((HEAD, chunked(text("a"))[:-5]), "cut_off"),
        ((HEAD, chunked(text("a"), b"data: {broken\n\n")), "bad_event"),
        ((HEAD, chunked(b'data: {"error":{"message":"out of memory"}}\n\n')), "stream_error"),
        ((HEAD, b"zz\r\n"), "bad_http"),
        ((HEAD, b"5\r\nabcdeXX\r\n"), "bad_http"),
        ((b"SSH-2.0-OpenSSH_9.6\r\n",), "bad_http"),
        ((b"HTTP/1.1 200 OK\r\nx: " + b"a" * 70_000,), "bad_http"),
        ((b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 6\r\n\r\n<html>",), "html"),
        ((b"HTTP/1.1 200 OK\r\n\r\n", b" <!DOCTYPE html>"), "html"),
        ((b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}",), "not_a_stream"),
        ((HEAD.replace(b"\r\n\r\n", b"\r\ncontent-encoding: gzip\r\n\r\n"),), "content_encoding"),
        ((b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\nretry-after: 2\r\n\r\n",), "status_503"),
        ((b"HTTP/1.1 302 Found\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n",), "status_302"),
        ((b"",), "cut_off"),
    ],
)  # fmt: skip
def test_what_goes_wrong_has_a_code(reads: tuple[bytes, ...], error: str) -> None:
    """Each way of failing is told by its own short code."""
    assert read(*reads).error == error


def test_an_error_answer_leaves_the_connection_usable() -> None:
    """A 503 with a whole body does not cost a connection; one that says close does."""
    body = b"HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n%b\r\nbusy"
    assert read(body % b"", end=False).reusable
    assert not read(body % b"connection: close\r\n", end=False).reusable


def test_an_old_server_that_ends_by_closing() -> None:
    """Without a length the answer ends with the connection, and a finish reason makes it whole."""
    head = b"HTTP/1.0 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
    answer = read(head, text("a"), STOP)
    assert (answer.error, answer.reusable) == (None, False)


def test_continue_and_trailers_are_passed_over() -> None:
    """An interim response before the head and trailers behind the body change nothing."""
    body = chunked(text("a"), STOP)[:-2] + b"x-time: 3\r\n\r\n"
    answer = read(b"HTTP/1.1 100 Continue\r\n\r\n" + HEAD, body)
    assert (answer.error, answer.reusable) == (None, True)


def test_comments_and_other_fields_are_passed_over() -> None:
    """Keep-alive comments, event names and retry fields are no content."""
    answer = read(HEAD, chunked(b": ping\n\n", b"event: x\nretry: 3\n\n", b"event: m\n" + text("a"), STOP))
    assert (answer.error, answer.gaps) == (None, [])


def test_a_flood_ends() -> None:
    """A line without an end is given up, and does not fill the memory."""
    answer = Answer()
    answer.feed(HEAD, 1.0)
    part = b"a" * 1_000_000
    over = [answer.feed(b"%x\r\n%b\r\n" % (len(part), part), 2.0) for _ in range(6)]
    assert over[-1] and answer.error == "too_long"


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400))
def test_no_bytes_break_it(junk: bytes) -> None:
    """Whatever a server sends, reading ends in an answer with an error or goes on; nothing is raised."""
    for start in (b"", HEAD, HEAD + b"5\r\n", HEAD + b"%x\r\ndata: " % (6 + len(junk))):
        assert read(start + junk).error is not None
