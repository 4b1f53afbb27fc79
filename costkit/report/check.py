"""One line of a health check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Check", "Level"]

Level = Literal["ok", "warn", "bad"]


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at, what was found, and the mend where something is wrong."""

    level: Level
    what: str
    found: str
    mend: str = ""
