"""The sample assistant as a small HTTP service: `python -m serving.assistant.service --upstream URL --costkit on`.

OpenAI-compatible: POST /v1/chat/completions (streamed or not), GET /v1/models and /health. The question is the last
message; the header X-Tenant says whose it is, and only that tenant's articles and cached answers are used. With
`--costkit off` the same code runs without it, so that load runs compare like with like. Prints one JSON line with its
address when it is ready; SIGTERM and SIGINT end it after what it is answering. It prints no question and no answer.

Exit codes: 0 ended as asked, 1 the address cannot be served or the upstream does not answer, 2 bad arguments.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import costkit
import costkit.savings
from costkit.errors import CostkitError, UnknownPrice
from serving.assistant.documents import ContentError
from serving.assistant.endpoint import Endpoint
from serving.assistant.reply import Complete, Reply, asking, replying
from serving.assistant.upstream import Upstream, UpstreamError
from serving.assistant.version import version_of
from serving.assistant.workflow import Assistant
from serving.demo.servers import machine_prices
from serving.simulated.process import raise_file_limit, watch_parent

__all__ = ["main"]

DOCS = Path(__file__).parent / "docs"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the service until it is told to end; return the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    _check(parser, options)
    try:
        return asyncio.run(_serve(options))
    except (CostkitError, ContentError, ValueError) as error:
        print(f"assistant: {error}", file=sys.stderr)
        return 2
    except UpstreamError as error:
        print(f"assistant: --upstream {options.upstream}: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"assistant: {error}", file=sys.stderr)
        return 1


async def _serve(options: argparse.Namespace) -> int:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    if options.die_with_parent:
        watch_parent(loop, ended.set)
    raise_file_limit()
    key = os.environ.get(options.key_env) if options.key_env else None
    upstream = Upstream(options.upstream, key=key, timeout=options.timeout)
    model = options.model or await _only_model(upstream)
    complete = asking(upstream)
    assistant = Assistant(options.docs, complete, model=model)
    with contextlib.ExitStack() as stack:
        reply = replying(assistant, complete)
        if options.costkit == "on":
            reply = stack.enter_context(_with_costkit(options, assistant, complete, model))
        endpoint = Endpoint(reply, model=model, tenants=assistant.tenants, tenant=options.tenant)
        listener = await loop.create_server(endpoint.connect, options.host, options.port, backlog=4096)
        host, port = listener.sockets[0].getsockname()[:2]
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        ready = {"url": url, "base_url": f"{url}/v1", "pid": os.getpid(), "model": model}
        print(json.dumps({**ready, "costkit": options.costkit, "tenants": assistant.tenants}), flush=True)
        await ended.wait()
        listener.close()
        await endpoint.drain(options.drain_seconds)
    upstream.close()
    return 0


async def _only_model(upstream: Upstream) -> str:
    """The model that the upstream serves, where it is one."""
    names = await upstream.models()
    if len(names) != 1:
        known = f": {', '.join(names[:5])}, ..." if names else ""
        raise ValueError(f"the upstream serves {len(names)} models{known}; say which with --model")
    return names[0]


@contextlib.contextmanager
def _with_costkit(
    options: argparse.Namespace, assistant: Assistant, complete: Complete, model: str
) -> Iterator[Reply]:
    """The same reply, wrapped: exact always, semantic if asked for; each call of the model is recorded."""
    savings: list[costkit.savings.Saving] = [costkit.exact(ttl=options.ttl)]
    lossy: dict[str, Any] = {}
    if options.semantic:
        savings.append(costkit.semantic("question"))
        lossy = {"max_error": options.max_error, "per": options.per, "judge": costkit.judges.same_answer}
    with costkit.Kit(options.folder, prices=_prices(options, model)) as kit:
        recorded = kit.call(scope=None, name="complete")(complete)
        version = version_of(options.docs, model, options.upstream)
        wrap = kit.call(*savings, scope="tenant", ignore=("told",), name="ask", version=version, **lossy)
        reply = wrap(replying(assistant, recorded))
        kit.warm()
        yield reply


def _prices(options: argparse.Namespace, model: str) -> costkit.Prices:
    """What the model's tokens cost: as said, or the recorded machine's, or the public list's."""
    if options.price_in is not None:
        rates = costkit.Rates(options.price_in, options.price_out, cache_read=options.price_cached)
        return costkit.Prices({model: rates})
    prices = machine_prices()
    try:
        prices.check(model)
    except UnknownPrice:
        raise ValueError(
            f"no price is known for {model!r}; say --price-in and --price-out (USD per million tokens)"
        ) from None
    return prices


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Refuse what would otherwise be passed over in silence."""
    if options.costkit == "off" and options.semantic:
        parser.error("--semantic needs --costkit on")
    if options.semantic != (options.max_error is not None):
        parser.error("--semantic and --max-error go together: the share of wrong answers you accept")
    if (options.price_in is None) != (options.price_out is None):
        parser.error("--price-in and --price-out go together")
    if options.price_cached is not None and options.price_in is None:
        parser.error("--price-cached needs --price-in and --price-out")
    if options.key_env and not os.environ.get(options.key_env):
        parser.error(f"--key-env {options.key_env}: this environment variable is not set")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m serving.assistant.service",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--upstream", default="http://127.0.0.1:8000/v1", help="the model's base URL (make serve's)")
    add("--model", help="which of its models (default: the only one)")
    add("--key-env", metavar="NAME", help="the environment variable with the upstream's API key")
    add("--timeout", type=float, default=60.0, help="seconds without a byte from the upstream")
    add("--host", default="127.0.0.1")
    add("--port", type=int, default=0, help="0 takes a free one (default)")
    add("--docs", type=Path, default=DOCS, help="folder of articles (the help desk's)")
    add("--tenant", help="whose a request without X-Tenant is; default: it is refused")
    add(
        "--drain-seconds",
        type=float,
        default=30.0,
        help="how long an ended service answers what it has begun",
    )
    add("--die-with-parent", action="store_true", help="end when the parent does or standard input closes")
    group = parser.add_argument_group("costkit")
    add = group.add_argument
    add("--costkit", choices=("on", "off"), required=True)
    add("--folder", type=Path, default=Path(".costkit"), help="its cache and ledger (./.costkit)")
    add("--ttl", default="1d", help="how long an answer may be given to the identical question")
    add("--semantic", action="store_true", help="also to questions that mean the same, within --max-error")
    add("--max-error", type=float, help="the share of wrong answers you accept, such as 0.05")
    add("--per", choices=("hit", "request"), default="hit", help="of what")
    add(
        "--price-in",
        type=float,
        metavar="USD",
        help="per million input tokens (default: from the price list)",
    )
    add("--price-out", type=float, metavar="USD")
    add(
        "--price-cached",
        type=float,
        metavar="USD",
        help="per million input tokens that the upstream had cached",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
