"""What a load run can be told, on locust's command line, in its environment and in its web form.

Free of locust: :func:`add_options` takes any parser that knows ``add_argument``, :func:`read_settings` any namespace.
"""

from __future__ import annotations

import json
import math
import os
import re
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loadtests.arrivals import Plan, Stage, parse_seconds, parse_stages
from loadtests.slo import Objective, parse_objectives
from loadtests.traces import Row, read_trace
from loadtests.traffic import Model

__all__ = ["OPTIONS", "Option", "Settings", "SettingsError", "add_options", "read_settings"]


class SettingsError(ValueError):
    """Settings that cannot be run; the message names the option and the mend."""


@dataclass(frozen=True, slots=True)
class Option:
    """One option: its name without the dashes, its default, and what it is for."""

    name: str
    default: str | float | int
    about: str

    @property
    def key(self) -> str:
        """Its name in a namespace."""
        return self.name.replace("-", "_")


OPTIONS = (
    Option("rate", 10.0, "requests a second (of conversations: conversations a second)"),
    Option("arrivals", "poisson", "poisson, gamma, constant, or trace: the times of --trace"),
    Option("burstiness", 1.0, "shape of gamma arrivals: 1 is Poisson, less is burstier"),
    Option("stages", "", "instead of --rate: rates and ramps, such as 10@30s,10-50@60s,50@5m"),
    Option("trace", "", "file of recorded traffic: Azure CSV or Mooncake JSON lines, plain or gzipped"),
    Option("trace-speed", 1.0, "2 sends a trace twice as fast"),
    Option("trace-most", 0, "use only so many requests of a trace; 0: all"),
    Option("seed", 0, "of the arrivals and of what is asked"),
    Option("model", "", "model to ask for; default: the first that the server lists"),
    Option("max-tokens", 128, "longest answer, in tokens; 0: the server's own limit"),
    Option("temperature", "", "sampling temperature; default: the server's"),
    Option("body", "", 'JSON merged into every request, such as {"ignore_eos": true}'),
    Option("header", "", "one more header of every request, such as 'X-Tenant: acme'"),
    Option("key-env", "OPENAI_API_KEY", "environment variable that holds the API key, where one is needed"),
    Option("timeout", "120s", "longest time for one request"),
    Option("drain", "60s", "longest wait for requests under way when the sending ends"),
    Option("slo", "", "objectives, such as ttft.p95<500ms,e2e.p99<10s,errors<1%,cost.mean<0.002USD"),
    Option(
        "price-in", "", "US dollars per million input tokens; default: costkit's table, by the model's name"
    ),
    Option("price-out", "", "US dollars per million output tokens"),
    Option(
        "price-cached", "", "US dollars per million input tokens from the prefix cache; default: --price-in"
    ),
    Option("machine-hour", "", "US dollars per hour of what serves, instead of prices per token"),
    Option("out", "loadtest-out", "folder for the run's own folder"),
    Option("run-name", "", "name of the run's folder; default: the file's name and the time"),
    Option("max-in-flight", 4000, "requests under way in one process; more make the run invalid"),
)


@dataclass(frozen=True, slots=True)
class Settings:
    """The checked settings of a run. Seconds, requests a second, US dollars per million tokens or per hour.

    The key itself is no setting: :func:`Settings.key` reads it when it is needed.
    """

    plan: Plan | None
    trace: Path | None
    trace_speed: float
    trace_most: int
    seed: int
    model: Model
    header: Mapping[str, str] = field(repr=False)
    key_env: str
    timeout: float
    drain: float
    objectives: tuple[Objective, ...]
    prices: tuple[float, float, float] | None
    machine_hour: float | None
    out: Path
    run_name: str
    most_in_flight: int

    def rows(self) -> list[Row]:
        """The requests of the trace. Raises TraceError, which names a broken line; SettingsError without a trace."""
        if self.trace is None:
            raise SettingsError("--trace: name a file of recorded traffic")
        return read_trace(self.trace, most=self.trace_most or None)

    def key(self) -> str | None:
        """The API key, never to be printed or stored; None where the variable is not set."""
        value = os.environ.get(self.key_env, "").strip()
        if not value:
            return None
        if not value.isascii() or not value.isprintable() or " " in value:
            raise SettingsError(
                f"--key-env: what {self.key_env} holds is no API key (a space, or a line break?)"
            )
        return value


def add_options(parser: Any, more: Sequence[Option] = ()) -> None:
    """Add every option to locust's parser: on the parser itself, for groups are left out of the web form."""
    for one in (*OPTIONS, *more):
        parser.add_argument(
            f"--{one.name}",
            type=type(one.default),
            default=one.default,
            env_var=f"LOADTEST_{one.key.upper()}",
            help=one.about.replace("%", "%%"),
            metavar=type(one.default).__name__.upper().replace("STR", "TEXT"),
        )


def read_settings(options: Namespace, *, seconds: float | None = None) -> Settings:
    """The settings that a command line, an environment or a web form says.

    Args:
        options: with the keys of :data:`OPTIONS`.
        seconds: how long to send, where ``--stages`` does not say; None: until told to stop.

    Raises:
        SettingsError: one that cannot be run with; the message names the option and the mend.
    """
    said = {one.key: getattr(options, one.key, one.default) for one in OPTIONS}
    arrivals = str(said["arrivals"])
    trace = Path(str(said["trace"])).expanduser() if said["trace"] else None
    if arrivals == "trace" and trace is None:
        raise SettingsError("--arrivals trace needs --trace FILE")
    objectives = _checked("--slo", parse_objectives, str(said["slo"]))
    if said["machine_hour"] and any(one.metric == "cost" for one in objectives):
        raise SettingsError(
            "--slo cost.mean: with --machine-hour a request has no cost of its own; leave one of the two out "
            "(the run tells dollars per 1,000 good requests)"
        )
    return Settings(
        plan=None if arrivals == "trace" else _plan(said, arrivals, seconds),
        trace=trace,
        trace_speed=_number(said, "trace_speed", over=0.0),
        trace_most=_whole(said, "trace_most"),
        seed=_whole(said, "seed"),
        model=_model(said),
        header=_header(str(said["header"])),
        key_env=_variable(str(said["key_env"])),
        timeout=_seconds(said, "timeout"),
        drain=_seconds(said, "drain"),
        objectives=objectives,
        prices=_prices(said),
        machine_hour=_number(said, "machine_hour", over=0.0) if said["machine_hour"] else None,
        out=Path(str(said["out"])).expanduser(),
        run_name=_name(str(said["run_name"])),
        most_in_flight=_whole(said, "max_in_flight", least=1),
    )


def _plan(said: Mapping[str, Any], arrivals: str, seconds: float | None) -> Plan:
    if said["stages"]:
        stages: tuple[Stage, ...] = _checked("--stages", parse_stages, str(said["stages"]))
    else:
        rate = _number(said, "rate", over=0.0)
        stages = (_checked("--rate", lambda one: Stage(one, one, seconds or math.inf), rate),)
    shape, seed = _number(said, "burstiness"), _whole(said, "seed")
    plan: Plan = _checked("--arrivals", lambda kind: Plan(stages, kind, shape, seed), arrivals)
    return plan


def _model(said: Mapping[str, Any]) -> Model:
    extra: Any = {}
    if said["body"]:
        try:
            extra = json.loads(said["body"])
        except (ValueError, RecursionError):
            extra = None
        if not isinstance(extra, dict):
            raise SettingsError(
                f'--body: {said["body"]!r:.60} is no JSON object; say it like {{"ignore_eos": true}}'
            )
    warm = said["temperature"]
    temperature = None if warm in {"", None} else _number(said, "temperature")
    return Model(str(said["model"] or ""), _whole(said, "max_tokens"), temperature, extra)


def _header(text: str) -> dict[str, str]:
    if not text:
        return {}
    name, colon, value = text.partition(":")
    if not colon or not name.strip() or any(ord(one) < 32 for one in text):
        raise SettingsError("--header: say it like 'X-Tenant: acme'")
    if name.strip().lower() == "authorization":
        raise SettingsError("--header: put the key into an environment variable and name that with --key-env")
    return {name.strip(): value.strip()}


def _variable(text: str) -> str:
    # Whoever puts the key itself here must not find it in a message.
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text) or text.startswith("sk_"):
        raise SettingsError("--key-env: the NAME of an environment variable is wanted, not the key itself")
    return text


def _prices(said: Mapping[str, Any]) -> tuple[float, float, float] | None:
    if not said["price_in"] and not said["price_out"]:
        if said["price_cached"]:
            raise SettingsError("--price-cached needs --price-in and --price-out")
        return None
    if not said["price_in"] or not said["price_out"]:
        raise SettingsError("--price-in and --price-out go together (a price may be 0)")
    fresh, out = _number(said, "price_in"), _number(said, "price_out")
    return fresh, out, _number(said, "price_cached") if said["price_cached"] else fresh


def _number(said: Mapping[str, Any], key: str, *, over: float | None = None) -> float:
    try:
        value = float(said[key])
    except (TypeError, ValueError):
        value = math.nan
    if not (math.isfinite(value) and (value >= 0 if over is None else value > over)):
        least = "0 or more" if over is None else f"more than {over:g}"
        raise SettingsError(f"--{key.replace('_', '-')} {said[key]!r:.40}: needs a number, {least}")
    return value


def _whole(said: Mapping[str, Any], key: str, least: int = 0) -> int:
    value = _number(said, key)
    if value != int(value) or value < least:
        raise SettingsError(
            f"--{key.replace('_', '-')} {said[key]!r:.40}: needs a whole number, {least} or more"
        )
    return int(value)


def _seconds(said: Mapping[str, Any], key: str) -> float:
    value: float = _checked(f"--{key}", parse_seconds, str(said[key]))
    if not value > 0:
        raise SettingsError(f"--{key} {said[key]}: needs more than 0 seconds")
    return value


def _name(text: str) -> str:
    if text and not re.fullmatch(r"[\w][\w .-]{0,99}", text):
        raise SettingsError(f"--run-name {text!r:.60}: a folder's name of letters, digits, dots and hyphens")
    return text


def _checked(option: str, read: Any, text: Any) -> Any:
    try:
        return read(text)
    except ValueError as error:
        raise SettingsError(f"{option}: {error}") from None
