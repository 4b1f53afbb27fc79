"""Input tokens of a call, from its arguments: what an upper limit of its cost is made of.

Texts count as they are, chat messages by the chat rule, tools and schemas as their JSON. What has no text, or is kept
by the provider, cannot be counted and is refused: such a call needs ``max_cost=``.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence, Set, Sized
from typing import Any

from costkit.errors import UncountableInput
from costkit.tokens.media import image_tokens, refuse_hosted, refuse_kept, spoken_for
from costkit.tokens.text import count, is_openai

_DEEPEST = 200
_MOST_PARTS = 1_000_000
_MOST_CHARACTERS = 40_000_000  # 10 million tokens of English: over any model's context

_SETTINGS = frozenset({"model", "service_tier", "timeout", "extra_headers", "extra_query"})
_SCHEMAS = frozenset(
    {"tools", "functions", "response_format", "text_format", "output_format", "output_config"}
)
_UNSENT = frozenset(
    {"id", "type", "tool_call_id", "tool_use_id", "call_id", "index", "status", "cache_control"}
)
_PROSE = ("text", "thinking", "refusal")  # fields of the parts of a message that are text and nothing else

# Providers put a text of their own before tools: OpenAI a few words; Anthropic has published 159 to 530 tokens by
# model (https://docs.anthropic.com/en/docs/tool-use-pricing-and-tokens), and open models' templates about as many.
_TOOLS_OPENAI, _TOOLS_OTHERS = 50, 1_000


def count_arguments(arguments: Mapping[str, Any], *, model: str | None) -> int:
    """Input tokens of a call with these arguments: everything textual in them, each argument once.

    ``messages``, and any list of mappings with a ``role``, count by the chat rule with names, tool calls and tool
    results; ``tools``, ``functions`` and schemas as their JSON; every other text, list or mapping with all in it, and
    a token for each text in a list. Bytes count as their text where they are UTF-8, else one token a byte, for no
    tokenizer of bytes makes more. Images count a generous allowance by model (see ``media.py``). Settings, such as
    ``model`` and numbers, and objects other than dataclasses and pydantic models count nothing. The count is exact for
    the text of OpenAI models; where it errs it should err upwards.

    Raises:
        UncountableInput: audio, video or a file; a hosted tool or a conversation kept by the provider; an iterator;
            more than 200 levels, a million parts or 40 million characters.

    >>> count_arguments({"messages": [{"role": "user", "content": "How long do refunds take?"}], "model": "gpt-5",
    ...                  "temperature": 0.2}, model="gpt-5")
    13
    """
    refuse_kept(arguments)
    counter = _Counter(model)
    for name, value in arguments.items():
        if value is None or isinstance(value, int | float) or name in _SETTINGS:
            continue
        if isinstance(value, str):
            counter.text(value)
        elif name in _SCHEMAS:
            counter.schema(name, value)
        elif _is_chat(name, value):
            counter.chat(value)
        else:
            counter.walk(value, spaced=name not in ("system", "content"))
    return counter.total


def asks_hour(arguments: Mapping[str, Any]) -> bool:
    """Whether a ``cache_control`` in the arguments asks for an hour, so that input may be written at that price.

    >>> asks_hour({"system": [{"type": "text", "text": "1h", "cache_control": {"type": "ephemeral", "ttl": "1h"}}]})
    True
    """
    pending: list[tuple[Any, int]] = [(arguments, 0)]
    for _ in range(_MOST_PARTS):
        if not pending:
            break
        value, depth = pending.pop()
        if isinstance(value, Mapping):
            control = value.get("cache_control")
            if isinstance(control, Mapping) and control.get("ttl") == "1h":
                return True
        if depth < _DEEPEST:
            inside = value.values() if isinstance(value, Mapping) else value
            if isinstance(value, Mapping | list | tuple):
                pending.extend(
                    (item, depth + 1) for item in inside if isinstance(item, Mapping | list | tuple)
                )
    return False


class _Counter:
    """Adds up one call's tokens within the limits of this module."""

    def __init__(self, model: str | None) -> None:
        self.model = model
        self.total = 0
        self._characters = 0
        self._parts = 0
        self._short: dict[str, int] = {}  # roles and keys come again and again

    def text(self, text: str) -> None:
        self._measure(len(text))
        if len(text) > 40:
            self.total += count(text, model=self.model)
            return
        found = self._short.get(text)
        if found is None:
            found = count(text, model=self.model)
            if len(self._short) < 10_000:
                self._short[text] = found
        self.total += found

    def chat(self, messages: Sequence[Any]) -> None:
        """OpenAI's rule: 3 to prime the reply, 3 a message, 1 for a name; SDK objects as their fields."""
        self._room(messages)
        self.total += 3
        for message in messages:
            self._message(message)

    def _message(self, message: Any) -> None:
        fields = _fields(message)
        if fields is None:
            self.walk(message, spaced=False)
            return
        self._part(0)
        self.total += 3 + image_tokens(fields, self.model)
        for key, value in fields.items():
            if value is None or key in _UNSENT:
                continue
            if key == "name":
                self.total += 1
            if isinstance(value, str):
                self.text(value)
            elif key == "tool_calls" and isinstance(value, list | tuple):
                for call in value:
                    called = (_fields(call) or {}).get("function")
                    self.walk(call if called is None else _values(called), spaced=False)
            elif key not in spoken_for(fields):
                self.walk(value, spaced=False)

    def schema(self, name: str, value: Any) -> None:
        """The JSON of tools and of what an answer must look like."""
        if isinstance(value, type):
            value = value.model_json_schema() if hasattr(value, "model_json_schema") else value.__name__
        if not isinstance(value, str):
            self._limits(value)
            try:
                value = json.dumps(value, ensure_ascii=False, skipkeys=True, default=_plain)
            except (ValueError, RecursionError) as exc:
                raise UncountableInput(_mend(f"{name}= has no JSON ({exc})")) from exc
        self.text(value)
        if name in ("tools", "functions") and value != "[]":
            refuse_hosted(value)
            self.total += _TOOLS_OPENAI if is_openai(self.model) else _TOOLS_OTHERS

    def walk(self, value: Any, *, spaced: bool) -> None:
        """All text in a value, however nested; ``spaced`` adds what joins the texts of a list."""
        pending: list[tuple[Any, int]] = [(value, 0)]
        while pending:
            item, depth = pending.pop()
            self._part(depth)
            if isinstance(item, str):
                self.text(item)
                self.total += spaced
            elif isinstance(item, int | float):
                # Numbers inside a value are part of its text: some tokenizers make a token of every digit.
                self.total += len(repr(item)) if isinstance(item, float) else item.bit_length() // 3 + 1
            elif isinstance(item, bytes | bytearray | memoryview):
                self._bytes(item)
            elif (fields := _fields(item)) is not None:
                self._room(fields)
                self.total += image_tokens(fields, self.model)
                pending += [(inside, depth + 1) for inside in self._inside(fields, spaced)]
            elif isinstance(item, Sequence | Set):
                self._room(item)
                pending += [(inside, depth + 1) for inside in item]
            elif isinstance(item, Iterator):
                raise UncountableInput(
                    _mend("an iterator among the arguments can be read only once: pass a list")
                )

    def _limits(self, value: Any) -> None:
        pending: list[tuple[Any, int]] = [(value, 0)]
        while pending:
            item, depth = pending.pop()
            self._part(depth)
            if isinstance(item, Mapping | list | tuple):
                self._room(item)
                inside = item.values() if isinstance(item, Mapping) else item
                pending += [(thing, depth + 1) for thing in inside]
            elif isinstance(item, str):
                self._measure(len(item))

    def _inside(self, fields: Mapping[Any, Any], spaced: bool) -> list[Any]:
        """What of a mapping is counted: of a part of a message its text, else keys and values."""
        taken = spoken_for(fields)
        if not spaced and "type" in fields:
            told = [fields[name] for name in _PROSE if isinstance(fields.get(name), str)]
            if told:
                return told
            taken |= _UNSENT
        kept = [(key, value) for key, value in fields.items() if value is not None and key not in taken]
        for key, _ in kept:
            self.total += 1 if isinstance(key, str) else 0  # the colon
        return [thing for pair in kept for thing in pair]

    def _bytes(self, data: bytes | bytearray | memoryview) -> None:
        size = memoryview(data).nbytes
        self._measure(size)
        try:
            self.total += count(bytes(data).decode(), model=self.model)
        except UnicodeDecodeError:
            self.total += size

    def _part(self, depth: int) -> None:
        self._parts += 1
        if depth > _DEEPEST:
            raise UncountableInput(
                _mend(f"arguments nested deeper than {_DEEPEST} levels, or containing themselves")
            )
        if self._parts > _MOST_PARTS:
            raise self._too_many()

    def _room(self, inside: Sized) -> None:
        """Before so many are put on a list: ranges and the like cost nothing until then."""
        if self._parts + len(inside) > _MOST_PARTS:
            raise self._too_many()

    def _too_many(self) -> UncountableInput:
        return UncountableInput(_mend(f"more than {_MOST_PARTS:,} parts in the arguments"))

    def _measure(self, characters: int) -> None:
        self._characters += characters
        if self._characters > _MOST_CHARACTERS:
            raise UncountableInput(_mend(f"more than {_MOST_CHARACTERS:,} characters in the arguments"))


def _mend(what: str) -> str:
    return f'{what}; its tokens are not counted. Say what such a call may cost: max_cost="0.05 USD"'


def _is_chat(name: str, value: Any) -> bool:
    if not isinstance(value, list | tuple) or not value:
        return False
    first = _fields(value[0])
    return first is not None and (name == "messages" or "role" in first)


def _fields(value: Any) -> Mapping[Any, Any] | None:
    """A mapping's, pydantic model's or dataclass instance's fields."""
    if isinstance(value, Mapping):
        return value
    if isinstance(value, type):
        return None
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)}
    if callable(dump := getattr(value, "model_dump", None)):
        told = dump()
        return told if isinstance(told, Mapping) else None
    return None


def _values(fields: Any) -> list[Any]:
    return list((_fields(fields) or {}).values())


def _plain(value: Any) -> Any:
    fields = _fields(value)
    if fields is not None:
        return dict(fields)
    if isinstance(value, type):
        return value.model_json_schema() if hasattr(value, "model_json_schema") else value.__name__
    return list(value) if isinstance(value, Set) else str(value)[:1000]
