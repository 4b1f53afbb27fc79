"""What goes over the wire, kept as text: a whole answer, or a stream event by event.

What is kept is what the server sent, character for character, so that the SDK makes of it what it made of the
first one. A stream is a list: its head (a :class:`Recorded` without a body), then one text an event. Whatever is
not UTF-8, not JSON or no event stream is :class:`NotJson`: passed on unchanged, never stored and never shared.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from costkit.errors import UsageError
from costkit.usage import COMPLETE, read_response, read_stream

__all__ = [
    "Events",
    "NotJson",
    "Recorded",
    "admission",
    "body_of",
    "bytes_of",
    "is_done",
    "is_last",
    "only_usage",
]

_KEPT = ("content-type", "request-id", "x-request-id", "apim-request-id", "x-amzn-requestid")
_ENDS = frozenset({"message_stop", "response.completed", "response.incomplete", "response.failed"})
_BLANK_LINE = re.compile(r"\r?\n\r?\n|\r\r")
_LINE_END = re.compile(r"\r\n|\n|\r")


@dataclass(frozen=True, slots=True)
class Recorded:
    """A successful answer as the server sent it; of its headers only its type and its request id.

    >>> str(Recorded(200, (("content-type", "application/json"),), "{}"))
    '{}'
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    body: str

    def __str__(self) -> str:
        return self.body


class NotJson:
    """Bytes, or a whole response, that are passed on as they are: the store refuses this class, and names it."""

    __slots__ = ("held",)

    def __init__(self, held: Any) -> None:
        self.held = held


def whole(response: Any) -> Recorded | NotJson:
    """A response that was read to its end."""
    try:
        text = response.content.decode("utf-8")
        if response.status_code == 200 and "json" in _type(response) and isinstance(json.loads(text), dict):
            return Recorded(200, _kept(response), text)
    except (ValueError, RecursionError):
        pass
    return NotJson(response)


def head(response: Any) -> Recorded | NotJson:
    """The head of a stream that was opened; NotJson where it is no stream of events."""
    if response.status_code == 200 and "text/event-stream" in _type(response):
        return Recorded(200, _kept(response), "")
    return NotJson(b"")


def _type(response: Any) -> str:
    return str(response.headers.get("content-type", "")).lower()


def _kept(response: Any) -> tuple[tuple[str, str], ...]:
    found = ((name, response.headers.get(name)) for name in _KEPT)
    return tuple((name, str(value)) for name, value in found if value is not None)


class Events:
    """Cuts the bytes of a stream into its events; ``feed(b"")`` at the end gives what is left.

    >>> events = Events()
    >>> list(events.feed(b"data: 1\\n\\nda")), list(events.feed(b"ta: 2\\n\\n"))
    (['data: 1\\n\\n'], ['data: 2\\n\\n'])
    """

    def __init__(self, shared: bool = True) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._shared = shared
        self._held: list[str] = []  # pieces of an event whose end has not come
        self._tail = ""

    def feed(self, data: bytes) -> Iterator[str | NotJson]:
        """The events that end in ``data``."""
        if not self._shared:
            if data:
                yield NotJson(data)
            return
        pending = self._decoder.getstate()[0]
        try:
            text = self._decoder.decode(data, final=not data)
        except UnicodeDecodeError:
            self._shared = False
            yield NotJson("".join(self._held).encode() + pending + data)
            return
        yield from self._cut(text, last=not data)

    def _cut(self, text: str, last: bool) -> Iterator[str]:
        # A blank line may have begun in the piece before: at most three of its characters.
        start = -len(self._tail)
        for found in _BLANK_LINE.finditer(self._tail + text):
            end = found.end() - len(self._tail)
            yield "".join(self._held) + text[max(start, 0) : end]
            self._held, start = [], end
        rest = text[max(start, 0) :]
        self._held.append(rest)
        self._tail = (self._tail + text)[-3:] if start < 0 else rest[-3:]
        if last and (left := "".join(self._held)):
            self._held, self._tail = [], ""
            yield left


def bytes_of(chunk: Any) -> bytes:
    """What the SDK is given for a chunk."""
    if isinstance(chunk, str):
        return chunk.encode()
    return chunk.held if isinstance(chunk, NotJson) else b""


def body_of(thing: Any) -> dict[str, Any] | None:
    """The JSON object of an answer or of an event; None for heads, pings, ``[DONE]`` and what is no JSON."""
    text = thing.body if isinstance(thing, Recorded) else _data(thing) if isinstance(thing, str) else ""
    if not text.lstrip().startswith("{"):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _data(event: str) -> str:
    lines = (line for line in _LINE_END.split(event) if line.startswith("data:"))
    return "\n".join(line[5:].removeprefix(" ") for line in lines)


def is_done(chunk: Any) -> bool:
    """Whether nothing comes after this event: OpenAI's ``[DONE]``."""
    return isinstance(chunk, str) and "[DONE]" in chunk and _data(chunk).startswith("[DONE]")


def is_last(chunk: Any) -> bool:
    """Whether this event ends the answer."""
    if is_done(chunk):
        return True
    if not isinstance(chunk, str) or not any(f'"{end}"' in chunk for end in _ENDS):
        return False
    return (body_of(chunk) or {}).get("type") in _ENDS


def only_usage(chunk: Any) -> bool:
    """Whether this is the extra chunk that ``stream_options.include_usage`` asks for."""
    if not isinstance(chunk, str) or '"usage"' not in chunk:
        return False
    body = body_of(chunk) or {}
    return body.get("choices") == [] and isinstance(body.get("usage"), dict)


def admission(own: Callable[[Any], bool] | None) -> Callable[[Any], bool]:
    """What ``exact(admit=...)`` is for a wrapped client: only whole answers, then as the user's own says.

    ``own`` is called with the answer's JSON as a dict, for a stream with the list of its events' dicts.
    """

    def admit(value: Any) -> bool:
        if not isinstance(value, list):
            body = body_of(value)
            return body is not None and (_complete(body) if own is None else bool(own(body)))
        if not value or not isinstance(value[0], Recorded) or not any(is_last(chunk) for chunk in value[-3:]):
            return False
        bodies = [body for chunk in value if (body := body_of(chunk)) is not None]
        return _complete(bodies) if own is None else bool(own(bodies))

    return admit


def _complete(told: Any) -> bool:
    """Finished, by the provider's own word, and no refusal."""
    bodies = told if isinstance(told, list) else [told]
    if any(_refuses(body) for body in bodies):
        return False
    try:
        seen = read_stream(told) if isinstance(told, list) else read_response(told)
    except UsageError:  # what it cost is unknown; whether it is whole is another question
        bodies = [_without_usage(body) for body in bodies]
        seen = read_stream(bodies) if isinstance(told, list) else read_response(bodies[0])
    return seen is not None and seen.finish is not None and seen.finish.lower() in COMPLETE


def _refuses(body: dict[str, Any]) -> bool:
    if str(body.get("type")).startswith("response.refusal"):
        return True
    for choice in _dicts(body.get("choices")):
        if any(part.get("refusal") for part in _dicts([choice.get("message"), choice.get("delta")])):
            return True
    items = _dicts(body.get("output"))
    return any(part.get("type") == "refusal" for item in items for part in _dicts(item.get("content")))


def _without_usage(body: dict[str, Any]) -> dict[str, Any]:
    inner = {
        name: {**body[name], "usage": None}
        for name in ("message", "response")
        if type(body.get(name)) is dict
    }
    return {**body, **inner, "usage": None}


def _dicts(items: Any) -> list[dict[str, Any]]:
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []
