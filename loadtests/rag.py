"""Questions to a service that retrieves by itself, such as ``python -m serving.assistant.service``.

    locust -f loadtests/rag.py --headless --host http://127.0.0.1:8080 --rate 5 --run-time 120s

A few meanings are asked all the time and most hardly ever, each in one of its phrasings; the tenant goes in a header.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

from loadtests.options import Option, Settings
from loadtests.run import LoadUser, install
from loadtests.traffic import Traffic, rag, read_questions

QUESTIONS = Path(__file__).resolve().parents[1] / "serving" / "assistant" / "questions"
OPTIONS = (
    Option(
        "questions",
        "",
        "JSONL file or folder: question, and tenant and intent; default: the sample assistant's",
    ),
    Option("zipf", 0.7, "exponent of the law of how often each meaning is asked; 0: all equally often"),
    Option("tenant-header", "X-Tenant", "header that carries a question's tenant"),
)


def make(settings: Settings, options: Namespace) -> Traffic:
    """The traffic of this file."""
    questions = read_questions(Path(options.questions) if options.questions else QUESTIONS)
    return rag(
        settings.model, questions, zipf=float(options.zipf), header=options.tenant_header, seed=settings.seed
    )


install(make, OPTIONS)


class RagUser(LoadUser):
    """Asks."""
