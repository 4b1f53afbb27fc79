"""How fast a real server was, as arguments of the simulated one; kept in a small JSON file.

A profile is an object with `settings`, the names of `NAMES` and their values, and `fitted`, what it was fitted from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

__all__ = ["NAMES", "ProfileError", "profile_arguments", "write_profile"]

NAMES = (
    "slots",
    "prefill_base_ms",
    "prefill_ms_per_token",
    "tpot_ms",
    "load_factor",
    "output_tokens_mean",
    "output_tokens_sigma",
)


class ProfileError(ValueError):
    """A profile is missing or is none; the message is one line and names the file."""


def profile_arguments(path: str | Path) -> list[str]:
    """The profile as command-line arguments.

    Raises:
        ProfileError: the file cannot be read or holds something else.
    """
    try:
        settings = json.loads(Path(path).read_text(encoding="utf-8"))["settings"]
        given = {name: settings[name] for name in settings if name in NAMES}
    except OSError as error:
        raise ProfileError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ProfileError(f"{path}: is no profile; make one with python -m serving.simulated.fit") from error
    if len(given) != len(settings) or any(type(value) not in (int, float) for value in given.values()):
        raise ProfileError(f"{path}: 'settings' holds other than numbers for {', '.join(NAMES)}")
    return [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]


def write_profile(path: str | Path, settings: Mapping[str, float], fitted: Mapping[str, object]) -> None:
    """Write a profile; raises OSError where the file cannot be written."""
    whole = {"settings": dict(settings), "fitted": dict(fitted)}
    Path(path).write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
