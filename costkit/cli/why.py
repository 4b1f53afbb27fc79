"""``costkit why``: one query, what answered it, what it cost and why nothing was saved."""

from __future__ import annotations

import argparse

from .common import Commands, add_folder, add_json, check_json, show

__all__ = ["add_why"]


def add_why(commands: Commands) -> None:
    """The parser of ``why``."""
    parser = commands.add_parser(
        "why",
        help="one query: what answered, what it cost, why nothing was saved",
        description="Shows a query as a tree with its nested calls and model calls. Reads only.",
    )
    parser.add_argument(
        "query", metavar="QUERY_ID", help="outcome.query_id or its beginning; last: the newest query"
    )
    add_folder(parser)
    add_json(parser)
    parser.set_defaults(run=_why)


def _why(args: argparse.Namespace) -> int:
    from ..report import tell
    from ..report.tree import to_tree

    check_json(args)
    story = tell(args.folder, args.query)
    show(args, story.to_dict, lambda: to_tree(story))
    return 0
