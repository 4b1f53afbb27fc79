"""What one request asks for and what it will be answered: prompt tokens, answer pieces, lengths.

Tokens are an approximation and said to be one: a run of up to ten word characters or one other visible
character counts as one token, and each message adds two for its frame. Real tokenizers differ by some tens of
per cent; a replay uses the counts that the real server reported.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from serving.simulated.recording import Answer

_TOKEN = re.compile(r"\w{1,10}|[^\w\s]")
_PIECE = re.compile(r"\s*(?:\w{1,10}|[^\w\s]|$)")
_PROSE = (
    "the plan allows a refund within thirty days of renewal and each team may add more seats at any time "
    "because billing follows usage per month while support answers by mail or chat on every working day"
)
_WORDS = _PROSE.split()


class BadRequest(ValueError):
    """The request cannot be served: an HTTP status, an error code and the argument at fault."""

    def __init__(self, message: str, param: str | None = None, status: int = 400, code: str | None = None):
        super().__init__(message)
        self.param = param
        self.status = status
        self.code = code


@dataclass(frozen=True, slots=True)
class Ask:
    """A checked chat-completion request; `limit` is its `max_completion_tokens` or `max_tokens`."""

    body: Mapping[str, object]
    model: str
    messages: Sequence[Mapping[str, object]]
    stream: bool
    include_usage: bool
    limit: int | None


@dataclass(frozen=True, slots=True)
class Work:
    """What a request costs and is answered: `pieces` holds one text a token (in a replay some are empty).

    The first `thoughts` of them are reasoning.
    """

    prompt_tokens: Sequence[str]
    pieces: tuple[str, ...]
    finish_reason: str
    recorded: Answer | None = None
    thoughts: int = 0


def count_tokens(text: str) -> int:
    """Return the approximate number of tokens.

    >>> count_tokens("Refunds take 14 days, as a rule.")
    9
    """
    return len(_TOKEN.findall(text))


def read_ask(data: bytes) -> Ask:
    """Check a request's body.

    Raises:
        BadRequest: not a JSON object, or an argument that is missing or of the wrong kind.

    >>> read_ask(b'{"model": "m", "messages": [{"role": "user", "content": "hi"}]}').stream
    False
    """
    try:
        body = json.loads(data, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"The body is not valid JSON: {error}", code="invalid_json") from error
    if not isinstance(body, dict):
        raise BadRequest("The body must be a JSON object.")
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadRequest("'messages' must be a list of at least one message.", "messages")
    if not all(isinstance(message, dict) and isinstance(message.get("role"), str) for message in messages):
        raise BadRequest("each of 'messages' must be an object with a string 'role'.", "messages")
    model = body.get("model")
    if not isinstance(model, str):
        raise BadRequest("'model' must be a string.", "model")
    stream, options = body.get("stream") or False, body.get("stream_options") or {}
    if not isinstance(stream, bool):
        raise BadRequest("'stream' must be true or false.", "stream")
    if not isinstance(options, dict) or (options and not stream):
        raise BadRequest(
            "'stream_options' must be an object, and only with 'stream': true.", "stream_options"
        )
    if body.get("n") not in (None, 1):
        raise BadRequest("Only 'n': 1 is simulated.", "n")
    return Ask(body, model, messages, stream, bool(options.get("include_usage")), _read_limit(body))


def simulate(ask: Ask, rng: Random, mean: float, sigma: float, reasoning: float = 0.0) -> Work:
    """Draw an answer: a lognormal number of tokens of mean `mean` (before the limit), each a plain word.

    The first share `reasoning` of the drawn tokens is reasoning. A request for JSON whose schema leaves each property
    a list of values to choose from gets the first of each, as long as that is, after no reasoning.
    """
    drawn = max(1, round(rng.lognormvariate(math.log(mean) - sigma * sigma / 2, sigma)))
    prompt, form = _prompt_tokens(ask), _chosen(ask.body)
    if form is not None:
        pieces = tuple(piece for piece in _PIECE.findall(form) if piece)
        drawn, thoughts = len(pieces), 0
        count = drawn if ask.limit is None else min(drawn, ask.limit)
        pieces = pieces[:count]
    else:
        count = drawn if ask.limit is None else min(drawn, ask.limit)
        words = rng.choices(_WORDS, k=count)
        thoughts = min(count, round(reasoning * drawn))
        pieces = (words[0].capitalize(), *(" " + word for word in words[1:]))
    return Work(prompt, pieces, "stop" if count == drawn else "length", thoughts=thoughts)


def _chosen(body: Mapping[str, object]) -> str | None:
    """The JSON that the request's schema allows with the first value of each property; None where it names no values.

    >>> schema = {"properties": {"quote": {"enum": ["It is free.", "No."]}}}
    >>> _chosen({"response_format": {"type": "json_schema", "json_schema": {"schema": schema}}})
    '{"quote": "It is free."}'
    """
    found: object = body
    for name in ("response_format", "json_schema", "schema", "properties"):
        found = found.get(name) if isinstance(found, dict) else None
    if not isinstance(found, dict) or not found:
        return None
    values = [kind.get("enum") if isinstance(kind, dict) else None for kind in found.values()]
    if not all(isinstance(value, list) and value for value in values):
        return None
    return json.dumps(
        {name: value[0] for name, value in zip(found, values, strict=True) if value}, ensure_ascii=False
    )


def replay(answer: Answer) -> Work:
    """Cut a recorded text evenly by characters into as many pieces as it had tokens, the first not empty.

    >>> replay(Answer("0" * 64, "Yes", "stop", 9, 0, 6, 0.1, 0.2)).pieces
    ('Y', '', 'e', '', 's', '')
    """
    text, count = answer.text, max(1, answer.completion_tokens)
    cuts = [-(-len(text) * i // count) for i in range(count + 1)]
    pieces = tuple(text[cuts[i] : cuts[i + 1]] for i in range(count))
    return Work((), pieces, answer.finish_reason, answer)


def _prompt_tokens(ask: Ask) -> list[str]:
    """Tokens in the order a chat template writes them: tools first, then each message in its frame."""
    tokens = _TOKEN.findall(json.dumps(ask.body["tools"])) if ask.body.get("tools") else []
    for message in ask.messages:
        tokens.append(f"<{message['role']}>")
        for name, value in message.items():
            if name != "role" and value is not None:
                tokens += _TOKEN.findall(value if isinstance(value, str) else _text_of(value))
        tokens.append("<end>")
    return tokens


def _text_of(content: object) -> str:
    """Text of a list of parts; other shapes (tool calls, images) count as the JSON they are."""
    if isinstance(content, list) and all(isinstance(part, dict) for part in content):
        texts = [part.get("text") for part in content]
        return " ".join(
            text if isinstance(text, str) else json.dumps(part)
            for text, part in zip(texts, content, strict=True)
        )
    return json.dumps(content)


def _read_limit(body: Mapping[str, object]) -> int | None:
    for name in ("max_completion_tokens", "max_tokens"):
        limit = body.get(name)
        if limit is None:
            continue
        if type(limit) is not int or limit < 1:
            raise BadRequest(f"'{name}' must be a whole number of at least 1.", name)
        return limit
    return None


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")
