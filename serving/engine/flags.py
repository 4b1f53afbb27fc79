"""What vLLM's own parser says to command lines; runs inside the engine's environment: ``python flags.py``.

Reads a JSON list of command lines (the words after ``vllm serve``) from stdin and writes a JSON list: for each, null
or the parser's complaint. Nothing is started.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import contextlib
import io
import json
import sys
from pathlib import Path


def main() -> None:
    """Judge the command lines on stdin."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    import serving.engine.launch  # noqa: F401  (vLLM asks for its version while it builds the parser)

    lines = json.load(sys.stdin)
    out = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        from vllm.entrypoints.cli.serve import ServeSubcommand  # type: ignore[import-not-found]
        from vllm.utils.argparse_utils import FlexibleArgumentParser  # type: ignore[import-not-found]

        top = FlexibleArgumentParser(prog="vllm")
        ServeSubcommand().subparser_init(top.add_subparsers(dest="subparser"))
        faults = [_judge(top, line) for line in lines]
    json.dump(faults, out)


def _judge(top, line: list[str]) -> str | None:  # type: ignore[no-untyped-def]
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            top.parse_args(["serve", *line])
    except SystemExit:
        lines = said.getvalue().strip().splitlines() or ["refused without a word"]
        return lines[-1].rpartition("error: ")[2]
    except Exception as error:  # noqa: BLE001  (whatever stops vLLM on this line is the answer)
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return None


if __name__ == "__main__":
    main()
