"""Before load is offered: are the settings sound, does the server answer a chat, can this machine make the rate?

One request is sent, as the run would send it. Whatever is wrong is said in one line.
"""

from __future__ import annotations

import json
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from loadtests.dispatch import ceiling
from loadtests.options import Settings, SettingsError, read_settings
from loadtests.stream import Answer
from loadtests.traces import TraceError
from loadtests.traffic import Traffic, TrafficError
from loadtests.wire import AddressError, Client, parse_target

__all__ = [
    "EXIT_SETTINGS",
    "Make",
    "Prepared",
    "Refused",
    "client_of",
    "make_traffic",
    "prepare",
    "settings_of",
]

Make = Callable[[Settings, Namespace], Traffic]

EXIT_SETTINGS, _EXIT_SERVER, _EXIT_GENERATOR = 2, 1, 5
_TRIAL_S = 60.0
_PASSING = frozenset({"status_500", "status_502", "status_504", "cut_off", "timeout"})
_PAUSES_S = (0.5, 2.0)


class Refused(Exception):
    """The run is not begun; one line says why, and what mends it."""

    def __init__(self, code: int, line: str) -> None:
        super().__init__(line)
        self.code = code


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run that can begin: checked settings, the model found, the traffic made."""

    settings: Settings
    traffic: Traffic


def prepare(
    options: Namespace, host: str, make: Make, *, seconds: float | None, processes: int = 1
) -> Prepared:
    """Check everything.

    Args:
        options: of the command line or the web form.
        host: the base URL.
        make: makes the traffic of the settings.
        seconds: how long to send; None: until told to stop.
        processes: how many will share the load.

    Raises:
        Refused: with exit code 2 for settings, 1 for the server, 5 for a rate that cannot be generated.
    """
    settings = settings_of(options, seconds)
    try:
        client = client_of(settings, host)
    except (AddressError, ValueError) as error:
        raise Refused(EXIT_SETTINGS, str(error)) from None
    try:
        if not settings.model.name:
            found = models(client)
            if not found:
                raise Refused(
                    *_server(host, client.get(_models_path(client)), "lists no model: name one with --model")
                )
            settings = replace(settings, model=replace(settings.model, name=found[0]))
        traffic = make_traffic(make, settings, options)
        _try(client, traffic, settings, host)
    finally:
        client.close()
    _possible(settings, traffic, processes)
    return Prepared(settings, traffic)


def settings_of(options: Namespace, seconds: float | None) -> Settings:
    """The checked settings. Raises Refused."""
    try:
        return read_settings(options, seconds=seconds)
    except SettingsError as error:
        raise Refused(EXIT_SETTINGS, str(error)) from None


def make_traffic(make: Make, settings: Settings, options: Namespace) -> Traffic:
    """The traffic of a run. Raises Refused, which names a broken line of a file."""
    try:
        traffic = make(settings, options)
        if settings.plan is None and traffic.times is None:
            traffic = replace(traffic, times=[row.at / settings.trace_speed for row in settings.rows()])
        _ = traffic.ask(traffic.trial)
    except (TraceError, TrafficError, SettingsError) as error:
        raise Refused(EXIT_SETTINGS, str(error)) from None
    except OSError as error:
        raise Refused(
            EXIT_SETTINGS, f"{error.filename}: cannot be read ({error.strerror or error})"
        ) from None
    except ValueError as error:  # of an option of the locust file itself
        raise Refused(EXIT_SETTINGS, str(error)) from None
    return traffic


def client_of(settings: Settings, host: str) -> Client:
    """A client with the key, where there is one. Raises AddressError, SettingsError or ValueError."""
    if not host:
        raise AddressError("no address: say --host http://127.0.0.1:8000")
    key = settings.key()
    headers = {**settings.header, **({"authorization": f"Bearer {key}"} if key else {})}
    return Client(parse_target(host), headers, timeout=settings.timeout)


def models(client: Client) -> list[str]:
    """The models that a server lists."""
    answer = client.get(_models_path(client))
    try:
        found = json.loads(answer.kept)["data"]
        return [one["id"] for one in found if isinstance(one["id"], str)]
    except (ValueError, LookupError, TypeError, RecursionError):
        return []


def _models_path(client: Client) -> str:
    return client.target.path.removesuffix("/chat/completions") + "/models"


def _try(client: Client, traffic: Traffic, settings: Settings, host: str) -> None:
    ask = traffic.ask(traffic.trial)
    client = replace(client, timeout=min(_TRIAL_S, settings.timeout))
    answer, _ = client.post(ask.body, ask.headers)
    for pause in _PAUSES_S:  # one bad answer of a server that gives some is no reason not to begin
        if answer.error not in _PASSING:
            break
        time.sleep(pause)
        answer, _ = client.post(ask.body, ask.headers)
    # What the load is to find out (too much at once, a slow answer) is no reason not to begin.
    if answer.error is None or answer.error in {"status_429", "status_503", "no_finish_reason", "no_content"}:
        return
    name = settings.model.name
    if answer.status == 404:
        listed = models(client)
        if listed and name not in listed:
            known = ", ".join(listed[:5]) + (", ..." if len(listed) > 5 else "")
            raise Refused(
                _EXIT_SERVER, f"{host} has no model {name!r}; it lists {known}: name one with --model"
            )
    raise Refused(*_server(host, answer, f"answers a trial request with {answer.error}", settings))


def _server(host: str, answer: Answer, other: str, settings: Settings | None = None) -> tuple[int, str]:
    """What is wrong with a server, by its answer. Its own words are left out: they may hold a key or a prompt."""
    error = answer.error or ""
    path = "" if settings is None else " (is the path right? /v1 is taken where none is said)"
    variable = settings.key_env if settings else "the variable of --key-env"
    told = {
        "connect_econnrefused": "nothing listens there: start the server, or say another --host",
        "unknown_host": "no such host: check --host",
        "timeout": "does not answer in time: is it up, and is --timeout long enough?",
        "tls": "the TLS handshake failed: is it https, and is its certificate valid?",
        "html": "answers with a web page, not with a chat completion: is the port right?",
        "not_a_stream": "does not stream: its answer is no text/event-stream",
        "bad_http": "does not speak HTTP: is the port right?",
        "content_encoding": "sends compressed answers though none was asked for: switch that off",
        "status_401": f"refuses the API key (401): set {variable} to one that is valid; it may have expired",
        "status_403": f"refuses the API key (403): set {variable} to one that may use this model",
        "status_404": f"has no chat completions there (404){path}, or not this model: check --host and --model",
        "status_400": "finds fault with the request (400): check --model, --body and --max-tokens, and its log",
    }
    if error.startswith("connect_") and error not in told:
        told[error] = f"cannot be reached ({error.removeprefix('connect_').upper()})"
    return _EXIT_SERVER, f"{host}: {told.get(error, other)}"


def _possible(settings: Settings, traffic: Traffic, processes: int) -> None:
    rate, most = peak(settings, traffic), ceiling(traffic) * processes
    if rate > most:
        line = (
            f"{rate:,.0f} requests a second cannot be generated here: not even {most:,.0f} could be made and read by"
            f" {processes} process(es) without any network; lower --rate, or spread it over --processes or workers"
        )
        raise Refused(_EXIT_GENERATOR, line)


def peak(settings: Settings, traffic: Traffic) -> float:
    """The highest rate of a run, requests a second: of its stages, or of a trace's fullest 10 seconds."""
    if settings.plan is not None and traffic.times is None:
        return max(max(stage.start, stage.end) for stage in settings.plan.stages)
    counts = Counter(int(at / 10) for at in traffic.times or ())
    return max(counts.values(), default=0) / 10
