"""``python3 -m serving.engine COMMAND``: set up, serve, look, stop."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import time
from collections.abc import Sequence
from types import FrameType

from serving.engine import check, install, profile, router, server
from serving.engine.layout import SERVED_NAMES, EngineError, Layout, here, one_at_a_time
from serving.engine.process import members


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 if it worked, 1 with one line on stderr if it did not, 130 after Ctrl-C."""
    options = parser().parse_args(arguments)
    layout = here()
    try:
        if options.command == "setup":
            install.setup(layout, say, also=options.also)
        elif options.command == "tiny":
            with one_at_a_time(layout):
                say(f"tiny-random: {install.make_tiny(layout)}")
        elif options.command == "serve":
            return serve(layout, options)
        elif options.command == "replicas":
            return replicas(layout, options)
        elif options.command == "check":
            return report_check(layout, options.profiles)
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
        prog="python3 -m serving.engine",
        description="vLLM, ready in one command: on a CPU, or on this machine's GPU.",
    )
    commands = top.add_subparsers(dest="command", required=True)
    setup = commands.add_parser(
        "setup", help="make the environment and the models (once; checks them afterwards)"
    )
    setup.add_argument(
        "--also", action="append", choices=sorted(install.OPTIONAL), default=[], help="a further model"
    )
    commands.add_parser("tiny", help="make the tiny random model for protocol tests")
    serving = commands.add_parser("serve", help="start a server, set up first if need be")
    _what_to_serve(serving)
    serving.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        help="instead of the profile's; float32: the same text at any load; bfloat16: faster, text varies with load",
    )
    serving.add_argument("--background", action="store_true", help="return once it answers")
    several = commands.add_parser("replicas", help="several servers of one model behind vllm-router")
    _what_to_serve(several)
    several.add_argument("--count", type=int, default=2, help="replicas (default 2)")
    several.add_argument("--policy", choices=router.POLICIES, default=router.POLICIES[0])
    several.add_argument(
        "--balance",
        type=int,
        default=router.BALANCE,
        help="with cache_aware: how many requests more than another a replica may have before prefixes stop counting "
        f"(default {router.BALANCE})",
    )
    checking = commands.add_parser("check", help="let vLLM's own parser read profiles; nothing is started")
    checking.add_argument("profiles", nargs="*", default=list(profile.NAMES), metavar="PROFILE")
    stopping = commands.add_parser("stop", help="stop this checkout's servers")
    stopping.add_argument("--port", type=int, help="only the one on this port")
    commands.add_parser("status", help="what runs; exit status 3 if nothing does")
    return top


def _what_to_serve(command: argparse.ArgumentParser) -> None:
    names = ", ".join(sorted(SERVED_NAMES))
    command.add_argument(
        "--model", help=f"{names} (default smollm2); with profiles gpu and ray any name vLLM takes"
    )
    command.add_argument(
        "--profile", default="ci", help="ci, local, gpu, ray, or a .yaml file of your own (default ci)"
    )
    command.add_argument("--port", type=int, default=8000, help="0 takes any free port (default 8000)")
    command.add_argument(
        "flags", nargs="*", metavar="-- FLAG", help="further flags of `vllm serve`, after --"
    )


def serve(layout: Layout, options: argparse.Namespace) -> int:
    """Start a model, say where it answers; then return, or stay until Ctrl-C and leave nothing behind."""
    chosen = profile.load(options.profile)
    extra = ["--dtype", options.dtype, *options.flags] if options.dtype else options.flags
    if not chosen.plain:
        _ready(layout, options.model or "smollm2")
    _ctrl_c()
    begun = time.monotonic()
    if chosen.plain:
        running = server.start_gpu(layout, options.model, options.port, chosen, extra=extra)
    else:
        running = server.start(layout, options.model or "smollm2", options.port, chosen, extra=extra)
    keep = False
    try:
        say(
            f"starting {running.model} (profile {running.profile}, {running.dtype}) on port {running.port}, "
            f"log {running.log}"
        )
        warm = server.wait_ready(running)
        took = time.monotonic() - begun
        say(f"ready after {took:.0f} s, {server.memory_mb(running)} MiB; first use of {_features(warm)}")
        say(f"base URL {running.base_url}  model {running.model}")
        if options.background:
            server.stay(running)
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


def replicas(layout: Layout, options: argparse.Namespace) -> int:
    """Start replicas behind a router and stay until Ctrl-C; nothing is left behind."""
    chosen = profile.load(options.profile)
    if chosen.plain:
        raise EngineError(
            "replicas on GPUs are one `serve --profile gpu` a GPU; see serving/profiles/kubernetes.yaml"
        )
    model = options.model or "smollm2"
    _ready(layout, model)
    _ctrl_c()
    with contextlib.ExitStack() as stack:
        # Ctrl-C ends the wait below once; a second one must not cut the ending short.
        stack.callback(say, "stopped, nothing left")
        wanted = router.replicated(
            layout, model, chosen, count=options.count, port=options.port, policy=options.policy,
            balance=options.balance, extra=options.flags, say=say,
        )  # fmt: skip
        front, behind = stack.enter_context(wanted)
        stack.callback(signal.signal, signal.SIGINT, signal.SIG_IGN)
        say(f"router ({options.policy}, {len(behind)} replicas) log {front.log}")
        say(f"base URL {front.base_url}  model {behind[0].model}")
        say("stop it: Ctrl-C")
        while all(one.group in members(one.group) for one in (front, *behind)):
            time.sleep(0.5)
        raise EngineError(f"a replica or the router ended by itself (logs: {layout.run})")


def _ready(layout: Layout, model: str) -> None:
    if model not in SERVED_NAMES:
        raise EngineError(f"--model {model}: on a CPU choose {', '.join(sorted(SERVED_NAMES))}")
    if not install.is_set_up(layout, model):
        install.setup(layout, say, also=[model])


def _features(warm: dict[str, float]) -> str:
    return ", ".join(f"{name} {seconds:.1f} s" for name, seconds in warm.items())


def report_check(layout: Layout, profiles: Sequence[str]) -> int:
    """Say of each profile whether vLLM takes every line of it; 1 if not."""
    found = check.check(layout, [profile.load(name) for name in profiles])
    for name, fault in found.items():
        say(f"{name}: {fault or 'every flag is known to vLLM and its value fits'}")
    return 1 if any(found.values()) else 0


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
        say(f"{one.model} ({' '.join(filter(None, (one.profile, one.dtype)))}) {one.base_url} {about}")
    if not found:
        say("no server is running")
    return 0 if found else 3


def say(line: str) -> None:
    """Print at once, also into a pipe."""
    print(line, flush=True)


def _ctrl_c() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
