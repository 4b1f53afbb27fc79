"""A loopback server that answers the OpenAI and Anthropic protocols by a script: the words of the question.

text, tools, json, refusal, length, status <n>     what the answer is
cut <n>, stop <n>    a stream that breaks off, or just ends, after n events
endless              a stream that ends when its reader leaves
garbage, latin       no JSON; bytes that are no UTF-8
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ANSWER = "Five days – naïve ☕😀."
TOOL = {"name": "look_up", "arguments": '{"order": 7}'}
STRUCTURED = '{"days": 5, "sure": true}'


@dataclass(slots=True)
class Asked:
    """A request as it came."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass(slots=True)
class Script:
    """The server's side: what came, how it answers."""

    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    piece: int = 0  # bytes a write; 0: an event a write
    wait: float = 0.0  # seconds before an answer
    pause: float = 0.0  # seconds between the head of a stream and its first event
    gone: threading.Event = field(default_factory=threading.Event)  # a reader has left


@contextlib.contextmanager
def serving() -> Iterator[Script]:
    """A running server."""
    script = Script()

    class Handler(_Handler):
        told = script

    class Server(ThreadingHTTPServer):
        request_queue_size = 128
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A reader that left is nothing to print."""

    with Server(("127.0.0.1", 0), Handler) as server:
        script.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield script
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    told: Script

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._json(
            200, {"object": "list", "data": [{"id": "m", "object": "model", "created": 1, "owned_by": "x"}]}
        )

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers.get("content-length", 0)))
        body = json.loads(data) if data.startswith(b"{") else {}
        path = self.path.partition("?")[0]
        self.told.asked.append(Asked(self.path, {k.lower(): v for k, v in self.headers.items()}, body))
        time.sleep(self.told.wait)
        what = question(body)
        if what.startswith("status"):
            code = int(what.split()[1])
            error = {"type": "error", "error": {"type": "some_error", "message": f"refused with {code}"}}
            self._json(code, error, [("retry-after", "0")])
        elif body.get("stream"):
            self._stream(events(path, body, what), what)
        elif what == "garbage":
            self._send(200, b"<html>not yet</html>", "text/html")
        elif what == "latin":
            self._send(200, b'{"object": "chat.completion", "choices": [], "x": "\xe9"}', "application/json")
        else:
            self._json(200, whole(path, body, what))

    def _json(self, status: int, body: Any, more: list[tuple[str, str]] | None = None) -> None:
        self._send(status, json.dumps(body, ensure_ascii=False, indent=1).encode(), "application/json", more)

    def _send(self, status: int, data: bytes, kind: str, more: list[tuple[str, str]] | None = None) -> None:
        self.send_response(status)
        own = [("content-type", kind), ("x-request-id", f"req-{len(self.told.asked)}"), ("x-left", "41")]
        own += [("request-id", f"req-{len(self.told.asked)}"), ("content-length", str(len(data)))]
        for name, value in own + (more or []):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, lines: list[str], what: str) -> None:
        self.send_response(200)
        own = [
            ("content-type", "text/event-stream; charset=utf-8"),
            ("x-request-id", "req-s"),
            ("x-left", "41"),
        ]
        for name, value in [*own, ("request-id", "req-s"), ("transfer-encoding", "chunked")]:
            self.send_header(name, value)
        self.end_headers()
        word, _, number = what.partition(" ")
        count = int(number) if word in ("cut", "stop") else len(lines)
        data = [line.encode() for line in lines[:count]]
        if word == "latin":
            data[2] += b": \xe9\n\n"
        if self.told.piece:
            joined = b"".join(data)
            data = [joined[at : at + self.told.piece] for at in range(0, len(joined), self.told.piece)]
        try:
            self.wfile.flush()
            time.sleep(self.told.pause)
            for part in data:
                self._chunk(part)
            while word == "endless":
                self._chunk(b": still here\n\n")
                time.sleep(0.002)
            if word == "cut":
                self.close_connection = True
                return
            self._chunk(b"")
        except OSError:
            self.told.gone.set()
            self.close_connection = True

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()


def question(body: dict[str, Any]) -> str:
    """The last text of a request."""
    if "messages" in body:
        content = body["messages"][-1]["content"]
        return str(content if isinstance(content, str) else content[-1].get("text", ""))
    found = body.get("input", body.get("prompt", ""))
    return str(
        found
        if isinstance(found, str)
        else found[-1].get("content", "")
        if isinstance(found[-1], dict)
        else ""
    )


def whole(path: str, body: dict[str, Any], what: str) -> dict[str, Any]:
    """A whole answer."""
    model = body.get("model", "m")
    if path.endswith("/embeddings"):
        vector = [{"object": "embedding", "index": 0, "embedding": [0.25, -1.5]}]
        return {
            "object": "list",
            "model": model,
            "data": vector,
            "usage": {"prompt_tokens": 3, "total_tokens": 3},
        }
    if path.endswith("/messages") or path.endswith("rawPredict"):
        return _message(model, what)
    if path.endswith("/responses"):
        return _response(model, what)
    if not path.endswith("/chat/completions"):
        choice: dict[str, Any] = {"index": 0, "text": ANSWER, "finish_reason": "stop", "logprobs": None}
        return {"object": "text_completion", "id": "cmpl-1", "created": 1, "model": model, "choices": [choice],
                "usage": _chat_usage()}  # fmt: skip
    message: dict[str, Any] = {"role": "assistant", "content": ANSWER, "refusal": None}
    finish = "length" if what == "length" else "stop"
    if what == "tools":
        call = {"id": "call-1", "type": "function", "function": TOOL}
        message, finish = {"role": "assistant", "content": None, "tool_calls": [call]}, "tool_calls"
    elif what == "json":
        message["content"] = STRUCTURED
    elif what == "refusal":
        message = {"role": "assistant", "content": None, "refusal": "no"}
    return {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": model, "usage": _chat_usage(),
            "choices": [{"index": 0, "message": message, "finish_reason": finish, "logprobs": None}],
            "of_a_gateway": {"x": 1}}  # fmt: skip


def _chat_usage() -> dict[str, Any]:
    return {"prompt_tokens": 1000, "completion_tokens": 50, "total_tokens": 1050,
            "prompt_tokens_details": {"cached_tokens": 900}}  # fmt: skip


def _message(model: str, what: str) -> dict[str, Any]:
    content: list[dict[str, Any]] = [{"type": "text", "text": STRUCTURED if what == "json" else ANSWER}]
    reason = {"tools": "tool_use", "length": "max_tokens", "refusal": "refusal"}.get(what, "end_turn")
    if what == "tools":
        content.append({"type": "tool_use", "id": "toolu_1", "name": TOOL["name"], "input": {"order": 7}})
    return {"id": "msg_1", "type": "message", "role": "assistant", "model": model, "content": content,
            "stop_reason": reason, "stop_sequence": None,
            "usage": {"input_tokens": 1000, "output_tokens": 50, "cache_read_input_tokens": 0,
                      "cache_creation_input_tokens": 0}}  # fmt: skip


def _response(model: str, what: str) -> dict[str, Any]:
    part: dict[str, Any] = {
        "type": "output_text",
        "text": STRUCTURED if what == "json" else ANSWER,
        "annotations": [],
    }
    if what == "refusal":
        part = {"type": "refusal", "refusal": "no"}
    item: dict[str, Any] = {"type": "message", "id": "item-1", "role": "assistant", "status": "completed"}
    item["content"] = [part]
    if what == "tools":
        item = {"type": "function_call", "id": "item-1", "call_id": "call-1", "status": "completed", **TOOL}
    cut = what == "length"
    return {"id": "resp_1", "object": "response", "created_at": 1, "model": model, "output": [item],
            "status": "incomplete" if cut else "completed", "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None, "instructions": None,
            "metadata": {}, "parallel_tool_calls": True, "temperature": 1.0, "tool_choice": "auto", "tools": [],
            "top_p": 1.0, "usage": {"input_tokens": 1000, "output_tokens": 50, "total_tokens": 1050,
                                    "input_tokens_details": {"cached_tokens": 900},
                                    "output_tokens_details": {"reasoning_tokens": 0}}}  # fmt: skip


def events(path: str, body: dict[str, Any], what: str) -> list[str]:
    """A streamed answer, one text an event."""
    model = body.get("model", "m")
    if path.endswith("/messages") or path.endswith("streamRawPredict"):
        return [_named(event) for event in _message_events(model, what)]
    if path.endswith("/responses"):
        return [_named(event) for event in _response_events(model, what)]
    asked = (body.get("stream_options") or {}).get("include_usage")
    chunks = _chat_chunks(model, what, chat=path.endswith("/chat/completions"))
    if asked:
        chunks = [{**chunk, "usage": None} for chunk in chunks]
        chunks.append({**chunks[0], "choices": [], "usage": _chat_usage()})
    return [f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n" for chunk in chunks] + ["data: [DONE]\n\n"]


def _named(event: dict[str, Any]) -> str:
    return f"event: {event['type']}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n"


def _chat_chunks(model: str, what: str, chat: bool) -> list[dict[str, Any]]:
    kind = "chat.completion.chunk" if chat else "text_completion"
    common = {"id": "chatcmpl-1", "object": kind, "created": 1, "model": model}

    def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        inner = {"delta": delta} if chat else {"text": delta.get("content", "")}
        return {**common, "choices": [{"index": 0, **inner, "finish_reason": finish, "logprobs": None}]}

    text = STRUCTURED if what == "json" else ANSWER
    if what == "tools":
        first = {
            "index": 0,
            "id": "call-1",
            "type": "function",
            "function": {"name": TOOL["name"], "arguments": ""},
        }
        rest = [{"index": 0, "function": {"arguments": part}} for part in ('{"or', 'der": 7}')]
        deltas: list[dict[str, Any]] = [{"tool_calls": [call]} for call in (first, *rest)]
    elif what == "refusal":
        deltas = [{"refusal": "no"}]
    else:
        deltas = [{"content": text[at : at + 4]} for at in range(0, len(text), 4)]
    finish = {"tools": "tool_calls", "length": "length"}.get(what, "stop")
    return [chunk({"role": "assistant", "content": ""}), *map(chunk, deltas), chunk({}, finish)]


def _message_events(model: str, what: str) -> list[dict[str, Any]]:
    done = _message(model, what)
    start = {**done, "content": [], "stop_reason": None, "usage": {**done["usage"], "output_tokens": 1}}
    found: list[dict[str, Any]] = [{"type": "message_start", "message": start}, {"type": "ping"}]
    for index, block in enumerate(done["content"]):
        if block["type"] == "text":
            empty: dict[str, Any] = {"type": "text", "text": ""}
            text = block["text"]
            deltas = [{"type": "text_delta", "text": text[at : at + 4]} for at in range(0, len(text), 4)]
        else:
            empty = {**block, "input": {}}
            deltas = [{"type": "input_json_delta", "partial_json": part} for part in ('{"or', 'der": 7}')]
        found.append({"type": "content_block_start", "index": index, "content_block": empty})
        found += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        found.append({"type": "content_block_stop", "index": index})
    told = {"stop_reason": done["stop_reason"], "stop_sequence": None}
    found.append({"type": "message_delta", "delta": told, "usage": {"output_tokens": 50}})
    return [*found, {"type": "message_stop"}]


def _response_events(model: str, what: str) -> list[dict[str, Any]]:
    done = _response(model, what)
    item = done["output"][0]
    open_one = {**done, "status": "in_progress", "output": [], "usage": None, "incomplete_details": None}
    found: list[dict[str, Any]] = [{"type": "response.created", "response": open_one}]
    at = {"output_index": 0, "item_id": "item-1"}
    if item["type"] == "function_call":
        empty: dict[str, Any] = {**item, "arguments": "", "status": "in_progress"}
        found.append({"type": "response.output_item.added", "output_index": 0, "item": empty})
        parts = ('{"or', 'der": 7}')
        found += [{"type": "response.function_call_arguments.delta", "delta": part, **at} for part in parts]
        found.append({"type": "response.function_call_arguments.done", "arguments": TOOL["arguments"],
                      "name": TOOL["name"], **at})  # fmt: skip
    else:
        empty = {**item, "content": [], "status": "in_progress"}
        found.append({"type": "response.output_item.added", "output_index": 0, "item": empty})
        part = item["content"][0]
        at = {**at, "content_index": 0}
        if part["type"] == "refusal":
            blank: dict[str, Any] = {"type": "refusal", "refusal": ""}
            middle: list[dict[str, Any]] = [{"type": "response.refusal.delta", "delta": "no", **at}]
        else:
            blank, text = {**part, "text": ""}, part["text"]
            middle = [{"type": "response.output_text.delta", "delta": text[n : n + 4], "logprobs": [], **at}
                      for n in range(0, len(text), 4)]  # fmt: skip
            middle.append({"type": "response.output_text.done", "text": text, "logprobs": [], **at})
        found.append({"type": "response.content_part.added", "part": blank, **at})
        found += [*middle, {"type": "response.content_part.done", "part": part, **at}]
    found.append({"type": "response.output_item.done", "output_index": 0, "item": item})
    found.append({"type": f"response.{done['status']}", "response": done})
    return [{**event, "sequence_number": number} for number, event in enumerate(found)]
