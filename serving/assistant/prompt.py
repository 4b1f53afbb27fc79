"""The request of the assistant: a short prompt, and a schema that lets the model only quote or decline.

The body depends on nothing but its arguments, so a recorded answer fits as long as question, documents and
this file stay as they are. A JSON schema in ``response_format`` works with OpenAI, vLLM and most providers.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from serving.assistant.documents import Passage

NO_ANSWER = "The articles do not answer this."
SYSTEM = f"Copy the sentence that answers the question. If none does, write: {NO_ANSWER}"
MAX_TOKENS = 64
_EXAMPLE = (
    "Parcels to France take 5 days and cost $12.",
    "Parcels to Germany take 3 days.",
    "Letters are not insured.",
)
_ASKED = (("how long do parcels to france take?", 0), ("are letters insured?", 2), ("days to germany", 1))


def request_body(question: str, passages: Sequence[Passage], model: str) -> dict[str, Any]:
    """The chat completion body that asks ``model`` to copy one sentence of ``passages``, at most 64 tokens.

    >>> passage = Passage("kb-1#1", "kb-1", "Trash", "", ("Trash is kept 30 days.",))
    >>> body = request_body("how long is trash kept?", [passage], "m")
    >>> body["messages"][-1]["content"]
    'Trash is kept 30 days.\\n\\nQuestion: how long is trash kept?'
    """
    sentences = list(dict.fromkeys(s for p in passages for s in p.sentences))
    schema = {
        "type": "object",
        "properties": {"quote": {"type": "string", "enum": [*sentences, NO_ANSWER]}},
        "required": ["quote"],
        "additionalProperties": False,
    }
    return {
        "model": model,
        "messages": [
            {"role": "system", "content": SYSTEM},
            *_examples(),
            {"role": "user", "content": _user(question, sentences)},
        ],
        "temperature": 0,
        "max_tokens": MAX_TOKENS,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "strict": True, "schema": schema},
        },
    }


def _user(question: str, sentences: Sequence[str]) -> str:
    return "\n".join(sentences) + f"\n\nQuestion: {' '.join(question.split())}"


def _examples() -> list[dict[str, str]]:
    """Three solved examples, because a small model follows examples better than instructions."""
    turns: list[dict[str, str]] = []
    for question, answer in _ASKED:
        asked = f"Question: {question}" if turns else _user(question, _EXAMPLE)
        turns.append({"role": "user", "content": asked})
        turns.append({"role": "assistant", "content": json.dumps({"quote": _EXAMPLE[answer]})})
    return turns
