"""A load run on the locust master, or where there is but one process: begins it, gathers it, judges it."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gevent
from gevent.event import Event

from loadtests.dispatch import Dispatcher, settle
from loadtests.hand import DONE, FINISH, PART, SAMPLES
from loadtests.options import Option
from loadtests.outcome import conclude, leave, section, told_settings
from loadtests.preflight import Make, Prepared, Refused, prepare
from loadtests.pricing import Pricing
from loadtests.report import Report
from loadtests.rows import log
from loadtests.sample import Sample, from_row
from loadtests.share import Part, dispatcher_of, length_of, machine
from loadtests.web import Live, into_page

__all__ = ["Conductor"]

_LEAD_S = 0.5
_LEAD_SHARED_S = 1.5  # workers are told, and make their traffic
_NEAR_S = 3.0  # a plan that ends so soon is played to its end
_SLACK_S = 5.0  # for workers to send their last word
_TICK_S = 10.0
_CSV_S = 1.2  # locust writes its CSV files once a second, also those of the last one
_LOG = logging.getLogger("loadtests")


class Conductor:
    """One run after the other. ``main`` is the greenlet that an interrupt ends."""

    def __init__(self, environment: Any, make: Make, more: Sequence[Option], main: Any) -> None:
        self._environment, self._make, self._more, self._main = environment, make, more, main
        self.live = Live()
        self.samples: list[Sample] = []
        self.report: Report | None = None
        self._refused: Refused | None = None
        self._prepared: Prepared | None = None
        self._dispatcher: Dispatcher | None = None
        self._away: set[str] = set()
        self._troubles: list[str] = []
        self._start, self._length, self._sent_for = 0.0, math.inf, 0.0
        self._cpu = 0.0
        self._on = self._stopping = False
        self._ended = Event()
        self._folder: Path | None = None

    @property
    def _options(self) -> Any:
        return self._environment.parsed_options

    @property
    def _headless(self) -> bool:
        return bool(self._options.headless or self._options.autostart)

    @property
    def _shared(self) -> bool:
        return hasattr(self._environment.runner, "clients")

    def listen(self) -> None:
        """Take part in locust's events and messages."""
        events, runner = self._environment.events, self._environment.runner
        if self._shared:
            runner.register_message(DONE, self._last_word)
            events.worker_report.add_listener(self._gather)
        events.test_start.add_listener(self._begin)
        events.test_stopping.add_listener(self._end)
        events.test_stop.add_listener(self._conclude)
        events.quitting.add_listener(self._quitting)
        events.quit.add_listener(self._show)

    def prepare(self) -> None:
        """Check everything before any load. Raises Refused."""
        options = self._options
        workers = max(1, getattr(options, "expect_workers", 1) or 1) if self._shared else 1
        host = self._environment.host or ""
        self._prepared = prepare(options, host, self._make, seconds=self._run_time(), processes=workers)
        Pricing(self._prepared.settings.prices).known(
            self._prepared.settings.model.name
        )  # reads the table now
        # Workers get the options from here, and must not each look for a model.
        options.model = self._prepared.settings.model.name

    def interrupt(self) -> None:
        """Ctrl-C: the first stops sending and waits for what is under way, the second gives that up."""
        if self._stopping:
            self._give_up()
        elif not self._on:
            gevent.kill(self._main, KeyboardInterrupt)
        else:
            print("\nstopping; Ctrl-C again gives up the requests under way", file=sys.stderr, flush=True)
            self._environment.runner.stop()
            gevent.kill(self._main, KeyboardInterrupt)

    def html(self) -> str:
        """The section for locust's report; empty before the end of a run."""
        return "" if self.report is None else section(self.report, self.samples)

    def _run_time(self) -> float | None:
        given = self._options.run_time
        return float(given) if given else None

    def _begin(self, **_: Any) -> None:
        self._refused = None
        if not self._headless or self._prepared is None:
            try:
                self.prepare()
            except Refused as refused:
                self._refuse(refused)
                return
        assert self._prepared is not None
        settings, traffic = self._prepared.settings, self._prepared.traffic
        self.samples, self._troubles, self.report, self._cpu = [], [], None, 0.0
        self.live.begin(self.samples)
        length = length_of(settings, traffic, self._run_time())
        self._length = math.inf if length is None else length
        lead = _LEAD_SHARED_S if self._shared else _LEAD_S
        self._start = time.monotonic() + lead
        self._on, self._stopping = True, False
        self._ended.clear()
        if self._shared:
            self._deal(lead, length)
        else:
            part = Part(0, 1, self._start, lead, machine(), length)
            host = self._environment.host or ""
            self._dispatcher = dispatcher_of(
                settings, traffic, host, part, record=self._record, done=self._over
            )
            settle()
            self._dispatcher.begin()
        if self._headless and sys.stderr.isatty():
            gevent.spawn(self._tell_progress)

    def _refuse(self, refused: Refused) -> None:
        self._refused = refused
        _LOG.error("%s", refused)
        self._environment.runner.log_exception("local", str(refused), "")
        gevent.spawn(self._environment.runner.stop)

    def _deal(self, lead: float, length: float | None) -> None:
        """Tell every worker its part, before locust tells it to begin."""
        runner = self._environment.runner
        workers = sorted(one.id for one in runner.clients.ready + runner.clients.running)
        self._away = set(workers)
        for number, client in enumerate(workers):
            part = Part(number, len(workers), self._start, lead, machine(), length)
            runner.send_message(PART, part.as_message(), client)

    def _record(self, one: Sample) -> None:
        self.samples.append(one)
        log(self._environment, one)

    def _gather(self, client_id: str, data: dict[str, Any], **_: Any) -> None:
        self.samples.extend(from_row(row) for row in data.pop(SAMPLES, ()))

    def _last_word(self, msg: Any, **_: Any) -> None:
        self.samples.extend(from_row(row) for row in msg.data["samples"])
        self._cpu += msg.data["cpu_s"]
        if msg.data["trouble"]:
            self._troubles.append(msg.data["trouble"])
        self._away.discard(msg.node_id)
        if not self._away and not self._stopping:
            self._over()

    def _over(self) -> None:
        """All was sent and answered."""
        if self._on and not self._stopping:
            runner = self._environment.runner
            gevent.spawn(runner.quit if self._headless and self._options.headless else runner.stop)

    def _end(self, **_: Any) -> None:
        """Stop sending, wait for what is under way.

        Two may end a run, the last answer and the clock: whoever comes second waits for the first.
        """
        if not self._on or self._prepared is None:
            return
        if self._stopping:
            self._ended.wait()
            return
        self._stopping = True
        try:
            self._wind_up(self._prepared.settings.drain)
        finally:
            self._ended.set()

    def _wind_up(self, drain: float) -> None:
        left = self._start + self._length - time.monotonic()
        if 0 < left < _NEAR_S:
            gevent.sleep(left)
        self._sent_for = min(self._length, max(0.0, time.monotonic() - self._start))
        if self._dispatcher is not None:
            self._dispatcher.drain(drain)
        elif self._shared:
            self._await_workers(drain)

    def _await_workers(self, drain: float) -> None:
        runner = self._environment.runner
        runner.send_message(FINISH, {"drain": drain})
        until = time.monotonic() + drain + _SLACK_S
        while self._away & self._present() and time.monotonic() < until:
            gevent.sleep(0.05)
        if self._away:
            self._troubles.append(f"{len(self._away)} worker(s) were lost, and with them their last samples")

    def _present(self) -> set[str]:
        return {one.id for one in self._environment.runner.clients.values() if one.state != "missing"}

    def _give_up(self) -> None:
        if self._dispatcher is not None:
            self._dispatcher.give_up()
        elif self._shared:
            self._environment.runner.send_message(FINISH, {"drain": 0.0})

    def _conclude(self, **_: Any) -> None:
        if not self._on or self._prepared is None:
            return
        self._on = False
        settings, traffic = self._prepared.settings, self._prepared.traffic
        if self._dispatcher is not None:
            self._troubles += [self._dispatcher.trouble] if self._dispatcher.trouble else []
            self._cpu = self._dispatcher.cpu_s
        self._dispatcher = None
        told = told_settings(self._options, self._more, self._environment.host or "", settings.model.name)
        runner = self._environment.runner
        told["generator_cpu_s"] = round(self._cpu, 3)
        told["cpu_warning"] = bool(runner.cpu_warning_emitted or runner.worker_cpu_warning_emitted)
        trouble = self._troubles[0] if self._troubles else None
        self.report = conclude(
            self.samples, settings, traffic, seconds=self._sent_for, told=told, overloaded=trouble
        )
        self.live.report = self.report
        try:
            self._folder = leave(self.report, self.samples, settings, traffic)
        except OSError as error:
            _LOG.error("the run's folder could not be written: %s", error)
        if not self._options.headless:
            _LOG.info("run over, exit code %s, in %s", self.report.exit_code, self._folder)

    def _quitting(self, **_: Any) -> None:
        if self._on:
            self._environment.runner.stop()
        if self._refused is not None and self._headless:
            self._environment.process_exit_code = self._refused.code
        elif self.report is not None and self._headless:
            self._environment.process_exit_code = self.report.exit_code
        if getattr(self._options, "csv_prefix", None):
            gevent.sleep(_CSV_S)
        page = getattr(self._options, "html_file", None)
        if page and self.report is not None and Path(page).exists():
            path = Path(page)
            path.write_text(into_page(path.read_text(encoding="utf-8"), self.html()), encoding="utf-8")

    def _show(self, **_: Any) -> None:
        """The last thing on the terminal."""
        if self.report is None or not self._headless:
            return
        from loadtests.table import show

        show(self.report)
        if self._folder is not None:
            print(f"all of it: {self._folder}", flush=True)

    def _tell_progress(self) -> None:
        gevent.sleep(_TICK_S)
        while self._on and not self._stopping:
            passed = time.monotonic() - self._start
            of = "" if math.isinf(self._length) else f" of {self._length:.0f}"
            failed = sum(1 for one in self.samples if one.error is not None)
            print(
                f"{passed:.0f}{of} s: {len(self.samples):,} answered, {failed:,} failed",
                file=sys.stderr,
                flush=True,
            )
            gevent.sleep(_TICK_S)
