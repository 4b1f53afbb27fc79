"""The command line: ``costkit report``, ``costkit gold run my_app:ask --gold gold/``, ...

Each file here is one group of commands: a function that adds its parser and says what to run. COMMANDS lists them.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from ..errors import CostkitError
from .certify import add_certify
from .common import EXIT_ERROR, Commands, load_function
from .doctor import add_doctor
from .forget import add_forget
from .gate import add_gate
from .gold import add_gold
from .prices import add_prices
from .replay import add_replay
from .report import add_report
from .why import add_why

__all__ = ["load_function", "main"]

COMMANDS: tuple[Callable[[Commands], None], ...] = (
    add_report,
    add_gate,
    add_why,
    add_prices,
    add_doctor,
    add_forget,
    add_gold,
    add_replay,
    add_certify,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns 0, 1 where an asked-for bar was missed, 2 for an error of costkit."""
    parser = argparse.ArgumentParser(
        prog="costkit",
        description="Cuts the cost and the p95 of LLM calls, and shows that quality did not pay for it.",
    )
    parser.add_argument("--version", action="store_true", help="print the version and leave")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for add in COMMANDS:
        add(commands)
    args = parser.parse_args(argv)
    if args.version:
        from .. import __version__

        print(__version__)
        return 0
    if not hasattr(args, "run"):
        parser.print_help()
        return EXIT_ERROR
    try:
        return int(args.run(args))
    except CostkitError as error:
        from ..report.read import clean

        print(f"costkit: {clean(' '.join(str(error).split()))}", file=sys.stderr)
        return EXIT_ERROR
    except KeyboardInterrupt:
        print("costkit: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader (`| head`) has left; Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
