"""What doctor says of Python, SQLite and the packages whose age matters."""

from __future__ import annotations

import platform
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import metadata

from ..prices.listed import installed, newest
from .check import Check

__all__ = ["version_checks", "wal_reset_bug"]

_OLD_PRICES = 60  # days; about one listed model in twelve changes its price in three months
_PACKAGES = ("diskcache", "genai-prices", "tiktoken")


def version_checks(now: float) -> Iterator[Check]:
    """Python, SQLite, packages, and how old the price list is at Unix time ``now``."""
    yield Check("ok", "python", f"{platform.python_version()}, costkit {_version('costkit')}")
    if wal_reset_bug(sqlite3.sqlite_version_info):
        yield Check(
            "warn",
            "SQLite",
            f"{sqlite3.sqlite_version} has the rare WAL-reset bug (3.7.0 to 3.51.2)",
            "use a Python built on SQLite 3.51.3 or later when one is at hand",
        )
    else:
        yield Check("ok", "SQLite", sqlite3.sqlite_version)
    yield Check("ok", "packages", ", ".join(f"{name} {_version(name)}" for name in _PACKAGES))
    yield _prices(datetime.fromtimestamp(now, UTC))


def _prices(now: datetime) -> Check:
    """The table carries no date of its own: the newest day from which one of its prices holds bounds its age."""
    day = newest(now)
    if day is None:
        return Check("warn", "price list", f"{installed()}, of unknown age", "pip install -U genai-prices")
    age = (now.date() - day).days
    found = f"{installed()}, its newest price is of {day}, {age} days ago"
    if age > _OLD_PRICES:
        return Check(
            "warn", "price list", found, "pip install -U genai-prices; `costkit prices` shows what matters"
        )
    return Check("ok", "price list", found)


def wal_reset_bug(version: tuple[int, ...]) -> bool:
    """Whether this SQLite can, rarely, corrupt a database when its log is reset (fixed in 3.51.3).

    >>> wal_reset_bug((3, 40, 1)), wal_reset_bug((3, 51, 3))
    (True, False)
    """
    return (3, 7, 0) <= version < (3, 51, 3)


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"
