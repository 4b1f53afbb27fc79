"""What is asked: each request of a run made from its number, so that every worker and every later run asks the same.

>>> traffic = chat(Model("tiny", max_tokens=8), words=6)
>>> json.loads(traffic.ask(3).body)["max_tokens"], traffic.ask(3) == traffic.ask(3), traffic.ask(3) == traffic.ask(4)
(8, True, False)
"""

from __future__ import annotations

import json
import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from random import Random
from typing import Any

from loadtests.traces import Row, prompt

__all__ = [
    "Ask",
    "Model",
    "Traffic",
    "TrafficError",
    "chat",
    "multiturn",
    "rag",
    "read_prompts",
    "read_questions",
    "replay",
]

Message = Mapping[str, str]
_SPREAD = 0.5  # sigma of the lognormal lengths of invented prompts


class TrafficError(ValueError):
    """What is to be asked cannot be read; the message names the file and the line."""


@dataclass(frozen=True, slots=True)
class Model:
    """What every request's body says beside its messages. ``extra`` is merged into it last."""

    name: str
    max_tokens: int = 0
    temperature: float | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def body(self, messages: Sequence[Message], max_tokens: int = 0) -> bytes:
        """The JSON of a streamed chat completion that asks for its usage; no limit where both are 0."""
        fields: dict[str, Any] = {"model": self.name, "messages": list(messages), "stream": True}
        fields["stream_options"] = {"include_usage": True}
        if limit := max_tokens or self.max_tokens:
            fields["max_tokens"] = limit
        if self.temperature is not None:
            fields["temperature"] = self.temperature
        return json.dumps({**fields, **self.extra}, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True)
class Ask:
    """One request: its row's name, its body, headers of its own, and the conversation that it is a turn of."""

    name: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    conversation: str | None = None
    turn: int = 0
    messages: tuple[Message, ...] = ()


@dataclass(frozen=True, slots=True)
class Traffic:
    """Requests by number, from 0.

    ``follow(number, ask, text)`` is the next turn of a conversation and the seconds until it is sent, None at its
    end; ``times`` are a trace's own send times, in seconds; ``trial`` is the request that is sent before the run.
    """

    name: str
    ask: Callable[[int], Ask]
    follow: Callable[[int, Ask, str], tuple[float, Ask] | None] | None = None
    times: Sequence[float] | None = None
    trial: int = 1_000_000_007


def chat(
    model: Model,
    *,
    words: int = 200,
    distinct: int = 0,
    prompts: Sequence[tuple[Message, ...]] = (),
    system: str = "",
    seed: int = 0,
) -> Traffic:
    """Single questions.

    Args:
        model: what every body says.
        words: mean length of invented prompts, about one token a word; lengths are lognormal.
        distinct: ask only so many different questions, by a Zipf law (the k-th most frequent 1/k as often as the
            first); 0: never the same one twice.
        prompts: ask these, in turn, or by the Zipf law where ``distinct`` says so.
        system: a system message that all share.
        seed: of the draws.

    Raises:
        TrafficError: ``words`` below 1, or more ``distinct`` ones than ``prompts``.
    """
    if words < 1 or distinct < 0:
        raise TrafficError(
            f"words={words}, distinct={distinct}: needs at least 1 word, and 0 or more to choose from"
        )
    if prompts and distinct > len(prompts):
        raise TrafficError(f"distinct={distinct}: there are only {len(prompts)} prompts")
    draw = _zipf(distinct) if distinct else None
    front: tuple[Message, ...] = ({"role": "system", "content": system},) if system else ()

    def ask(number: int) -> Ask:
        which = draw(Random(f"{seed}/{number}").random()) if draw else number
        if prompts:
            messages = prompts[which % len(prompts)]
        else:
            messages = ({"role": "user", "content": _invented(words, which, seed)},)
        return Ask("chat", model.body((*front, *messages)))

    return Traffic("chat", ask)


def rag(
    model: Model,
    questions: Sequence[Mapping[str, str]],
    *,
    zipf: float = 0.7,
    header: str = "X-Tenant",
    seed: int = 0,
) -> Traffic:
    """Questions to a service that retrieves by itself, such as the sample assistant: a few are asked all the time.

    Args:
        model: what every body says.
        questions: each with ``question``, and where they have them ``tenant`` (sent as ``header``) and ``intent``,
            its meaning.
        zipf: meanings come by a Zipf law of this exponent, phrasings of one evenly.
        header: carries the tenant.
        seed: of the draws; also of which meanings are the frequent ones.

    Raises:
        TrafficError: no questions, or a tenant that no header can carry.
    """
    if not questions:
        raise TrafficError("no questions to ask")
    for tenant in {one.get("tenant", "") for one in questions}:
        if not (tenant.isascii() and tenant.isprintable()):
            raise TrafficError(
                f"tenant {tenant!r:.60}: goes in a header ({header}), so printable ASCII alone"
            )
    groups: dict[tuple[str, str], list[Mapping[str, str]]] = {}
    for one in questions:
        groups.setdefault((one.get("tenant", ""), one.get("intent", one["question"])), []).append(one)
    intents = list(groups.values())
    Random(f"{seed}/intents").shuffle(intents)
    draw = _zipf(len(intents), zipf)

    def ask(number: int) -> Ask:
        rng = Random(f"{seed}/{number}")
        one = rng.choice(intents[draw(rng.random())])
        headers = {header: one["tenant"]} if one.get("tenant") else {}
        return Ask("rag", model.body(({"role": "user", "content": one["question"]},)), headers)

    return Traffic("rag", ask)


def multiturn(
    model: Model, *, turns: float = 4.0, think: float = 5.0, words: int = 60, system: str = "", seed: int = 0
) -> Traffic:
    """Conversations: each turn says again all that was said before it, answers included, and asks one thing more.

    The arrivals of a run are those of conversations; a later turn is meant for the end of the answer before it and a
    pause.

    Args:
        model: what every body says.
        turns: mean number of turns; geometric, at least 1.
        think: mean seconds of a pause; exponential.
        words: mean length of what is said anew.
        system: a system message that all share.
        seed: of the draws.

    Raises:
        TrafficError: a number that is out of range.
    """
    if turns < 1 or think < 0 or words < 1:
        raise TrafficError(
            f"turns={turns:g}, think={think:g}, words={words}: needs at least 1 turn, 0 s and 1 word"
        )
    front: tuple[Message, ...] = ({"role": "system", "content": system},) if system else ()

    def said(number: int, turn: int, before: tuple[Message, ...]) -> Ask:
        text = _invented(words, number * 1000 + turn, seed)
        messages = (*before, {"role": "user", "content": text})
        name = "chat turn 1" if turn == 0 else "chat later turns"
        return Ask(name, model.body(messages), {}, f"c{number}", turn, messages)

    def follow(number: int, ask: Ask, text: str) -> tuple[float, Ask] | None:
        rng = Random(f"{seed}/{number}/{ask.turn}")
        if rng.random() < 1 / turns or ask.turn >= 999:
            return None
        pause = rng.expovariate(1 / think) if think else 0.0
        return pause, said(number, ask.turn + 1, (*ask.messages, {"role": "assistant", "content": text}))

    return Traffic("multi-turn", lambda number: said(number, 0, front), follow)


def replay(model: Model, rows: Sequence[Row], *, speed: float = 1.0, scale: float = 1.0) -> Traffic:
    """A recorded trace again: its times, its lengths, its shared prefixes.

    Args:
        model: what every body says; each answer's length is the trace's.
        rows: of :func:`loadtests.traces.read_trace`.
        speed: 2 sends twice as fast.
        scale: makes prompts and answers shorter.

    Raises:
        TrafficError: ``speed`` or ``scale`` is not over 0.
    """
    if not (0 < speed < math.inf and 0 < scale < math.inf):
        raise TrafficError(f"speed={speed:g}, scale={scale:g}: both need to be over 0")

    def ask(number: int) -> Ask:
        row = rows[number]
        messages = ({"role": "user", "content": prompt(row, number, scale=scale)},)
        return Ask("replay", model.body(messages, max(1, round(row.output_tokens * scale))))

    return Traffic("replay", ask, times=[row.at / speed for row in rows], trial=len(rows) - 1)


def read_prompts(path: Path) -> list[tuple[Message, ...]]:
    """Prompts of a file, one a line: text, or JSON with ``prompt``, ``question`` or ``messages``.

    Raises:
        TrafficError: no such file, no prompt in it, or a broken line, which is named.
    """
    found = []
    for number, line in _lines(path):
        try:
            fields: Any = json.loads(line) if line.startswith("{") else {"prompt": line}
            messages: list[Any] = fields.get("messages") or [
                {"role": "user", "content": fields.get("prompt") or fields["question"]}
            ]
            if not all(isinstance(one["role"], str) and one["content"] for one in messages):
                raise ValueError("a message without role or content")
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise TrafficError(f"{path}, line {number}: no prompt ({error!r:.100})") from None
        found.append(tuple(messages))
    if not found:
        raise TrafficError(f"{path}: holds no prompt")
    return found


def read_questions(path: Path) -> list[dict[str, str]]:
    """Questions of a JSONL file, or of all in a folder: ``question``, and ``tenant`` and ``intent`` where known.

    Raises:
        TrafficError: no such file, no question, or a broken line, which is named.
    """
    found = []
    for file in sorted(path.glob("*.jsonl")) if path.is_dir() else [path]:
        for number, line in _lines(file):
            try:
                fields = json.loads(line)
                kept = {name: fields[name] for name in ("question", "tenant", "intent") if name in fields}
                if not kept["question"] or not all(isinstance(value, str) for value in kept.values()):
                    raise ValueError("needs a question, in text")
            except (ValueError, LookupError, TypeError, RecursionError) as error:
                raise TrafficError(f"{file}, line {number}: no question ({error!r:.100})") from None
            found.append(kept)
    if not found:
        raise TrafficError(f"{path}: holds no question")
    return found


def _lines(path: Path) -> list[tuple[int, str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise TrafficError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    rows = [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1)]
    return [(number, line) for number, line in rows if line]


def _invented(words: int, which: int, seed: int) -> str:
    length = max(
        1, round(Random(f"{seed}/length/{which}").lognormvariate(math.log(words) - _SPREAD**2 / 2, _SPREAD))
    )
    return prompt(Row(0.0, length, 0), which)


def _zipf(count: int, exponent: float = 1.0) -> Callable[[float], int]:
    """Turns a number from [0, 1) into a place from 0: the k-th as often as k to the minus ``exponent``."""
    weights = list(accumulate((place + 1) ** -exponent for place in range(count)))
    return lambda drawn: min(count - 1, bisect_left(weights, drawn * weights[-1]))
