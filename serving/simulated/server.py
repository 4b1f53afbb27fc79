"""The simulated server: routes, and the life of one chat completion from arrival to truth log."""

from __future__ import annotations

import hmac
import json
import os
import time
from collections.abc import Callable
from functools import partial
from random import Random
from typing import IO

from serving.prompt_digest import prompt_digest
from serving.simulated.exchange import ChatExchange, Identity
from serving.simulated.faults import Fault, draw_fault, parse_freeze
from serving.simulated.recording import Recording
from serving.simulated.wire import Connection, Request, error_body, render
from serving.simulated.work import Ask, BadRequest, Work, read_ask, replay, simulate
from serving.simulated.world import Settings, Truth, World

PAGE = b"<!DOCTYPE html><html><head><title>Bad gateway</title></head><body><h1>Bad gateway</h1></body></html>"
HTML = "text/html; charset=utf-8"


class Held:
    """A request that came while the server was frozen; it is read when the server goes on."""

    def __init__(self, world: World, read: Callable[[], None]) -> None:
        self._world = world
        self._alarm = world.pace.at(world.pace.now(), read)

    def cancel(self) -> None:
        """The client has gone."""
        self._world.pace.cancel(self._alarm)


class SimulatedServer:
    """Routes requests to their answers; `connect` makes the protocol of a new connection."""

    def __init__(self, settings: Settings, recording: Recording | None, truth_log: IO[str] | None) -> None:
        self.live: set[Connection] = set()
        self._world = World(settings, truth_log)
        self._settings = settings
        self._recording = recording
        self._created = int(time.time())
        self._boot = os.urandom(4).hex()
        self._order = 0
        self._received = 0
        self._label = "x-costkit-replay: recorded\r\n" if recording else ""
        self._fingerprint = f"replay-{recording.meta_sha256[:8]}" if recording else "simulated"
        self._routes: dict[str, tuple[str, Callable[[Request, Connection], None]]] = {
            "/v1/chat/completions": ("POST", self._chat),
            "/v1/models": ("GET", self._models),
            "/health": ("GET", self._health),
            "/metrics": ("GET", self._metrics),
            "/control/freeze": ("POST", self._freeze),
        }

    @property
    def born(self) -> float:
        """When the server started, in seconds of the system's monotonic clock."""
        return self._world.born

    def connect(self) -> Connection:
        """Return the protocol of a new connection."""
        return Connection(self._handle, self.live)

    def _handle(self, request: Request, connection: Connection) -> None:
        if self._world.pace.frozen:
            connection.exchange = Held(self._world, partial(self._route, request, connection))
        else:
            self._route(request, connection)

    def _route(self, request: Request, connection: Connection) -> None:
        if self._settings.answer_html:
            connection.send(render(200, PAGE, HTML))
            connection.finish()
            return
        method, route = self._routes.get(request.path, ("", self._health))
        if method == request.method:
            route(request, connection)
            return
        status, what = (405, "method") if method else (404, "path")
        message = f"Unknown {what}: {request.method} {request.path}"
        connection.send(render(status, error_body(message, "invalid_request_error", code="not_found")))
        connection.finish()

    def _chat(self, request: Request, connection: Connection) -> None:
        self._received += 1
        if self._received == 1 and self._settings.freeze is not None:
            seconds, at = (time / self._settings.speed for time in self._settings.freeze)
            self._world.loop.call_later(at, self._world.pace.freeze, seconds)
        truth = Truth(f"chatcmpl-{self._boot}-{self._received}", self._world.since_birth(request.arrival))
        try:
            ask = self._read(request)
            rng = Random(f"{self._settings.seed}/{self._order}")
            fault = draw_fault(self._settings.faults, rng)
            work = self._work(ask, rng)
        except BadRequest as error:
            kind = {401: "authentication_error", 422: "not_recorded"}.get(
                error.status, "invalid_request_error"
            )
            body = error_body(str(error), kind, error.param, error.code)
            self._refuse(connection, truth, error.status, body)
            return
        self._order += 1
        if self._fails(fault, truth, connection):
            return
        who = Identity(truth.id, self._created, ask.model, self._fingerprint, self._label)
        struck = int(rng.random() * len(work.pieces)) if fault else 0
        exchange = ChatExchange(
            self._world, connection, ask=ask, work=work, truth=truth, who=who, fault=fault, struck=struck
        )
        connection.exchange = exchange
        exchange.arrive(self._world.pace.at_wall(request.arrival))

    def _read(self, request: Request) -> Ask:
        """The checked request; raises BadRequest for a wrong key, body or model."""
        key = self._settings.key
        if key is not None:
            given = request.headers.get("authorization", "").encode("latin-1", "replace")
            if not hmac.compare_digest(given, f"Bearer {key}".encode()):
                raise BadRequest("The API key is not known or has expired.", None, 401, "invalid_api_key")
        ask = read_ask(request.body)
        if ask.model != self._settings.model:
            message = f"The model {ask.model[:100]!r} does not exist; {self._settings.model!r} does."
            raise BadRequest(message, "model", 404, "model_not_found")
        return ask

    def _fails(self, fault: Fault | None, truth: Truth, connection: Connection) -> bool:
        """Answer the faults that need no slot, and a full queue; whether that was done."""
        kind = truth.fault = fault.kind if fault else None
        wait = self._settings.retry_after_s
        later = "" if wait is None else f"retry-after: {wait:g}\r\n"
        slots, limit = self._world.slots, self._settings.queue_limit
        if kind == "error500":
            self._refuse(connection, truth, 500, error_body("A simulated server error.", "server_error"))
        elif kind == "error503":
            body = error_body("A simulated overload.", "overloaded_error", code="overloaded")
            self._refuse(connection, truth, 503, body, later)
        elif kind == "rate429":
            body = error_body("A simulated rate limit.", "rate_limit_error", code="rate_limit_exceeded")
            self._refuse(connection, truth, 429, body, later)
        elif kind == "html":
            self._refuse(connection, truth, 502, PAGE, content_type=HTML)
        elif limit is not None and slots.running >= slots.size and slots.waiting >= limit:
            body = error_body(f"{limit} requests wait already.", "overloaded_error", code="queue_full")
            self._refuse(connection, truth, 503, body, later)
        else:
            return False
        return True

    def _work(self, ask: Ask, rng: Random) -> Work:
        if self._recording is None:
            have = self._settings
            return simulate(ask, rng, have.output_tokens_mean, have.output_tokens_sigma, have.reasoning_share)
        digest = prompt_digest(ask.body)
        answer = self._recording.answers.get(digest)
        if answer is None:
            raise BadRequest(
                f"The prompt digest {digest} is not in the recording made on {self._recording.date} of "
                f"{self._recording.model}; run `make record` to record it, or use the live server.",
                status=422,
                code="not_recorded",
            )
        return replay(answer)

    def _refuse(
        self,
        connection: Connection,
        truth: Truth,
        status: int,
        body: bytes,
        extra: str = "",
        *,
        content_type: str = "application/json",
    ) -> None:
        truth.status = status
        connection.send(render(status, body, content_type, f"x-request-id: {truth.id}\r\n{extra}"))
        self._world.log(truth)
        connection.finish()

    def _models(self, _request: Request, connection: Connection) -> None:
        model = {
            "id": self._settings.model,
            "object": "model",
            "created": self._created,
            "owned_by": "costkit",
        }
        body = json.dumps({"object": "list", "data": [model]}).encode()
        connection.send(render(200, body, extra=self._label))
        connection.finish()

    def _health(self, _request: Request, connection: Connection) -> None:
        connection.send(render(200, b""))
        connection.finish()

    def _freeze(self, request: Request, connection: Connection) -> None:
        """`{"seconds": 2}`: answer, then stand still for so long; what runs goes on where it was."""
        try:
            seconds, _ = parse_freeze(f"{json.loads(request.body)['seconds']}@0")
        except (ValueError, TypeError, KeyError, RecursionError):
            body = error_body('Send {"seconds": 2}, more than 0.', "invalid_request_error", "seconds")
            connection.send(render(400, body))
        else:
            connection.send(render(200, json.dumps({"frozen_s": seconds}).encode()))
            self._world.pace.freeze(seconds / self._settings.speed)
        connection.finish()

    def _metrics(self, _request: Request, connection: Connection) -> None:
        # vLLM's own names, so that whatever watches a vLLM server can watch this one.
        gauges = {
            "vllm:num_requests_running": self._world.slots.running,
            "vllm:num_requests_waiting": self._world.slots.waiting,
        }
        model = json.dumps(self._settings.model)
        lines = [f"# TYPE {name} gauge\n{name}{{model_name={model}}} {n}\n" for name, n in gauges.items()]
        connection.send(render(200, "".join(lines).encode(), "text/plain; version=0.0.4"))
        connection.finish()
