"""``python3 -m serving.engine COMMAND``: set up, serve, look, stop."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from types import FrameType

from serving.engine import install, server
from serving.engine.layout import SERVED_NAMES, EngineError, Layout, here, one_at_a_time
from serving.engine.process import members


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 if it worked, 1 with one line on stderr if it did not, 130 after Ctrl-C."""
    options = parser().parse_args(arguments)
    layout = here()
    try:
        if options.command == "setup":
            install.setup(layout, say)
        elif options.command == "tiny":
            with one_at_a_time(layout):
                say(f"tiny-random: {install.make_tiny(layout)}")
        elif options.command == "serve":
            return serve(layout, options.model, options.port, options.dtype, options.background)
        elif options.command == "status":
            return status(layout)
        else:
            stop(layout, options.port)
    except EngineError as error:
        print(f"serving.engine: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="python3 -m serving.engine", description="vLLM on a CPU, ready in one command."
    )
    commands = top.add_subparsers(dest="command", required=True)
    commands.add_parser("setup", help="make the environment and the models (once; checks them afterwards)")
    commands.add_parser("tiny", help="make the tiny random model for protocol tests")
    serving = commands.add_parser("serve", help="start a server, set up first if need be")
    serving.add_argument("--model", choices=sorted(SERVED_NAMES), default="smollm2")
    serving.add_argument("--port", type=int, default=8000, help="0 takes any free port (default 8000)")
    serving.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        default="float32",
        help="float32: the same text at any load; bfloat16: faster, text varies with load",
    )
    serving.add_argument("--background", action="store_true", help="return once it answers")
    stopping = commands.add_parser("stop", help="stop this checkout's servers")
    stopping.add_argument("--port", type=int, help="only the one on this port")
    commands.add_parser("status", help="what runs; exit status 3 if nothing does")
    return top


def serve(layout: Layout, model: str, port: int, dtype: str, background: bool) -> int:
    """Start ``model``, say where it answers; then return, or stay until Ctrl-C and leave nothing behind."""
    if not install.is_set_up(layout, model):
        install.setup(layout, say)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    begun = time.monotonic()
    running = server.start(layout, model, port, dtype)
    keep = False
    try:
        say(f"starting {running.model} ({dtype}) on port {running.port}, log {running.log}")
        warm = server.wait_ready(running)
        took = time.monotonic() - begun
        say(f"ready after {took:.0f} s, first answer {warm:.1f} s of it, {server.memory_mb(running)} MiB")
        say(f"base URL {running.base_url}  model {running.model}")
        if background:
            say(f"stop it: python3 -m serving.engine stop --port {running.port}")
            keep = True
            return 0
        say("stop it: Ctrl-C")
        while running.group in members(running.group):
            time.sleep(0.5)
        raise EngineError(f"vLLM ended by itself (log: {running.log})")
    finally:
        if not keep:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # an impatient second Ctrl-C must not leave children
            server.stop(layout, running)
            say(f"stopped, nothing left on port {running.port}")


def stop(layout: Layout, port: int | None) -> None:
    """Stop the server on ``port``, or all of this checkout's."""
    chosen = [one for one in server.running(layout) if port in (None, one.port)]
    for one in chosen:
        server.stop(layout, one)
        say(f"stopped {one.model} on port {one.port}")
    if not chosen:
        say("no server is running" + (f" on port {port}" if port is not None else ""))


def status(layout: Layout) -> int:
    """Print one line per running server."""
    found = server.running(layout)
    for one in found:
        about = f"process group {one.group}, {server.memory_mb(one)} MiB, log {one.log}"
        say(f"{one.model} ({one.dtype}) {one.base_url} {about}")
    if not found:
        say("no server is running")
    return 0 if found else 3


def say(line: str) -> None:
    """Print at once, also into a pipe."""
    print(line, flush=True)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
