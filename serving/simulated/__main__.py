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
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import IO

from serving.simulated.faults import Fault, check_faults, parse_fault, parse_freeze
from serving.simulated.process import raise_file_limit, watch_parent
from serving.simulated.profile import ProfileError, profile_arguments
from serving.simulated.recording import Recording, RecordingError, load_recording
from serving.simulated.server import SimulatedServer
from serving.simulated.world import Settings


def main(argv: Sequence[str] | None = None) -> int:
    """Run the server until it is told to end; return the exit code."""
    parser = _parser()
    args = parser.parse_args(argv)
    try:
        if args.profile:
            # Before the given ones: what the command line says itself holds.
            given = sys.argv[1:] if argv is None else argv
            args = parser.parse_args([*profile_arguments(args.profile), *given])
        faults = check_faults(args.fault)
        recording = load_recording(args.recording) if args.recording else None
    except (RecordingError, ProfileError) as error:
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
        watch_parent(loop, ended.set)
    raise_file_limit()
    server = SimulatedServer(settings, recording, truth_log)
    listener = await loop.create_server(server.connect, args.host, args.port, backlog=4096)
    # What is loaded now lives as long as the process: no collection need walk over it again.
    gc.collect()
    gc.freeze()
    # A request leaves no cycles behind; a full collection, which takes 20 ms in mid-load, can wait for long.
    gc.set_threshold(2000, 10, 1000)
    host, port = listener.sockets[0].getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    ready = {"url": url, "base_url": f"{url}/v1", "pid": os.getpid(), "model": settings.model}
    ready["monotonic"] = round(server.born, 6)
    print(json.dumps(ready), flush=True)
    await ended.wait()
    listener.close()
    for connection in tuple(server.live):
        connection.abort()
    # Aborted connections report their loss through the loop, and each loss is a line of the truth log.
    await asyncio.sleep(0)
    await asyncio.sleep(0)


def _settings(args: argparse.Namespace, faults: tuple[Fault, ...], recording: Recording | None) -> Settings:
    return Settings(
        model=args.model or (recording.model if recording else Settings().model),
        slots=args.slots,
        prefill_base_s=args.prefill_base_ms / 1000,
        prefill_per_token_s=args.prefill_ms_per_token / 1000,
        tpot_s=args.tpot_ms / 1000,
        load_factor=args.load_factor,
        output_tokens_mean=args.output_tokens_mean,
        output_tokens_sigma=args.output_tokens_sigma,
        tokens_per_chunk=args.tokens_per_chunk,
        role_chunk_early=args.role_chunk_early,
        reasoning_share=args.reasoning_share,
        reasoning_field=args.reasoning_field,
        prefix_cache_blocks=args.prefix_cache_blocks,
        block_tokens=args.block_tokens,
        queue_limit=args.queue_limit,
        retry_after_s=args.retry_after,
        key=args.key,
        answer_html=args.answer_html,
        freeze=args.freeze,
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
    add(
        "--key",
        help="answer 401 to every other API key; a key of tests, for it can be read in the process list",
    )
    add(
        "--profile",
        metavar="FILE",
        help="speed, slots and lengths as `serving.simulated.fit` found them in a run",
    )
    add("--seed", type=int, default=0)
    add("--truth-log", metavar="FILE", help="write one JSON line a request")
    add("--recording", metavar="DIR", help="replay recorded answers instead of inventing text")
    add("--speed", type=_real(1e-6), default=1.0, help="simulated seconds a real second")
    add("--die-with-parent", action="store_true", help="end when the parent does or standard input closes")
    _add_times(parser.add_argument_group("time and length"))
    _add_faults(parser.add_argument_group("faults"))
    return parser


def _add_times(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--slots", type=_whole(1), default=4, help="requests served at once; the rest queue")
    add("--prefill-base-ms", type=_real(0), default=20.0)
    add("--prefill-ms-per-token", type=_real(0), default=0.05, help="per uncached prompt token")
    add("--tpot-ms", type=_real(0), default=10.0, help="time per output token after the first")
    add("--load-factor", type=_real(0), default=1.0, help="times that with all slots taken")
    add("--output-tokens-mean", type=_real(1), default=64.0, help="mean of the lognormal answer length")
    add(
        "--output-tokens-sigma",
        type=_real(0),
        default=0.5,
        help="its sigma; 0 makes all answers equally long",
    )
    add("--tokens-per-chunk", type=_whole(1), default=1, help="a chunk is due with its last token")
    add("--role-chunk-early", action="store_true", help="send the empty role chunk on arrival")
    add(
        "--reasoning-share",
        type=_real(0, 1),
        default=0.0,
        help="share of the output tokens that are reasoning",
    )
    add("--reasoning-field", choices=("reasoning_content", "reasoning"), default="reasoning_content")
    add("--prefix-cache-blocks", type=_whole(0), default=0, help="size of the prefix cache; 0 is none")
    add("--block-tokens", type=_whole(1), default=16)


def _add_faults(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--fault", type=_fault, nargs="+", action="extend", default=[], metavar="KIND:PROBABILITY",
        help="error500, error503, rate429, html, stall:SECONDS, truncate, drop")  # fmt: skip
    add("--queue-limit", type=_whole(0), help="answer 503 when so many requests wait")
    add(
        "--retry-after",
        type=_retry_after,
        default=1.0,
        metavar="SECONDS",
        help="what 429 and 503 say, or 'none'",
    )
    add("--freeze", type=_freeze, metavar="SECONDS@AT",
        help="stand still once, AT seconds after the first request; or POST /control/freeze")  # fmt: skip
    add("--answer-html", action="store_true", help="answer every path with a page, as a wrong port does")


def _freeze(text: str) -> tuple[float, float]:
    try:
        return parse_freeze(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _retry_after(text: str) -> float | None:
    return None if text == "none" else _real(0)(text)


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


def _real(least: float, most: float = sys.float_info.max) -> Callable[[str], float]:
    def real(text: str) -> float:
        value = float(text)
        if not least <= value <= most:
            upto = "" if most == sys.float_info.max else f" and at most {most}"
            raise argparse.ArgumentTypeError(f"{text} is not a number of at least {least}{upto}")
        return value

    return real


if __name__ == "__main__":
    sys.exit(main())
