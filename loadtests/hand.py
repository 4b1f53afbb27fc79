"""A load run on a locust worker: sends its part, ships its samples, stops when the master says so."""

from __future__ import annotations

import logging
from typing import Any

import gevent

from loadtests.dispatch import Dispatcher, settle
from loadtests.preflight import Make, Refused, make_traffic, settings_of
from loadtests.rows import log
from loadtests.sample import Sample, as_row
from loadtests.share import Part, dispatcher_of

__all__ = ["DONE", "FINISH", "PART", "SAMPLES", "Hand"]

# Messages between master and workers; SAMPLES is a key of locust's regular report.
PART, FINISH, DONE, SAMPLES = "loadtests_part", "loadtests_finish", "loadtests_done", "loadtests"

_ORDERLY_S = 5.0  # for the master's own word, after an interrupt


class Hand:
    """One worker. ``main`` is the greenlet that an interrupt ends."""

    def __init__(self, environment: Any, make: Make, main: Any) -> None:
        self._environment, self._make, self._main = environment, make, main
        self._part: Part | None = None
        self._dispatcher: Dispatcher | None = None
        self._unsent: list[Sample] = []
        self._told = True
        self._interrupted = False
        self._drain = 0.0

    def listen(self) -> None:
        """Take part in locust's events and messages."""
        runner, events = self._environment.runner, self._environment.events
        runner.register_message(PART, self._take)
        runner.register_message(FINISH, self._finish, concurrent=True)
        events.test_start.add_listener(self._begin)
        events.test_stopping.add_listener(self._stop)
        events.report_to_master.add_listener(self._report)

    def interrupt(self) -> None:
        """Ctrl-C: the first lets requests under way end, the second gives them up."""
        if self._interrupted or self._dispatcher is None:
            if self._dispatcher is not None:
                self._dispatcher.give_up()
            gevent.kill(self._main, KeyboardInterrupt)
            return
        self._interrupted = True
        self._end(self._drain)
        gevent.sleep(_ORDERLY_S)
        gevent.kill(self._main, KeyboardInterrupt)

    def _take(self, msg: Any, **_: Any) -> None:
        self._part = Part.of_message(msg.data)

    def _begin(self, **_: Any) -> None:
        part, self._part = self._part, None
        if part is None:
            return
        self._unsent, self._told, self._interrupted = [], False, False
        options = self._environment.parsed_options
        try:
            settings = settings_of(options, part.seconds)
            traffic = make_traffic(self._make, settings, options)
            host = self._environment.host or ""
            self._drain = settings.drain
            self._dispatcher = dispatcher_of(
                settings, traffic, host, part, record=self._record, done=self._tell
            )
        except (Refused, ValueError) as error:
            logging.getLogger(__name__).error("this worker cannot take part: %s", error)
            self._dispatcher = None
            self._tell(f"worker {part.number} could not take part: {error}")
            return
        settle()
        self._dispatcher.begin()

    def _record(self, one: Sample) -> None:
        self._unsent.append(one)
        log(self._environment, one)

    def _report(self, data: dict[str, Any], **_: Any) -> None:
        data[SAMPLES] = self._taken()

    def _taken(self) -> list[dict[str, Any]]:
        taken, self._unsent = self._unsent, []
        return [as_row(one) for one in taken]

    def _tell(self, trouble: str | None = None) -> None:
        """The last word of a run, with what was not yet reported."""
        if self._told:
            return
        self._told = True
        if trouble is None and self._dispatcher is not None:
            trouble = self._dispatcher.trouble
        cpu = self._dispatcher.cpu_s if self._dispatcher is not None else 0.0
        last = {"samples": self._taken(), "trouble": trouble, "cpu_s": cpu}
        self._environment.runner.send_message(DONE, last)

    def _finish(self, msg: Any, **_: Any) -> None:
        seconds = float((msg.data or {}).get("drain", 0.0))
        if seconds <= 0 and self._dispatcher is not None:
            self._dispatcher.give_up()
        self._end(seconds)

    def _stop(self, **_: Any) -> None:
        self._end(0.0)

    def _end(self, seconds: float) -> None:
        if self._dispatcher is not None and not self._told:
            self._dispatcher.drain(seconds)
            self._tell()
