"""A query's story on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..usage import COMPLETE
from .charge import Charge
from .read import clean, seconds_text, usd, when
from .reason import REFUSED
from .table import cell, label_text
from .why import AttemptTold, CallTold, Story

if TYPE_CHECKING:
    from rich.console import Group
    from rich.tree import Tree

__all__ = ["to_tree"]

_CLASSES = {
    "in_fresh": "input",
    "cache_read": "input from the provider's cache",
    "cache_write_5m": "input written to its cache (5 min)",
    "cache_write_1h": "input written to its cache (1 h)",
    "out_text": "output",
    "out_reasoning": "reasoning",
}
_DEEPEST = 20


def to_tree(story: Story) -> Group:
    """The story for a rich Console, what comes from outside as text only; ends with what to do next."""
    from rich.console import Group
    from rich.text import Text

    root = story.root
    tree = _call(root, story.asked)
    waiting: list[tuple[Tree, CallTold, int]] = [(tree, root, 0)]
    while waiting:
        branch, call, depth = waiting.pop()
        for attempt in call.attempts:
            _attempt(branch, attempt)
        for inner in call.calls:
            if depth >= _DEEPEST:
                branch.add(Text("... deeper calls: --json FILE holds them"))
                break
            below = branch.add(_call(inner, story.asked))
            waiting.append((below, inner, depth + 1))
    parts: list[Any] = [tree]
    if story.left_out:
        parts.append(Text(f"... and {story.left_out:,} more calls inside this query"))
    parts += [Text(f"Warning: {clean(warning)}", style="yellow") for warning in story.warnings]
    return Group(*parts, Text(f"Next: {_next(story)}", style="bold"))


def _call(call: CallTold, asked: str) -> Tree:
    from rich.text import Text
    from rich.tree import Tree

    mark = " ← asked for" if call.id == asked and call.id != "" else ""
    head = Text(f"{clean(call.name, 80)}  {clean(call.id, 40)}{mark}", style="bold")
    tree = Tree(head, guide_style="dim")
    scope = f", scope {clean(label_text(call.scope), 60)}" if call.scope is not None else ""
    first = f", first chunk after {seconds_text(call.ttft)}" if call.ttft is not None else ""
    tree.add(Text(f"{when(call.at)}, took {seconds_text(call.latency)}{first}{scope}"))
    tree.add(_answer(call))
    if call.reason is not None:
        tree.add(Text(f"not saved: {call.reason}"))
    if call.reserved is not None:
        tree.add(Text(f"budget: {usd(call.reserved)} held before it ran, {usd(call.cost)} settled"))
    return tree


def _answer(call: CallTold) -> Any:
    if call.saved_by is not None:
        saved = usd(call.counterfactual)
        return cell(
            f"answered by {call.saved_by}: paid {usd(call.cost)} where a call cost {saved}", style="green"
        )
    if not call.complete:
        return cell(
            f"left or cancelled ({call.error or 'before its end'}): paid {usd(call.cost)}", style="yellow"
        )
    if call.error in REFUSED:
        return cell(f"refused by a budget ({call.error}): nothing was spent", style="red")
    if call.error is not None:
        return cell(f"raised {call.error}: paid {usd(call.cost)}", style="red")
    unknown = f", {call.unknown_costs} of its model calls of unknown cost" if call.unknown_costs else ""
    return cell(f"the function ran: paid {usd(call.cost)} itself{unknown}")


def _attempt(branch: Tree, attempt: AttemptTold) -> None:
    model = attempt.model or "model not named"
    provider = f" ({attempt.provider})" if attempt.provider else ""
    role = "" if attempt.role == "reference" else f" [{attempt.role}]"
    cost = usd(attempt.cost) if attempt.cost is not None else f"cost unknown: {_unknown(attempt)}"
    ends = "".join(
        f", {what} {told}" for what, told in (("finish", attempt.finish), ("error", attempt.error)) if told
    )
    took = f", took {seconds_text(attempt.latency)}" if attempt.latency is not None else ""
    node = branch.add(cell(f"{model}{provider}{role}: {cost}{took}{ends}"))
    lines = {charge.name: charge for charge in attempt.charges}
    for name, count in attempt.tokens.items():
        node.add(cell(_line(_CLASSES.get(name, name), count, lines.get(name))))
    if "per_request" in lines:
        node.add(cell(f"fee a call: {usd(lines['per_request'].nano)}"))
    if attempt.usage_state != "missing":
        node.add(cell(f"usage {attempt.usage_state}; prices {_source(attempt)}"))


def _line(label: str, count: int, charge: Charge | None) -> str:
    money = "" if charge is None else f" at ${charge.rate} a million = {usd(charge.nano)}"
    return f"{count:,} {label}{money}"


def _source(attempt: AttemptTold) -> str:
    if attempt.price_id is None:
        return "unknown"
    return f"{attempt.source or 'not kept'} ({attempt.price_id})"


def _unknown(attempt: AttemptTold) -> str:
    return "no usage was told" if attempt.usage_state == "missing" else "no price is known for it"


def _next(story: Story) -> str:
    every = _every(story.root)
    for call in every:
        if any(a.cost is None and a.usage_state != "missing" for a in call.attempts):
            return "give the model a price: Kit(prices={...: costkit.Rates(IN, OUT)})."
        if any(a.usage_state == "missing" for a in call.attempts):
            return "return the provider's response, or give it to costkit.record(response), and its cost is known."
        if any((a.finish or "stop").lower() not in COMPLETE for a in call.attempts):
            return "an answer was not whole, so it is not kept: raise its output limit, or ask for a shorter one."
    if not any(call.key or call.saved_by or call.role != "call" for call in every):
        return 'put costkit.exact(ttl="1d") into its kit.call(...), if identical calls may share an answer.'
    return "`costkit report` shows how often this happens."


def _every(root: CallTold) -> list[CallTold]:
    found, waiting = [], [root]
    while waiting:
        call = waiting.pop()
        found.append(call)
        waiting.extend(call.calls)
    return found
