"""``loadtests/chat.py`` with a generator that fails on purpose: LOAD_FAULT is ``sleep`` or ``drop``.

``sleep``: the whole process stands still for 200 ms once, as request LOAD_FAULT_AT is due. ``drop``: a seeded tenth of
the requests is never sent. A locust file, for :mod:`tests.benchmarks.load_truth`.
"""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))

from gevent.monkey import get_original

from loadtests.chat import ChatUser
from loadtests.dispatch import Dispatcher
from loadtests.traffic import Ask

__all__ = ["ChatUser"]

sound = Dispatcher._start


def faulty(self: Dispatcher, number: int, ask: Ask, at: float) -> None:
    if os.environ["LOAD_FAULT"] == "drop" and random.Random(number).random() < 0.1:
        return
    if os.environ["LOAD_FAULT"] == "sleep" and number == int(os.environ["LOAD_FAULT_AT"]):
        get_original("time", "sleep")(0.2)
    sound(self, number, ask, at)


Dispatcher._start = faulty  # type: ignore[method-assign]
