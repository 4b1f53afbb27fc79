"""Single questions to a chat endpoint, open loop: ``locust -f loadtests/chat.py --host http://127.0.0.1:8000``.

    locust -f loadtests/chat.py --headless --host http://127.0.0.1:8000 --rate 20 --run-time 60s --slo 'ttft.p95<500ms'

Without --headless locust's web UI opens, with a tab of LLM figures. ``--help`` lists all options.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

from loadtests.options import Option, Settings
from loadtests.run import LoadUser, install
from loadtests.traffic import Traffic, chat, read_prompts

OPTIONS = (
    Option("prompts", "", "file of prompts to ask, one a line: text, or JSON with prompt or messages"),
    Option("words", 200, "mean length of invented prompts, about one token a word"),
    Option("distinct", 0, "ask only so many different questions, a few of them often; 0: never one twice"),
    Option("system", "", "file with a system message that all requests share"),
)


def make(settings: Settings, options: Namespace) -> Traffic:
    """The traffic of this file."""
    return chat(
        settings.model,
        words=int(options.words),
        distinct=int(options.distinct),
        prompts=read_prompts(Path(options.prompts)) if options.prompts else (),
        system=Path(options.system).read_text(encoding="utf-8") if options.system else "",
        seed=settings.seed,
    )


install(make, OPTIONS)


class ChatUser(LoadUser):
    """Asks."""
