"""``python -m serving.own_cost RUN --hour-price 0.40 --against MODEL``: the bill of a load run and the break-even."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

import costkit
from costkit.errors import CostkitError
from loadtests.sample import Sample, read_samples
from serving.own_cost.bill import own_cost
from serving.own_cost.show import draw, tables


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the cost; 0, or 1 with one line on stderr."""
    options = _parser().parse_args(arguments)
    try:
        cost = own_cost(
            _samples(options.run),
            usd_per_hour=options.hour_price,
            against=options.against,
            sustained=options.sustained,
            prices=_prices(options),
        )
        if options.json:
            print(json.dumps(cost.as_json()))
        else:
            Console(soft_wrap=True).print(tables(cost))
        if options.plot:
            print(draw(cost, options.plot), file=sys.stderr)
    except (CostkitError, ValueError, OSError) as error:
        print(f"serving.own_cost: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m serving.own_cost",
        description="What a load run cost on your own machine: time per token, the bill with idle time on its own "
        "line, and from which utilisation on the machine is cheaper than an API.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a load run, or its requests.jsonl")
    parser.add_argument(
        "--hour-price", type=float, required=True, metavar="USD", help="what an hour of it costs"
    )
    parser.add_argument(
        "--against", metavar="MODEL", help="a model of the public price list, or any with --rates"
    )
    parser.add_argument(
        "--rates", metavar="IN,OUT", help="USD per million tokens of --against, instead of the list"
    )
    parser.add_argument(
        "--sustained",
        type=float,
        metavar="RATE",
        help="queries per second that the machine holds at the SLO (python -m loadtests.capacity); "
        "without it the rate of the run, which is too little unless the run was at the limit",
    )
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw the break-even curve (.png, .svg, .pdf)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    return parser


def _samples(run: Path) -> list[Sample]:
    path = run / "requests.jsonl" if run.is_dir() else run
    if not path.is_file():
        raise ValueError(f"{path} is missing: give the folder of a finished load run")
    return list(read_samples(path))


def _prices(options: argparse.Namespace) -> costkit.Prices | None:
    if options.rates is None:
        return None
    if options.against is None:
        raise ValueError("--rates are those of a model: name it with --against")
    parts = options.rates.split(",")
    if len(parts) != 2:
        raise ValueError(
            f"--rates {options.rates}: give two prices in USD per million tokens, such as 0.25,2"
        )
    return costkit.Prices({options.against: costkit.Rates(parts[0].strip(), parts[1].strip())})


if __name__ == "__main__":
    sys.exit(main())
