"""Recorded traffic again: its times, its lengths, and what its prompts share.

    locust -f loadtests/replay.py --headless --host http://127.0.0.1:8000 --trace conversation.csv --trace-speed 2

Reads Azure's CSV (TIMESTAMP, ContextTokens, GeneratedTokens) and Mooncake's JSON lines (timestamp, input_length,
output_length, hash_ids), plain or gzipped. No trace comes with costkit: fetch one, mind its licence.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

from loadtests.options import OPTIONS as COMMON
from loadtests.options import Option, Settings, SettingsError
from loadtests.run import LoadUser, install
from loadtests.traffic import Traffic, replay

OPTIONS = (Option("trace-scale", 1.0, "makes prompts and answers shorter: 0.1 is a tenth of their tokens"),)

DEFAULTS = {one.key: one.default for one in COMMON}


def make(settings: Settings, options: Namespace) -> Traffic:
    """The traffic of this file."""
    given = [
        name
        for name in ("rate", "stages", "burstiness")
        if str(getattr(options, name)) != str(DEFAULTS[name])
    ]
    given += [] if options.arrivals in (DEFAULTS["arrivals"], "trace") else ["arrivals"]
    if given:
        raise SettingsError(
            f"--{given[0]}: replay sends at the trace's own times; leave it out (--trace-speed 2 sends twice as fast)"
        )
    rows = settings.rows()
    return replay(settings.model, rows, speed=settings.trace_speed, scale=float(options.trace_scale))


install(make, OPTIONS)


class ReplayUser(LoadUser):
    """Asks again."""
