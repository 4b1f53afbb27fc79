"""Conversations: every turn says again all that was said before, so a prefix cache has something to find.

    locust -f loadtests/multiturn.py --headless --host http://127.0.0.1:8000 --rate 2 --run-time 120s

``--rate`` is of conversations; a later turn is sent when its answer has come and a pause is over.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

from loadtests.options import Option, Settings
from loadtests.run import LoadUser, install
from loadtests.traffic import Traffic, multiturn

OPTIONS = (
    Option("turns", 4.0, "mean number of turns of a conversation"),
    Option("think", "5s", "mean pause before the next turn"),
    Option("words", 60, "mean length of what is said anew, about one token a word"),
    Option("system", "", "file with a system message that all conversations share"),
)


def make(settings: Settings, options: Namespace) -> Traffic:
    """The traffic of this file."""
    from loadtests.arrivals import parse_seconds

    return multiturn(
        settings.model,
        turns=float(options.turns),
        think=parse_seconds(str(options.think)),
        words=int(options.words),
        system=Path(options.system).read_text(encoding="utf-8") if options.system else "",
        seed=settings.seed,
    )


install(make, OPTIONS)


class ConversationUser(LoadUser):
    """Talks."""
