"""A million pairs of near-identical requests, and no two different ones with one key."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from costkit.key import digest

PAIRS = 1_000_000
WORDS = [
    "refund",
    "a",
    "",
    '"',
    "\\",
    ",",
    "]",
    '["s","a"]',
    "é",
    "e\u0301",
    "\ud83d\ude00",
    "😀",
    "\x00",
    "1",
    "None",
]
Request = tuple[dict[str, Any] | None, str, dict[str, Any]]


def value(pick: random.Random, depth: int = 0) -> Any:
    kind = pick.randrange(9 if depth < 2 else 6)
    if kind < 3:
        return pick.choice(WORDS) + pick.choice(WORDS)
    if kind < 6:
        return (pick.randrange(-3, 3), pick.random(), True, None, b"a", 1 << 64)[pick.randrange(6)]
    items = [value(pick, depth + 1) for _ in range(pick.randrange(3))]
    return (items, tuple(items), {pick.choice(WORDS): item for item in items})[kind - 6]


def request(pick: random.Random) -> Request:
    scope = None if pick.random() < 0.2 else {"tenant": pick.choice(WORDS)}
    names = ("question", "history")[: pick.randrange(1, 3)]
    return scope, pick.choice(["ask", "as"]), {name: value(pick) for name in names}


def retyped(pick: random.Random, old: Any) -> Any:
    """The same thing to the eye, another thing to Python."""
    if isinstance(old, bool) or old is None:
        return str(old)
    if isinstance(old, int):
        return float(old) if abs(old) < 10 else str(old)
    if isinstance(old, float):
        return str(old)
    if isinstance(old, str):
        return old.encode("utf-8", "surrogatepass")
    if isinstance(old, bytes):
        return old.decode("utf-8", "surrogatepass")
    if isinstance(old, list):
        return tuple(old)
    return list(old)


def moved(pick: random.Random, old: Any) -> Any:
    """Separators elsewhere: joined, split, wrapped, or put in another order."""
    if isinstance(old, str):
        cut = pick.randrange(len(old) + 1)
        return pick.choice([[old], [old[:cut], old[cut:]], old + " ", old[::-1], old + "\x00", old.upper()])
    if isinstance(old, (list, tuple)):
        return pick.choice([[old], old[::-1], [*old, None], [str(old)], str(old)])
    return [old]


CHANGES: list[Callable[[random.Random, Any], Any]] = [retyped, moved, lambda pick, old: value(pick)]


def near(pick: random.Random, old: Request) -> Request:
    """A request one small step away; sometimes the very same one."""
    scope, name, arguments = old
    step = pick.randrange(8)
    if step == 0:
        return scope, name, dict(reversed(arguments.items()))
    if step == 1:
        return {"tenant": pick.choice(WORDS)}, name, arguments
    if step == 2:
        return scope, "ask" if name == "as" else "as", arguments
    if step == 3:
        return (
            scope,
            name,
            {{"question": "history", "history": "question"}[k]: v for k, v in arguments.items()},
        )
    argument = pick.choice(list(arguments))
    changed = pick.choice(CHANGES)(pick, arguments[argument])
    return scope, name, {**arguments, argument: changed}


def same(a: object, b: object) -> bool:
    """Equality that tells types apart, written without the encoder under test."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float) and isinstance(b, float):
        return a.hex() == b.hex()
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(v, b[k]) for k, v in a.items())
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def test_a_million_pairs_without_a_collision() -> None:
    """Of 1,000,000 random near pairs, two requests share a key exactly when they are the same request."""
    pick = random.Random(20240229)
    one = request(pick)
    key = digest(one[0], one[1], "1", one[2])
    alike = wrong = 0
    for i in range(PAIRS):
        if i % 4 == 0:
            one = request(pick)
            key = digest(one[0], one[1], "1", one[2])
        two = near(pick, one)
        equal_keys = digest(two[0], two[1], "1", two[2]) == key
        equal = same(one[0], two[0]) and one[1] == two[1] and same(one[2], two[2])
        alike += equal
        wrong += equal_keys != equal
    assert wrong == 0
    assert 50_000 < alike < 500_000  # both kinds of pairs were there to be judged
