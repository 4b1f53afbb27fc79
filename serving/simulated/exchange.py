"""One chat completion on its way: waits for a slot, sends what is due, ends well or by its fault."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass

from serving.simulated.faults import Fault
from serving.simulated.pace import Alarm
from serving.simulated.timing import Timeline
from serving.simulated.wire import Connection, frame, render
from serving.simulated.work import Ask, Work
from serving.simulated.world import Truth, World


@dataclass(frozen=True, slots=True)
class Identity:
    """What every body of one answer carries; `label` is its extra header line, if any."""

    id: str
    created: int
    model: str
    fingerprint: str
    label: str


class ChatExchange:
    """The life of one accepted request. All its times are deadlines of the server's time."""

    def __init__(
        self,
        world: World,
        connection: Connection,
        *,
        ask: Ask,
        work: Work,
        truth: Truth,
        who: Identity,
        fault: Fault | None,
        struck: int,
    ) -> None:
        self._world = world
        self._connection = connection
        self._ask = ask
        self._work = work
        self._truth = truth
        self._who = who
        self._fault = fault
        self._struck = struck
        self._chunks: list[tuple[float, int, str]] = []
        self._next = 0
        self._line: Timeline | None = None
        self._alarm: Alarm | None = None
        # (deadline, writing) of the first and of the last chunk with text, and the worst delay: loop time.
        self._first: tuple[float, float] | None = None
        self._last = (0.0, 0.0)
        self._late = 0.0
        # Only these two faults cut the answer short; the others have struck already or only delay it.
        self._cut = fault.kind if fault is not None and fault.kind in ("truncate", "drop") else None
        self._around: tuple[str, bytes, bytes] | None = None

    def arrive(self, now: float) -> None:
        """Answer with headers if it is a stream, then ask for a slot."""
        if self._ask.stream:
            who = self._who
            self._connection.send(
                f"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n"
                f"transfer-encoding: chunked\r\nx-request-id: {who.id}\r\n{who.label}\r\n".encode()
            )
            if self._world.settings.role_chunk_early:
                self._connection.send(self._role_chunk())
        self._world.slots.enter(self, now)

    def begin(self, start: float) -> None:
        """Take a slot at `start`; from here on every deadline is known."""
        world, truth, work = self._world, self._truth, self._work
        line, cached = world.timeline(work, start, self._fault, self._struck)
        self._line = line
        truth.start = world.since_birth(world.pace.wall(start))
        truth.queue_s = round(truth.start - truth.arrival, 6)
        truth.prompt_tokens = work.recorded.prompt_tokens if work.recorded else len(work.prompt_tokens)
        truth.cached_tokens = cached
        truth.completion_tokens = 0
        self._chunks = self._plan(line)
        self._wake()

    def cancel(self) -> None:
        """The client has gone: free the slot or the place in the queue."""
        if self._alarm is not None:
            self._world.pace.cancel(self._alarm)
        self._truth.status = 499
        self._log()
        if self._line is None:
            self._world.slots.give_up(self)
        else:
            self._world.slots.leave(self._world.pace.now())

    def _plan(self, line: Timeline) -> list[tuple[float, int, str]]:
        """Group tokens into chunks of (deadline, tokens so far, text); a chunk is due with its last token."""
        work, size = self._work, self._world.settings.tokens_per_chunk
        tokens = self._struck if self._cut else len(work.pieces)
        chunks: list[tuple[float, int, str]] = []
        first = 0
        while first < tokens:
            end = min(first + size, tokens)
            if first < work.thoughts < end:
                end = work.thoughts  # A chunk holds reasoning or answer, not both.
            text = "".join(work.pieces[first:end])
            if text:
                chunks.append((line.due(end - 1), end, text))
            first = end
        return chunks

    @property
    def _end(self) -> float:
        assert self._line is not None
        return self._line.due(self._struck) if self._cut and self._ask.stream else self._line.done

    def _wake(self) -> None:
        """Set the alarm to what comes next: the next chunk, or the end."""
        more = self._ask.stream and self._next < len(self._chunks)
        due = self._chunks[self._next][0] if more else self._end
        self._alarm = self._world.pace.at(due, self._work_off)

    def _work_off(self) -> None:
        """Send all that is due, then finish or sleep until the next deadline."""
        now = self._world.pace.now()
        if not self._ask.stream:
            self._finish_plain()
            return
        chunks, out = self._chunks, b""
        while self._next < len(chunks) and chunks[self._next][0] <= now:
            due, tokens, text = chunks[self._next]
            if self._next == 0 and not self._world.settings.role_chunk_early:
                out = self._role_chunk()
            out += self._text_event(text, tokens)
            self._sent(due, tokens)
            self._next += 1
        if self._next < len(chunks) or now < self._end:
            if out:
                self._connection.send(out)
            self._wake()
        else:
            self._finish_stream(out)

    def _sent(self, due: float, tokens: int) -> None:
        due, now = self._world.pace.wall(due), self._world.loop.time()
        self._last = due, now
        if self._first is None:
            self._first = due, now
        self._late = max(self._late, now - due)
        self._truth.completion_tokens = tokens

    def _finish_stream(self, out: bytes) -> None:
        if self._cut is None:
            if not self._chunks and not self._world.settings.role_chunk_early:
                out += self._role_chunk()
            out += self._event({}, self._work.finish_reason)
            if self._ask.include_usage:
                out += self._chunk(choices=[], usage=self._usage())
            out += frame(b"data: [DONE]\n\n")
            # Empty pieces at the end of a replay have no chunk, yet are tokens.
            self._truth.completion_tokens = self._count()
        if self._cut != "drop":
            out += b"0\r\n\r\n"
        self._connection.send(out)
        self._leave()

    def _finish_plain(self) -> None:
        if self._cut != "drop":
            whole = self._plain_answer()
            self._connection.send(whole if self._cut is None else whole[: len(whole) - len(whole) // 4])
        assert self._line is not None
        if self._cut is None:
            self._first = self._world.pace.wall(self._line.due(0)), self._world.loop.time()
            self._sent(self._line.done, self._count())
        self._leave()

    def _leave(self) -> None:
        end = self._end
        if self._cut == "drop" or (self._cut == "truncate" and not self._ask.stream):
            self._connection.close()
        else:
            self._connection.finish()
        self._log()
        self._world.slots.leave(end)

    def _log(self) -> None:
        """Turn server time into what a clock on the wall showed, and write the line."""
        truth, world = self._truth, self._world
        if self._first is not None:
            stamps = (world.since_birth(time) for time in (*self._first, *self._last))
            truth.first_token, truth.written_first, truth.last_token, truth.written_last = stamps
            truth.late_s = round(self._late * world.settings.speed, 6)
        world.log(truth)

    def _count(self) -> int:
        recorded = self._work.recorded
        return recorded.completion_tokens if recorded else len(self._work.pieces)

    def _usage(self) -> dict[str, object]:
        prompt, count = self._truth.prompt_tokens or 0, self._count()
        usage: dict[str, object] = {
            "prompt_tokens": prompt,
            "completion_tokens": count,
            "total_tokens": prompt + count,
            "prompt_tokens_details": {"cached_tokens": self._truth.cached_tokens},
        }
        if self._work.thoughts:
            usage["completion_tokens_details"] = {"reasoning_tokens": self._work.thoughts}
        return usage

    def _body(self, kind: str, **more: object) -> dict[str, object]:
        who = self._who
        return {
            "id": who.id,
            "object": kind,
            "created": who.created,
            "model": who.model,
            "system_fingerprint": who.fingerprint,
            **more,
        }

    def _chunk(self, **more: object) -> bytes:
        return frame(self._data(**more))

    def _data(self, **more: object) -> bytes:
        body = json.dumps(self._body("chat.completion.chunk", **more), separators=(",", ":"))
        return b"data: " + body.encode() + b"\n\n"

    def _text_event(self, text: str, tokens: int) -> bytes:
        """The event of one text; only the text is encoded anew, as this is most of a busy server's work."""
        field = self._world.settings.reasoning_field if tokens <= self._work.thoughts else "content"
        if self._around is None or self._around[0] != field:
            sample = {"index": 0, "delta": {field: "@"}, "logprobs": None, "finish_reason": None}
            # From the right: a model's name may hold anything, what follows the text does not.
            before, _, after = self._data(choices=[sample]).rpartition(b'"@"')
            self._around = field, before, after
        return frame(self._around[1] + _quoted(text) + self._around[2])

    def _event(self, delta: dict[str, str], finish_reason: str | None = None) -> bytes:
        return self._chunk(
            choices=[{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}]
        )

    def _role_chunk(self) -> bytes:
        return self._event({"role": "assistant", "content": ""})

    def _plain_answer(self) -> bytes:
        pieces, thoughts = self._work.pieces, self._work.thoughts
        message = {"role": "assistant", "content": "".join(pieces[thoughts:])}
        if thoughts:
            message[self._world.settings.reasoning_field] = "".join(pieces[:thoughts])
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self._work.finish_reason}
        body = self._body("chat.completion", choices=[choice], usage=self._usage())
        extra = f"x-request-id: {self._who.id}\r\n{self._who.label}"
        return render(200, json.dumps(body).encode(), extra=extra)


@functools.lru_cache(4096)
def _quoted(text: str) -> bytes:
    """The text as JSON; simulated answers use few words."""
    return json.dumps(text).encode()
