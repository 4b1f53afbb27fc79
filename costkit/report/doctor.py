"""Is this folder healthy: files, seal, ledger, cache, index, disk, clock and versions; looks only, and never raises."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .check import Check
from .doctor_data import cache_checks, index_checks, ledger_checks
from .doctor_folder import disk_checks, folder_checks, secret_checks
from .doctor_versions import version_checks
from .table import cell, grid

if TYPE_CHECKING:
    from rich.console import Group

__all__ = ["Check", "Health", "examine"]

_COLOURS = {"ok": "green", "warn": "yellow", "bad": "bold red"}


@dataclass(frozen=True, slots=True)
class Health:
    """The checks of one folder in their order."""

    folder: str
    checks: tuple[Check, ...]

    @property
    def bad(self) -> int:
        """How many checks found something that must be mended."""
        return sum(check.level == "bad" for check in self.checks)

    def advice(self) -> str:
        """What to do next."""
        worst = [c for level in ("bad", "warn") for c in self.checks if c.level == level and c.mend]
        if not worst:
            return "Next: nothing to mend; `costkit report` shows what is recorded."
        return f"Next: {worst[0].what}: {worst[0].mend}."

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "bad": self.bad}

    def table(self) -> Group:
        """The checks for a rich Console."""
        from rich.console import Group
        from rich.text import Text

        table = grid("", "what", "found", "mend")
        for c in self.checks:
            table.add_row(
                Text(c.level, style=_COLOURS[c.level]), cell(c.what), cell(c.found, 400), cell(c.mend, 400)
            )
        return Group(table, cell(self.advice(), 600, "bold"))


def examine(folder: str | os.PathLike[str], *, now: float | None = None) -> Health:
    """Look at a kit's folder, sound or damaged or somebody else's; changes nothing in it.

    >>> import costkit, tempfile
    >>> kit = costkit.Kit(tempfile.mkdtemp() + "/kit")
    >>> kit.close()
    >>> examine(kit.folder).bad
    0
    """
    path = Path(folder).expanduser()
    at = time.time() if now is None else now
    groups: tuple[tuple[str, Callable[[], Iterator[Check]]], ...] = (
        ("folder", lambda: folder_checks(path)),
        ("secret", lambda: secret_checks(path)),
        ("ledger", lambda: ledger_checks(path, at)),
        ("cache", lambda: cache_checks(path)),
        ("index", lambda: index_checks(path)),
        ("disk", lambda: disk_checks(path)),
        ("versions", lambda: version_checks(at)),
    )
    found: list[Check] = []
    for what, checks in groups:
        try:
            found += checks()
        except Exception as exc:  # noqa: BLE001 - whatever a damaged or foreign folder holds is a finding
            found.append(
                Check(
                    "bad",
                    what,
                    f"{type(exc).__name__}: {exc}",
                    "look at the file this names; it is not as kits leave it",
                )
            )
        if not path.is_dir():
            break
    return Health(str(path), tuple(found))
