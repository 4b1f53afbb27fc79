"""The simulated server: routes, and the life of one chat completion from arrival to truth log."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from random import Random
from typing import IO

from serving.prompt_digest import prompt_digest
from serving.simulated.exchange import ChatExchange, Identity
from serving.simulated.faults import draw_fault
from serving.simulated.recording import Recording
from serving.simulated.wire import Connection, Request, error_body, render
from serving.simulated.work import Ask, BadRequest, Work, read_ask, replay, simulate
from serving.simulated.world import Settings, Truth, World


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
        }

    def connect(self) -> Connection:
        """Return the protocol of a new connection."""
        return Connection(self._handle, self.live)

    def _handle(self, request: Request, connection: Connection) -> None:
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
        truth = Truth(f"chatcmpl-{self._boot}-{self._received}", self._world.since_birth(request.arrival))
        try:
            ask = read_ask(request.body)
            if ask.model != self._settings.model:
                raise BadRequest(
                    f"The model {ask.model!r} does not exist; {self._settings.model!r} does.",
                    "model",
                    404,
                    "model_not_found",
                )
            rng = Random(f"{self._settings.seed}/{self._order}")
            fault = draw_fault(self._settings.faults, rng)
            work = self._work(ask, rng)
        except BadRequest as error:
            kind = "not_recorded" if error.status == 422 else "invalid_request_error"
            body = error_body(str(error), kind, error.param, error.code)
            self._refuse(connection, truth, error.status, body)
            return
        self._order += 1
        truth.fault = fault.kind if fault else None
        limit = self._settings.queue_limit
        if fault is not None and fault.kind == "error500":
            self._refuse(connection, truth, 500, error_body("A simulated server error.", "server_error"))
        elif fault is not None and fault.kind == "rate429":
            body = error_body("A simulated rate limit.", "rate_limit_error", code="rate_limit_exceeded")
            self._refuse(connection, truth, 429, body, "retry-after: 1\r\n")
        elif (
            limit is not None
            and self._world.slots.running >= self._world.slots.size
            and self._world.slots.waiting >= limit
        ):
            body = error_body(f"{limit} requests wait already.", "overloaded_error", code="queue_full")
            self._refuse(connection, truth, 503, body, "retry-after: 1\r\n")
        else:
            who = Identity(truth.id, self._created, ask.model, self._fingerprint, self._label)
            struck = int(rng.random() * len(work.pieces)) if fault else 0
            exchange = ChatExchange(
                self._world, connection, ask=ask, work=work, truth=truth, who=who, fault=fault, struck=struck
            )
            connection.exchange = exchange
            exchange.arrive(request.arrival)

    def _work(self, ask: Ask, rng: Random) -> Work:
        if self._recording is None:
            return simulate(ask, rng, self._settings.output_tokens_mean, self._settings.output_tokens_sigma)
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
        self, connection: Connection, truth: Truth, status: int, body: bytes, extra: str = ""
    ) -> None:
        truth.status = status
        connection.send(render(status, body, extra=f"x-request-id: {truth.id}\r\n{extra}"))
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
