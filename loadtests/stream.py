"""A streamed chat completion, read from the bytes of its HTTP response as they come.

Nothing here opens a socket or knows a clock: bytes go in with the moment they were read at, and out come the stamps,
the counts and the error of one request. A chunk that differs from an earlier one of the same answer in its text alone
is recognised by the bytes around that text; only the others are parsed as JSON.

>>> answer = Answer()
>>> head = b"HTTP/1.1 200 OK\\r\\ncontent-type: text/event-stream\\r\\ntransfer-encoding: chunked\\r\\n\\r\\n"
>>> body = b'data: {"choices":[{"delta":{"content":"Hi"},"finish_reason":"stop"}]}\\n\\ndata: [DONE]\\n\\n'
>>> answer.feed(head, 1.0), answer.feed(b"%x\\r\\n%b\\r\\n0\\r\\n\\r\\n" % (len(body), body), 1.5)
(False, True)
>>> answer.first, answer.finish, answer.error, answer.reusable
(1.5, 'stop', None, True)
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["Answer", "BadResponse"]

_MOST_HEAD = 64 * 1024
_MOST_LINE = 4 * 1024 * 1024
_MOST_BODY = 64 * 1024 * 1024
_MOST_KEPT = 64 * 1024  # of the body of an answer that is no stream
_REASONING = ("reasoning_content", "reasoning")
_OTHER_OUTPUT = ("refusal", "tool_calls", "function_call")


class BadResponse(Exception):
    """The response cannot be read on; the message is the short code of a sample's error."""


@dataclass(frozen=True, slots=True)
class _Around:
    """The bytes of an event before and after its text, where nothing else changes."""

    before: bytes
    after: bytes
    reasoning: bool


class Answer:
    """One response: feed it what was read and when; stamps are whatever clock the caller has.

    ``keep_text`` keeps the answer's texts in ``texts``, for those who must say them again.

    After the end ``error`` is None or a short code: ``status_503``, ``not_a_stream``, ``html``, ``content_encoding``,
    ``bad_http``, ``bad_event``, ``stream_error``, ``no_finish_reason``, ``no_content``, ``cut_off``, ``too_long``.
    """

    __slots__ = (
        "_around",
        "_body",
        "_buffer",
        "_chunk",
        "_ended",
        "_event",
        "_keep",
        "_left",
        "_line",
        "_streams",
        "_taken",
        "content_type",
        "error",
        "finish",
        "first",
        "first_output",
        "gaps",
        "kept",
        "last",
        "model",
        "retry_after",
        "reusable",
        "status",
        "texts",
        "usage",
    )

    def __init__(self, *, keep_text: bool = False) -> None:
        self.status: int | None = None
        self.content_type = ""
        self.retry_after: str | None = None
        self.error: str | None = None
        self.first: float | None = None
        self.first_output: float | None = None
        self.last: float | None = None
        self.gaps: list[float] = []
        self.finish: str | None = None
        self.model: str | None = None
        self.usage: dict[str, Any] | None = None
        self.reusable = False
        self.kept = b""
        self.texts: list[str] = []
        self._keep = keep_text
        self._buffer = bytearray()
        self._body: Callable[[float], bool] | None = None
        self._left = 0
        self._chunk = -1  # bytes left of a chunk; -1: its size comes next, -2: the line end after it
        self._streams = False
        self._ended = False
        self._taken = 0
        self._line = bytearray()
        self._event: list[bytes] = []
        self._around: list[_Around] = []

    def feed(self, data: bytes, at: float) -> bool:
        """Take what was read at one moment; True when the response is over."""
        if self._ended:
            return True
        self._buffer += data
        try:
            if self._body is None and not self._head():
                return False
            assert self._body is not None
            if self._body(at):
                self._close(None)
        except BadResponse as bad:
            self.reusable = False
            self._close(str(bad))
        return self._ended

    def end_of_input(self, error: str | None = None) -> None:
        """The connection is closed, or is given up for ``error``."""
        if not self._ended:
            whole = self._body == self._until_close and error is None
            self.reusable = False
            self._close(None if whole or (error is None and self.finish is not None) else error or "cut_off")

    @property
    def started(self) -> bool:
        """Has anything come?"""
        return self.status is not None or bool(self._buffer)

    def _close(self, error: str | None) -> None:
        self._ended = True
        if error is None and self.status is not None and not self._streams:
            error = self._why_no_stream()
        if error is None and self.error is None:
            error = (
                "no_finish_reason"
                if self.finish is None
                else None
                if self.first is not None
                else "no_content"
            )
        self.error = self.error or error

    def _why_no_stream(self) -> str:
        if self.status != 200:
            return f"status_{self.status}"
        text = self.kept.lstrip()[:1]
        return "html" if "html" in self.content_type or text == b"<" else "not_a_stream"

    def _head(self) -> bool:
        """Read the head once it is whole."""
        while True:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                if len(self._buffer) > _MOST_HEAD or not b"HTTP/".startswith(bytes(self._buffer[:5])):
                    raise BadResponse("bad_http")
                return False
            lines = bytes(self._buffer[:end]).decode("latin-1").split("\r\n")
            del self._buffer[: end + 4]
            self._read_head(lines)
            assert self.status is not None
            if self.status >= 200:
                return True

    def _read_head(self, lines: list[str]) -> None:
        version, _, rest = lines[0].partition(" ")
        if not version.startswith("HTTP/1.") or not rest[:3].isdigit():
            raise BadResponse("bad_http")
        self.status = int(rest[:3])
        headers: dict[str, str] = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        self.content_type = headers.get("content-type", "").lower()
        self.retry_after = headers.get("retry-after")
        if self.status < 200:
            return
        keep = headers.get("connection", "").lower()
        self.reusable = keep != "close" if version == "HTTP/1.1" else keep == "keep-alive"
        if headers.get("content-encoding", "identity").lower() not in {"identity", ""}:
            raise BadResponse("content_encoding")
        self._streams = self.status == 200 and self.content_type.startswith("text/event-stream")
        self._choose_body(headers)

    def _choose_body(self, headers: dict[str, str]) -> None:
        coding = headers.get("transfer-encoding", "").lower()
        if coding == "chunked":
            self._body = self._chunks
        elif coding:
            raise BadResponse("bad_http")
        elif "content-length" in headers:
            length = headers["content-length"]
            if not length.isascii() or not length.isdigit():
                raise BadResponse("bad_http")
            self._left, self._body = int(length), self._counted
        elif self.status in {204, 304}:
            self._left, self._body = 0, self._counted
        else:
            self.reusable, self._body = False, self._until_close

    def _until_close(self, at: float) -> bool:
        data = bytes(self._buffer)
        self._buffer.clear()
        self._take(data, at)
        return False

    def _counted(self, at: float) -> bool:
        data = bytes(self._buffer[: self._left])
        self._buffer.clear()
        self._left -= len(data)
        self._take(data, at)
        return self._left == 0

    def _chunks(self, at: float) -> bool:
        buffer, position, taken = self._buffer, 0, []
        over = False
        while not over:
            if self._chunk >= 0:
                part = bytes(buffer[position : position + self._chunk])
                position += len(part)
                self._chunk -= len(part)
                taken.append(part)
                if self._chunk:
                    break
                self._chunk = -2
            end = buffer.find(b"\r\n", position)
            if end < 0:
                if len(buffer) - position > 1024:
                    raise BadResponse("bad_http")
                break
            line, position = bytes(buffer[position:end]), end + 2
            over = self._chunk_line(line)
        del buffer[:position]
        self._take(taken[0] if len(taken) == 1 else b"".join(taken), at)
        return over

    def _chunk_line(self, line: bytes) -> bool:
        """A line between chunks; True at the last."""
        if self._chunk == -2 and not line:
            self._chunk = -1
        elif self._chunk == -1:
            try:
                size = int(line.partition(b";")[0], 16)
            except ValueError:
                size = -1
            if not 0 <= size <= _MOST_BODY:
                raise BadResponse("bad_http")
            self._chunk = size if size else -3
        elif self._chunk == -3:
            return not line  # trailers, then an empty line
        else:
            raise BadResponse("bad_http")
        return False

    def _take(self, data: bytes, at: float) -> None:
        """A part of the body: lines of events where it is a stream."""
        self._taken += len(data)
        if self._taken > _MOST_BODY:
            raise BadResponse("too_long")
        if not self._streams:
            self.kept += data[: _MOST_KEPT - len(self.kept)]
            return
        if self._line:
            data = bytes(self._line) + data
            self._line.clear()
        lines = data.split(b"\n")
        last = lines.pop()
        if last:
            if len(last) > _MOST_LINE:
                raise BadResponse("too_long")
            self._line += last
        for line in lines:
            if line.startswith(b"data:") and not self._event:
                self._event.append(line)
            elif line in {b"", b"\r"}:
                if self._event:
                    self._whole(at)
            elif line.startswith(b"data:"):
                self._event.append(line)

    def _whole(self, at: float) -> None:
        """An event has come to its end."""
        lines, self._event = self._event, []
        payload = b"\n".join(line[5:].strip() for line in lines)
        if payload == b"[DONE]" or not payload:
            return
        for around in self._around:
            if payload.startswith(around.before) and payload.endswith(around.after):
                text = payload[len(around.before) : -len(around.after)]
                if len(payload) > len(around.before) + len(around.after) and _plain(text):
                    self._stamp(at, reasoning=around.reasoning)
                    if self._keep and not around.reasoning:
                        self.texts.append(text.decode("utf-8", "replace"))
                    return
        self._parse(payload, at)

    def _parse(self, payload: bytes, at: float) -> None:
        try:
            event = json.loads(payload)
        except (ValueError, RecursionError):
            raise BadResponse("bad_event") from None
        if not isinstance(event, dict):
            raise BadResponse("bad_event")
        if event.get("error"):
            self.error = self.error or "stream_error"
        if isinstance(event.get("usage"), dict):
            self.usage = event["usage"]
        if self.model is None and isinstance(event.get("model"), str):
            self.model = event["model"][:200]
        choices = event.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, dict):
            return
        delta = choice.get("delta")
        self._delta(delta if isinstance(delta, dict) else {}, payload, at)
        if isinstance(choice.get("finish_reason"), str):
            self.finish = choice["finish_reason"][:40]

    def _delta(self, delta: dict[str, Any], payload: bytes, at: float) -> None:
        content = delta.get("content")
        output = bool(content) or any(delta.get(name) for name in _OTHER_OUTPUT)
        thought = next((name for name in _REASONING if delta.get(name)), None)
        if not output and thought is None:
            return
        self._stamp(at, reasoning=not output)
        if self._keep and isinstance(content, str):
            self.texts.append(content)
        name = "content" if output else thought
        if len(self._around) < 4 and name is not None and isinstance(delta.get(name), str):
            self._learn(payload, name, reasoning=not output)

    def _learn(self, payload: bytes, name: str, *, reasoning: bool) -> None:
        """Remember the bytes around a text, if they are around nothing else that could change or end."""
        before, mark, rest = payload.partition(b'"' + name.encode() + b'":')
        gap = len(rest) - len(rest.lstrip())
        text, quote, after = rest[gap + 1 :].partition(b'"')
        if not mark or not quote or rest[gap : gap + 1] != b'"' or not text or not _plain(text):
            return
        around = _Around(before + mark + rest[: gap + 1], quote + after, reasoning)
        try:
            probe = json.loads(around.before + b"@" + around.after)
            only = probe["choices"][0]
            plain = only["delta"][name] == "@" and not only.get("finish_reason")
        except (ValueError, LookupError, TypeError, AttributeError):
            return
        if plain and not probe.get("usage") and not probe.get("error") and around not in self._around:
            self._around.append(around)

    def _stamp(self, at: float, *, reasoning: bool) -> None:
        if self.last is not None:
            self.gaps.append(at - self.last)
        else:
            self.first = at
        self.last = at
        if not reasoning and self.first_output is None:
            self.first_output = at


def _plain(text: bytes) -> bool:
    """Inside a JSON string, and no end of it."""
    return b'"' not in text and b"\\" not in text
