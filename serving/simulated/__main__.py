"""Command line of the simulated server; prints one JSON line with its address when it is ready.

Ends on SIGTERM and SIGINT. Exit codes: 0 ended as asked, 1 the address cannot be served, 2 bad arguments or a
recording that does not fit.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import resource
import signal
import stat
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import IO

from serving.simulated.faults import Fault, check_faults, parse_fault
from serving.simulated.recording import Recording, RecordingError, load_recording
from serving.simulated.server import SimulatedServer
from serving.simulated.world import Settings

PARENT_CHECK_S = 0.5


def main(argv: Sequence[str] | None = None) -> int:
    """Run the server until it is told to end; return the exit code."""
    parser = _parser()
    args = parser.parse_args(argv)
    try:
        faults = check_faults(args.fault)
        recording = load_recording(args.recording) if args.recording else None
    except RecordingError as error:
        print(f"serving.simulated: {error}", file=sys.stderr)
        return 2
    except ValueError as error:
        parser.error(str(error))
    settings = _settings(args, faults, recording)
    try:
        with ExitStack() as stack:
            truth_log = None
            if args.truth_log:
                # Line-buffered: each request is on disk as soon as it is over.
                truth_log = stack.enter_context(open(args.truth_log, "w", buffering=1, encoding="utf-8"))
            asyncio.run(_serve(args, settings, recording, truth_log))
    except OSError as error:
        print(f"serving.simulated: {error}", file=sys.stderr)
        return 1
    return 0


async def _serve(
    args: argparse.Namespace, settings: Settings, recording: Recording | None, truth_log: IO[str] | None
) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    if args.die_with_parent:
        _watch_parent(loop, ended.set)
    _raise_file_limit()
    server = SimulatedServer(settings, recording, truth_log)
    listener = await loop.create_server(server.connect, args.host, args.port, backlog=4096)
    # What is loaded now lives as long as the process: no collection need walk over it again.
    gc.collect()
    gc.freeze()
    host, port = listener.sockets[0].getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    ready = {"url": url, "base_url": f"{url}/v1", "pid": os.getpid(), "model": settings.model}
    print(json.dumps(ready), flush=True)
    await ended.wait()
    listener.close()
    for connection in tuple(server.live):
        connection.abort()
    # Aborted connections report their loss through the loop, and each loss is a line of the truth log.
    await asyncio.sleep(0)
    await asyncio.sleep(0)


def _watch_parent(loop: asyncio.AbstractEventLoop, end: Callable[[], object]) -> None:
    """Call `end` when the parent process goes, or when standard input, if it is a pipe or socket, closes."""
    parent = os.getppid()

    def check() -> None:
        if os.getppid() != parent:
            end()
        else:
            loop.call_later(PARENT_CHECK_S, check)

    def drain() -> None:
        if not os.read(0, 4096):
            loop.remove_reader(0)
            end()

    check()
    try:
        mode = os.fstat(0).st_mode
    except OSError:
        return
    if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
        loop.add_reader(0, drain)


def _raise_file_limit() -> None:
    """Allow as many open connections as the system grants, up to 65,536."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _settings(args: argparse.Namespace, faults: tuple[Fault, ...], recording: Recording | None) -> Settings:
    return Settings(
        model=args.model or (recording.model if recording else Settings().model),
        slots=args.slots,
        prefill_base_s=args.prefill_base_ms / 1000,
        prefill_per_token_s=args.prefill_ms_per_token / 1000,
        tpot_s=args.tpot_ms / 1000,
        output_tokens_mean=args.output_tokens_mean,
        output_tokens_sigma=args.output_tokens_sigma,
        tokens_per_chunk=args.tokens_per_chunk,
        role_chunk_early=args.role_chunk_early,
        prefix_cache_blocks=args.prefix_cache_blocks,
        block_tokens=args.block_tokens,
        queue_limit=args.queue_limit,
        seed=args.seed,
        faults=faults,
        speed=args.speed,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m serving.simulated", description=__doc__)
    add = parser.add_argument
    add("--host", default="127.0.0.1")
    add("--port", type=_whole(0), default=0, help="0 takes a free one (default)")
    add("--model", help="served name (default: the recording's, or 'simulated')")
    add("--slots", type=_whole(1), default=4, help="requests served at once; the rest queue")
    add("--queue-limit", type=_whole(0), help="answer 503 when so many requests wait")
    add("--prefill-base-ms", type=_real(0), default=20.0)
    add("--prefill-ms-per-token", type=_real(0), default=0.05, help="per uncached prompt token")
    add("--tpot-ms", type=_real(0), default=10.0, help="time per output token after the first")
    add("--output-tokens-mean", type=_real(1), default=64.0, help="mean of the lognormal answer length")
    add(
        "--output-tokens-sigma",
        type=_real(0),
        default=0.5,
        help="its sigma; 0 makes all answers equally long",
    )
    add("--tokens-per-chunk", type=_whole(1), default=1, help="a chunk is due with its last token")
    add("--role-chunk-early", action="store_true", help="send the empty role chunk on arrival")
    add("--prefix-cache-blocks", type=_whole(0), default=0, help="size of the prefix cache; 0 is none")
    add("--block-tokens", type=_whole(1), default=16)
    add("--seed", type=int, default=0)
    add("--fault", type=_fault, nargs="+", action="extend", default=[], metavar="KIND:PROBABILITY",
        help="error500, rate429, stall:SECONDS, truncate, drop")  # fmt: skip
    add("--truth-log", metavar="FILE", help="write one JSON line a request")
    add("--recording", metavar="DIR", help="replay recorded answers instead of inventing text")
    add("--speed", type=_real(1e-6), default=1.0, help="simulated seconds a real second")
    add("--die-with-parent", action="store_true", help="end when the parent does or standard input closes")
    return parser


def _fault(text: str) -> Fault:
    try:
        return parse_fault(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _whole(least: int) -> Callable[[str], int]:
    def whole(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{text} is less than {least}")
        return value

    return whole


def _real(least: float) -> Callable[[str], float]:
    def real(text: str) -> float:
        value = float(text)
        if not least <= value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text} is not a number of at least {least}")
        return value

    return real


if __name__ == "__main__":
    sys.exit(main())
