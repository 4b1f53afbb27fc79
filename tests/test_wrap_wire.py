"""What a wrapped client keeps of the wire: events, heads, ends, and which answers are whole."""

from __future__ import annotations

import itertools
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costkit import codec
from costkit.wrap.wire import (
    Events,
    NotJson,
    Recorded,
    admission,
    body_of,
    bytes_of,
    is_done,
    is_last,
    only_usage,
)
from tests.scripted import events, whole

HEAD = Recorded(200, (("content-type", "text/event-stream"),), "")
PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages")


def cut(data: bytes, at: list[int]) -> list[Any]:
    """The events of these bytes, fed in pieces."""
    found, reader = [], Events()
    ends = sorted({min(n, len(data)) for n in at} | {0, len(data)})
    for start, end in itertools.pairwise(ends):
        found += list(reader.feed(data[start:end]))
    return found + list(reader.feed(b""))


@given(
    st.lists(st.sampled_from(["data: é😀", ": ping", "\n", "\n\n", "\r\n", "\r\n\r\n", "\r\r", "\r"])),
    st.lists(st.integers(0, 200)),
)
def test_no_byte_is_lost_however_the_stream_is_cut(parts: list[str], at: list[int]) -> None:
    """Whatever the line ends and wherever the pieces end, the events together are the bytes."""
    data = "".join(parts).encode()
    assert b"".join(map(bytes_of, cut(data, at))) == data


@given(
    st.lists(st.text(alphabet="aé😀:", max_size=6), min_size=1, max_size=8),
    st.sampled_from(["\n", "\r\n"]),
    st.data(),
)
def test_events_are_the_same_however_the_stream_is_cut(
    texts: list[str], end: str, data: st.DataObject
) -> None:
    """One text an event, by LF and by CRLF, wherever the pieces end."""
    lines = [f"data: {text}{end}{end}" for text in texts]
    stream = "".join(lines).encode()
    assert cut(stream, data.draw(st.lists(st.integers(0, len(stream))))) == lines


@given(st.binary(max_size=60), st.lists(st.integers(0, 60)))
def test_any_bytes_come_through(data: bytes, at: list[int]) -> None:
    """Bytes that are no text come through unchanged, and from there on are not stored."""
    found = cut(data, at)
    assert b"".join(map(bytes_of, found)) == data
    kinds = [isinstance(chunk, NotJson) for chunk in found]
    assert kinds == sorted(kinds)
    try:
        data.decode()
    except UnicodeDecodeError:
        assert kinds and kinds[-1]
        with pytest.raises(codec.NotStorable):
            codec.encode([HEAD, *found])


def test_a_long_event_is_cut_in_linear_time() -> None:
    """Ten megabytes without a blank line, in pieces of 4 KiB, take seconds at most."""
    began, reader = time.perf_counter(), Events()
    data = b"data: " + b"x" * 10_000_000
    found = [chunk for n in range(0, len(data), 4096) for chunk in reader.feed(data[n : n + 4096])]
    assert found == [] and len(bytes_of(next(reader.feed(b"")))) == len(data)
    assert time.perf_counter() - began < 5


def test_what_is_recorded_comes_back() -> None:
    """A whole answer and a stream survive the store's encoding, and read as their text."""
    for value in (
        Recorded(200, (("content-type", "application/json"),), '{"a": "é"}'),
        [HEAD, "data: 1\n\n"],
    ):
        assert codec.decode(codec.encode(value)) == value
    assert str(Recorded(200, (), "{}")) == "{}"


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("what", ["text", "tools", "json"])
def test_whole_answers_are_admitted(path: str, what: str) -> None:
    """Whole answers and streams are admitted, and none of the stream's beginnings is."""
    body = {"model": "m", "stream_options": {"include_usage": True}}
    admit = admission(None)
    assert admit(Recorded(200, (), json.dumps(whole(path, body, what))))
    stream = events(path, body, what)
    assert admit([HEAD, *stream])
    for count in range(len(stream)):
        assert not admit([HEAD, *stream[:count]]), count
        assert not admission(lambda answer: True)([HEAD, *stream[:count]]), count


@pytest.mark.parametrize("path", PATHS)
def test_cut_and_refused_answers_are_not_admitted(path: str) -> None:
    """A length limit or a refusal is no whole answer, unless the user's admit says so."""
    for what in ("length", "refusal"):
        if path == "/v1/completions":
            continue
        told = Recorded(200, (), json.dumps(whole(path, {"model": "m"}, what)))
        stream = [HEAD, *events(path, {"model": "m"}, what)]
        assert not admission(None)(told) and not admission(None)(stream)
        assert admission(lambda answer: True)(told) and admission(lambda answer: True)(stream)


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "overloaded"}},
        {"id": "r", "object": "response", "status": "queued", "output": []},
        {"id": "r", "object": "response", "status": "in_progress", "output": []},
        {"id": "c", "object": "chat.completion", "model": "m", "choices": []},
        {
            "id": "c",
            "object": "chat.completion",
            "model": "m",
            "choices": [{"finish_reason": "content_filter"}],
        },
        {"type": "message", "stop_reason": "pause_turn", "content": []},
        {},
    ],
)
def test_other_bodies_are_not_admitted(body: dict[str, Any]) -> None:
    """Errors with status 200, unfinished and filtered answers are not stored."""
    assert not admission(None)(Recorded(200, (), json.dumps(body)))


@pytest.mark.parametrize("path", PATHS)
def test_usage_that_contradicts_itself_says_nothing_of_the_answer(path: str) -> None:
    """An answer is whole whether or not its bill adds up."""
    body = whole(path, {"model": "m"}, "text")
    wrong = {name: 10**9 if name == "cached_tokens" else value for name, value in body["usage"].items()}
    wrong |= {
        "prompt_tokens_details": {"cached_tokens": 10**9},
        "input_tokens_details": {"cached_tokens": 10**9},
    }
    assert admission(None)(Recorded(200, (), json.dumps({**body, "usage": wrong})))


def test_ends_and_usage_are_known_by_their_fields() -> None:
    """Text that only mentions an end or a usage is none."""
    spoken = 'data: {"choices": [{"delta": {"content": "\\"message_stop\\" \\"usage\\" [DONE]"}}]}\n\n'
    assert not is_last(spoken) and not is_done(spoken) and not only_usage(spoken)
    assert (
        is_done("data: [DONE]\n\n")
        and is_done("data:[DONE]")
        and is_last('data: {"type": "message_stop"}\r\n\r\n')
    )
    assert only_usage('data: {"choices": [], "usage": {"prompt_tokens": 1}}\n\n')
    assert not only_usage('data: {"choices": [], "prompt_filter_results": [], "usage": null}\n\n')


@pytest.mark.parametrize(
    "event", ["", "data:", "data: [1]", "data: {", "data: nan", ": {}", "data: " + "[" * 10**5]
)
def test_events_without_an_object(event: str) -> None:
    """What is no JSON object tells nothing, whatever it is."""
    assert body_of(event) is None and body_of(Recorded(200, (), event)) is None
    assert body_of("data: " + '{"a":' * 10**5) is None


def test_data_over_several_lines() -> None:
    """Lines of data are joined as the standard says; a line separator inside JSON text is no line end."""
    assert body_of('event: x\ndata: {"a":\ndata: 1}\n\n') == {"a": 1}
    assert body_of('data: {"a": "x\u2028data: y"}\n\n') == {"a": "x\u2028data: y"}
