"""The assistant behind OpenAI's chat protocol: routes, and one request from its bytes to the last chunk.

With costkit or without it, the code here is the same; it only hears from the outcome what a request cost.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from costkit.errors import CostkitError, RecentFailure, StreamLost
from costkit.wrapped import AsyncStreamCall, AsyncStreamOutcome
from serving.assistant.reply import Reply, Told
from serving.assistant.upstream import UpstreamError
from serving.simulated.wire import Connection, Request, error_body, frame, render
from serving.simulated.work import Ask, BadRequest, read_ask

__all__ = ["Endpoint"]

# Retrieval runs in the loop: a book for a question would stop everybody's answers.
MOST_CHARS = 4_000
ASK_AGAIN = 3
ERRORS = frozenset(status.value for status in HTTPStatus if status >= 400)
NO_TOKENS = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


class Endpoint:
    """Routes requests to answers of ``reply``, which costkit may have wrapped; of a running event loop.

    ``tenants`` are those it answers, ``tenant`` whose request is one that does not say (None: it is refused).
    """

    def __init__(self, reply: Reply, *, model: str, tenants: Sequence[str], tenant: str | None) -> None:
        self.live: set[Connection] = set()
        self.running: set[asyncio.Task[None]] = set()
        self.reply = reply
        self.model = model
        self.tenants = frozenset(tenants)
        self.tenant = tenant
        self._draining = False
        self._created = int(time.time())
        self._boot, self._count = os.urandom(4).hex(), itertools.count(1)
        self._routes: dict[str, tuple[str, Callable[[Request, Connection], None]]] = {
            "/v1/chat/completions": ("POST", self._chat),
            "/v1/models": ("GET", self._models),
            "/health": ("GET", self._health),
        }

    def connect(self) -> Connection:
        """The protocol of a new connection."""
        return Connection(self._handle, self.live)

    async def drain(self, seconds: float) -> None:
        """Answer what runs, refuse what comes; after so long close what is left."""
        self._draining = True
        for connection in tuple(self.live):
            if connection.exchange is None:
                connection.close()
        if self.running:
            await asyncio.wait(tuple(self.running), timeout=seconds)
        for connection in tuple(self.live):
            connection.abort()
        if self.running:
            await asyncio.wait(tuple(self.running), timeout=5.0)

    def _handle(self, request: Request, connection: Connection) -> None:
        method, route = self._routes.get(request.path, ("", self._health))
        if method != request.method:
            status, what = (405, "method") if method else (404, "path")
            body = error_body(f"Unknown {what}: {request.method} {request.path}", "invalid_request_error")
            connection.send(render(status, body))
            connection.finish()
        elif self._draining:
            body = error_body("The service is shutting down.", "overloaded_error", code="shutting_down")
            connection.send(render(503, body, extra="retry-after: 1\r\nconnection: close\r\n"))
            connection.close()
        else:
            route(request, connection)

    def _chat(self, request: Request, connection: Connection) -> None:
        turn = Turn(self, request, connection, f"chatcmpl-{self._boot}-{next(self._count)}", self._created)
        connection.exchange = turn
        task = asyncio.get_running_loop().create_task(turn.run())
        turn.task = task
        self.running.add(task)
        task.add_done_callback(self.running.discard)

    def _models(self, _request: Request, connection: Connection) -> None:
        model = {"id": self.model, "object": "model", "created": self._created, "owned_by": "costkit"}
        connection.send(render(200, json.dumps({"object": "list", "data": [model]}).encode()))
        connection.finish()

    def _health(self, _request: Request, connection: Connection) -> None:
        connection.send(render(200, b""))
        connection.finish()


class Turn:
    """One chat completion. Its client's going cancels it, and with it the call of the model."""

    task: asyncio.Task[None]

    def __init__(
        self, endpoint: Endpoint, request: Request, connection: Connection, id: str, created: int
    ) -> None:
        self._endpoint = endpoint
        self._request = request
        self._connection = connection
        self._head = {"id": id, "created": created, "model": endpoint.model}
        self._begun = False
        self._out: list[bytes] = []

    def cancel(self) -> None:
        """The client has gone."""
        self.task.cancel()

    async def run(self) -> None:
        """Answer, whatever happens; nothing of what was asked or answered is printed."""
        try:
            ask, question, tenant = self._read()
            stream = self._texts(question, tenant)
            async with contextlib.aclosing(stream) as texts:
                await (self._stream(ask, texts) if ask.stream else self._plain(texts))
        except BadRequest as error:
            self._fail(error.status, error_body(str(error), "invalid_request_error", error.param, error.code))
        except UpstreamError as error:
            body = error.body or error_body(f"{error}.", "upstream_error", code="upstream_error")
            self._fail(error.status, body, error.retry_after)
        except (RecentFailure, StreamLost) as error:
            self._fail(503, error_body(str(error), "upstream_error", code="try_again"), "1")
        except CostkitError as error:
            self._fail(500, error_body(str(error), "costkit_error", code=type(error).__name__))
        except Exception as error:  # noqa: BLE001 - one request must not end the service, nor its text be printed
            print(f"assistant: {type(error).__name__} in {self._head['id']}", file=sys.stderr)
            self._fail(500, error_body("The assistant failed.", "server_error"))

    def _read(self) -> tuple[Ask, str, str]:
        """The request, its question and its tenant; raises BadRequest."""
        ask, has = read_ask(self._request.body), self._endpoint
        if ask.model != has.model:
            message = f"The model {ask.model[:100]!r} does not exist; {has.model!r} does."
            raise BadRequest(message, "model", 404, "model_not_found")
        tenant = self._request.headers.get("x-tenant") or has.tenant
        if not tenant:
            raise BadRequest("Say whose request it is: send the header X-Tenant.", "X-Tenant")
        if tenant not in has.tenants:
            raise BadRequest(f"The tenant {tenant[:100]!r} is not known.", "X-Tenant", 403, "unknown_tenant")
        return ask, _question(ask.messages), tenant

    async def _texts(self, question: str, tenant: str) -> AsyncGenerator[Any, None]:
        """The answer's texts, then its usage: costkit's account of the request in it, where there is one.

        A request that shares another's call loses its stream when the client of that other leaves: it asks again, and
        goes on where it was, as long as the answer begins with what this client has read.
        """
        shown, chances = "", ASK_AGAIN
        while True:
            told, done = Told(), ""
            stream: Any = self._reply(question, tenant, told)
            try:
                async with contextlib.aclosing(stream) as texts:
                    async for text in texts:
                        done += text
                        if len(done) > len(shown):
                            if not done.startswith(shown):
                                raise UpstreamError(502, "the answer was lost, and asked again it is another")
                            yield done[len(shown) :]
                            shown = done
                break
            except StreamLost:
                if not chances:
                    raise
                chances -= 1
        yield {**(told.usage or NO_TOKENS), **_account(stream)}

    def _reply(self, question: str, tenant: str, told: Told) -> AsyncIterator[str]:
        reply = self._endpoint.reply
        if isinstance(reply, AsyncStreamCall):
            return reply.outcome(question, tenant=tenant, told=told)
        return reply(question, tenant=tenant, told=told)

    async def _stream(self, ask: Ask, texts: AsyncIterator[Any]) -> None:
        usage: Mapping[str, Any] = NO_TOKENS
        async for text in texts:
            if isinstance(text, str):
                self._say({"content": text} if self._begun else {"role": "assistant", "content": text})
            else:
                usage = text
        self._begin()
        self._out.append(self._chunk({}, "stop"))
        if ask.include_usage:
            self._out.append(frame(self._data(choices=[], usage=usage)))
        self._out.append(frame(b"data: [DONE]\n\n") + b"0\r\n\r\n")
        self._flush()
        self._connection.finish()

    async def _plain(self, texts: AsyncIterator[Any]) -> None:
        parts = [text async for text in texts]
        message = {"role": "assistant", "content": "".join(parts[:-1])}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        body = {**self._head, "object": "chat.completion", "choices": [choice], "usage": parts[-1]}
        self._connection.send(render(200, json.dumps(body).encode(), extra=self._id_line))
        self._connection.finish()

    @property
    def _id_line(self) -> str:
        return f"x-request-id: {self._head['id']}\r\n"

    def _begin(self) -> None:
        """The headers of a stream, with its first chunk: until then a failure has a status of its own."""
        if not self._begun:
            self._begun = True
            self._out.append(
                f"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n"
                f"transfer-encoding: chunked\r\n{self._id_line}\r\n".encode()
            )

    def _say(self, delta: Mapping[str, str]) -> None:
        """Send a chunk when the loop comes round: a stored answer, which has no pauses, then leaves in one piece."""
        if not self._out:
            asyncio.get_running_loop().call_soon(self._flush)
        self._begin()
        self._out.append(self._chunk(delta))

    def _flush(self) -> None:
        if self._out:
            self._connection.send(b"".join(self._out))
            self._out.clear()

    def _chunk(self, delta: Mapping[str, str], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return frame(self._data(choices=[choice]))

    def _data(self, **more: object) -> bytes:
        body = {**self._head, "object": "chat.completion.chunk", **more}
        return b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"

    def _fail(self, status: int, body: bytes, retry_after: str | None = None) -> None:
        """An error: with its status, or, once the stream has begun, as its last event, without a finish or [DONE]."""
        if self._begun:
            self._flush()
            text = json.dumps(json.loads(body), separators=(",", ":")).encode()
            self._connection.send(frame(b"data: " + text + b"\n\n") + b"0\r\n\r\n")
            self._connection.finish()
            return
        status = status if status in ERRORS else 502
        later = f"retry-after: {retry_after}\r\n" if retry_after else ""
        self._connection.send(render(status, body, extra=f"{self._id_line}{later}"))
        self._connection.finish()


def _account(stream: object) -> dict[str, Any]:
    """What costkit knows of a stream that has ended; nothing of one that it has not wrapped."""
    if not isinstance(stream, AsyncStreamOutcome) or stream.outcome is None:
        return {}
    outcome, cost = stream.outcome, stream.outcome.cost
    spent = None if cost.unknown else cost.provider + cost.overhead
    return {"costkit": {"cost_nano_usd": spent, "saving": outcome.saving, "query_id": outcome.query_id}}


def _question(messages: Sequence[Mapping[str, Any]]) -> str:
    """The text of the last message, which must be the user's: the assistant has no memory of earlier ones."""
    last = messages[-1]
    content = last.get("content")
    if isinstance(content, list):
        content = "\n".join(
            p["text"] for p in content if isinstance(p, dict) and isinstance(p.get("text"), str)
        )
    if last.get("role") != "user" or not isinstance(content, str) or not content.strip():
        raise BadRequest("The last of 'messages' must be the user's and hold text.", "messages")
    if len(content) > MOST_CHARS:
        raise BadRequest(f"The question is longer than {MOST_CHARS:,} characters.", "messages")
    return content
