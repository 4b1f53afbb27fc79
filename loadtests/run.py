"""A load run as a locust file has it: what it asks, and locust's events.

A locust file is no more than::

    install(make_traffic, OPTIONS)

    class ChatUser(LoadUser):
        pass

Every process sends its share of one plan from a dispatcher of its own; locust's users do nothing but let locust
count, start and stop. See :mod:`loadtests.conductor` and :mod:`loadtests.hand`.
"""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Sequence
from typing import Any

import gevent
import locust
import psutil
from locust.runners import WorkerRunner

from loadtests.conductor import Conductor
from loadtests.hand import Hand
from loadtests.options import Option, add_options
from loadtests.preflight import Make, Refused
from loadtests.rows import use_three_digits
from loadtests.web import add_tab

__all__ = ["LoadUser", "install"]


class LoadUser(locust.User):
    """A user that does nothing: requests are sent by the plan, not by users, and one is enough."""

    abstract = True
    wait_time = locust.constant(0.5)

    @locust.task
    def nothing(self) -> None:
        """Lets locust stop the user at its next wait."""


def install(make: Make, more: Sequence[Option] = ()) -> None:
    """Make the locust process that imports this a load test.

    Args:
        make: makes the traffic of checked settings and of the options.
        more: options of this locust file, beside those of every load test.
    """

    def add(parser: Any) -> None:
        add_options(parser, more)

    def begin(environment: Any, runner: Any, web_ui: Any, **_: Any) -> None:
        if runner is not None and environment.parsed_options is not None:
            _begin(environment, make, more, web_ui)

    events: Any = locust.events  # locust's hooks have no types
    events.init_command_line_parser.add_listener(add)
    events.init.add_listener(begin)


def _end_children() -> None:
    """The workers of --processes, which would wait for a master that has gone."""
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            child.terminate()


def _begin(environment: Any, make: Make, more: Sequence[Option], web_ui: Any) -> None:
    use_three_digits()
    options, main = environment.parsed_options, gevent.get_hub().parent
    if isinstance(environment.runner, WorkerRunner):
        hand = Hand(environment, make, main)
        hand.listen()
        gevent.signal_handler(signal.SIGINT, hand.interrupt)
        return
    conductor = Conductor(environment, make, more, main)
    if options.headless or options.autostart:
        try:
            conductor.prepare()
        except Refused as refused:
            print(f"loadtests: {refused}", file=sys.stderr, flush=True)
            if options.processes:
                _end_children()
            sys.exit(refused.code)
        except BaseException:
            if options.processes:
                _end_children()
            raise
    if options.headless and not sys.stdout.isatty():
        options.only_summary = True  # quiet in a pipe
    conductor.listen()
    # Python's own handler raises wherever the process happens to be, in the midst of a request perhaps.
    gevent.signal_handler(signal.SIGINT, conductor.interrupt)
    if web_ui is not None:
        add_tab(web_ui, conductor.live, conductor.html)
