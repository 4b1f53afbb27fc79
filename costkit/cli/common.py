"""What the commands share: exit statuses, their common arguments, where they print."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from ..exact import seconds

if TYPE_CHECKING:
    from rich.console import Console

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]
else:
    Commands = Any

__all__ = [
    "EXIT_BELOW",
    "EXIT_ERROR",
    "Commands",
    "add_folder",
    "add_json",
    "check_json",
    "console_for",
    "load",
    "load_function",
    "moment",
    "show",
]

EXIT_BELOW = 1
EXIT_ERROR = 2
PIPE_WIDTH = 120


def add_folder(parser: argparse.ArgumentParser) -> None:
    """``--folder``: the kit's."""
    parser.add_argument(
        "--folder", default=".costkit", metavar="PATH", help="the kit's folder (default .costkit)"
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """``--json``: the same as data."""
    parser.add_argument("--json", metavar="FILE", help="write it as JSON too; - for standard output")


def check_json(args: argparse.Namespace) -> None:
    """Refuse a ``--json`` that cannot be written before any work is done."""
    if args.json and args.json != "-" and not Path(args.json).absolute().parent.is_dir():
        raise ConfigError(f"--json {args.json}: the folder does not exist; make it first")


def console_for(to_stderr: bool = False) -> Console:
    """Where a table goes: colours on a terminal, plain and 120 wide in a pipe."""
    from rich.console import Console

    console = Console(stderr=to_stderr, highlight=False)
    # A pipe has no width of its own, and 80 columns would break the table's sentences.
    return console if console.is_terminal else Console(stderr=to_stderr, width=PIPE_WIDTH, highlight=False)


def show(args: argparse.Namespace, data: Callable[[], Any], table: Callable[[], Any]) -> None:
    """The table; with ``--json`` the data too: in a file, or alone on standard output with the table on stderr."""
    to_stdout = args.json == "-"
    if args.json:
        # ASCII, so that no name in it can steer a terminal.
        text = json.dumps(data(), indent=1, default=str)
        if to_stdout:
            print(text)
        else:
            try:
                Path(args.json).write_text(text + "\n", "utf-8")
            except OSError as exc:
                raise ConfigError(f"--json {args.json}: {exc.strerror or exc}; name another file") from exc
    console_for(to_stdout).print(table())


def moment(text: str) -> float:
    """A Unix time from a duration back from now, such as ``7d``, or a date or time (UTC unless it says otherwise).

    Raises ConfigError.

    >>> moment("2026-11-01")
    1793491200.0
    """
    try:
        return time.time() - seconds(text, "")
    except ConfigError:
        pass
    try:
        told = datetime.fromisoformat(text.strip())
        return (told if told.tzinfo else told.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError) as exc:
        raise ConfigError(
            f"--since {text!r:.80}: say how long ago, such as 7d or 12h, or a date such as 2026-11-01"
        ) from exc


def load(name: str) -> Any:
    """What ``MODULE:NAME`` names, with the current folder on the path as for ``python -m``.

    Raises ConfigError saying which part is wrong.
    """
    module, colon, path = name.partition(":")
    if not (module and colon and path):
        raise ConfigError(f"{name!r}: write MODULE:FUNCTION, such as my_app.chat:ask")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module)
    except Exception as error:
        raise ConfigError(f"{name}: cannot import {module!r}: {type(error).__name__}: {error}") from error
    for part in path.split("."):
        if not hasattr(found, part):
            raise ConfigError(f"{name}: {module!r} has no {part!r}; look at the spelling after the colon")
        found = getattr(found, part)
    return found


def load_function(name: str) -> Callable[..., Any]:
    """The callable that ``MODULE:FUNCTION`` names; raises ConfigError saying which part is wrong."""
    found = load(name)
    if not callable(found):
        raise ConfigError(f"{name}: is {type(found).__name__}, which cannot be called; name a function")
    called: Callable[..., Any] = found
    return called
