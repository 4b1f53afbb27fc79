"""How many tokens a text is, counted here and now, without any network.

Counts are exact for OpenAI models: tiktoken does the counting, and its vocabulary files come out of the
bpe-openai wheel instead of a download. For other models the count is an estimate by o200k_base, and a
:class:`Ratio` learned from reported usage says by how much to correct it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from costkit.call import Usage
from costkit.tokens.arguments import asks_hour, count_arguments
from costkit.tokens.ratio import Ratio, learn
from costkit.tokens.text import count, count_messages, encoding_for, is_openai
from costkit.tokens.vocabulary import encoding

__all__ = [
    "Ratio",
    "asks_hour",
    "count",
    "count_arguments",
    "count_messages",
    "encoding_for",
    "estimate",
    "is_openai",
    "learn",
    "warm",
]


def estimate(
    model: str | None,
    prompt: str | Sequence[Mapping[str, Any]],
    completion: str,
    *,
    ratio: Ratio | None = None,
) -> Usage:
    """Usage of a call whose provider reported none, from the text sent and received: ``state="estimated"``.

    ``ratio`` corrects the input by its mean.

    >>> estimate("gpt-5-mini", "How long do refunds take?", "Five days.")
    Usage(in_fresh=6, cache_read=0, cache_write_5m=0, cache_write_1h=0, out_text=3, out_reasoning=0, \
state='estimated')
    """
    sent = count(prompt, model=model) if isinstance(prompt, str) else count_messages(prompt, model=model)
    if ratio is not None:
        sent = round(sent * ratio.mean)
    return Usage(in_fresh=sent, out_text=count(completion, model=model), state="estimated")


def warm() -> None:
    """Loads the newest vocabulary: takes half a second once in a process, later nothing. Any thread may call it.

    Raises ConfigError where no vocabulary file can be had offline.
    """
    encoding("o200k_base")
