"""The review of prices: what is in force, what changed, what is unknown, told from a real ledger."""

from __future__ import annotations

import io
import json
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from costkit.call import Usage
from costkit.ledger.schema import connect
from costkit.prices import Priced, Prices, Rates
from costkit.prices.review import PricesReview, review

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp()
DAY = 86_400.0
USAGE = Usage(in_fresh=1000, out_text=500)


@pytest.fixture
def con(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """A ledger of the real schema, empty."""
    found = connect(tmp_path / "ledger.db")
    yield found
    found.close()


def add(
    con: sqlite3.Connection,
    model: str | None,
    ago: float,
    usage: Usage | None = USAGE,
    priced: Priced | None = None,
    *,
    provider: str | None = None,
) -> None:
    """One attempt, ``ago`` days before now, with the price rows it was priced by."""
    at = NOW - ago * DAY
    told: tuple[int | None, ...] = (None,) * 6
    if usage is not None:
        told = (usage.in_fresh, usage.cache_read, usage.cache_write_5m, usage.cache_write_1h)
        told += (usage.out_text, usage.out_reasoning)
    con.execute(
        "INSERT INTO attempts (query_id, root_id, role, model, provider, at, usage_state, in_fresh, cache_read, "
        "cache_write_5m, cache_write_1h, out_text, out_reasoning, cost, price_id) "
        f"VALUES ('q', 'q', 'reference', ?, ?, ?, ?, {', '.join('?' * 8)})",
        (model, provider, at, "missing" if usage is None else usage.state, *told)
        + ((priced.cost, priced.price_id) if priced else (None, None)),
    )
    if priced is not None:
        snapshot = priced.snapshot
        con.execute(
            "INSERT OR IGNORE INTO prices VALUES (?, ?, ?, ?, ?)",
            (priced.price_id, snapshot["source"], snapshot["version"], json.dumps(snapshot["rates"]), at),
        )


def price(card: dict[str, Rates], model: str, usage: Usage = USAGE) -> Priced:
    return Prices(card).price(usage, model=model)


def shown(found: PricesReview) -> str:
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(found.table())
    return console.export_text()


def test_without_a_ledger() -> None:
    """Before any call the review tells the table and its age, and that the card's rates are unused."""
    found = review(None, Prices({"Own": Rates(1, 2)}), now=NOW)
    assert found.version.startswith("genai-prices 0.2.") and found.calls == 0
    assert found.newest is not None and found.age_days is not None
    assert 0 <= found.age_days == (datetime(2026, 11, 20).date() - found.newest).days
    assert found.unused == ("own",)
    assert (found.missing, found.estimated, found.estimated_cost) == (None, None, None)
    text = shown(found)
    assert "No call to a model was recorded in the last 30 days." in text
    assert text.rstrip().splitlines()[-1].startswith("Next: ")


def test_an_empty_ledger_is_no_trouble(con: sqlite3.Connection) -> None:
    """A ledger without calls reviews as none does."""
    assert review(con, Prices(), now=NOW) == review(None, Prices(), now=NOW)


def test_models_in_force(con: sqlite3.Connection) -> None:
    """Each model of the last 30 days is shown with today's rates and their source; older calls are left out."""
    card = {"qwen3-*": Rates("0.10", "0.40"), "never-*": Rates(1, 1)}
    prices = Prices(card)
    for _ in range(3):
        add(con, "qwen3-8b", 1, priced=price(card, "qwen3-8b"), provider="vllm")
    add(con, "gpt-5-mini-2025-08-07", 2, priced=Prices().price(USAGE, model="gpt-5-mini"))
    add(con, "gpt-4o", 31)
    add(con, None, 1, None)
    found = review(con, prices, now=NOW)
    assert [(model.model, model.calls, model.entry, model.source) for model in found.models] == [
        ("qwen3-8b", 3, "qwen3-*", "card"),
        ("gpt-5-mini-2025-08-07", 1, "gpt-5-mini", "genai-prices"),
    ]
    own, listed = found.models
    assert own.rates is not None and (own.rates["in_fresh"], own.rates["out_text"]) == ("0.1", "0.4")
    assert own.cost == 3 * (1000 * 100 + 500 * 400) and own.unknown == 0
    assert listed.rates is not None and listed.rates["in_fresh"] == "0.25"
    assert found.unused == ("never-*",)
    assert found.calls == 5
    assert "never-*" in shown(found)


def test_a_card_that_was_not_given(con: sqlite3.Connection) -> None:
    """Without the card, models that it priced show the rates recorded last, not the table's, and none is unknown."""
    for ago, rate in ((9, 1), (2, 3)):
        for model in ("house-model", "gpt-5-mini"):
            add(con, model, ago, priced=price({model: Rates(rate, 4)}, model))
    found = review(con, Prices(), now=NOW)
    assert [(m.entry, m.source, m.problem) for m in found.models] == [("as last recorded", "card", None)] * 2
    assert [m.rates and m.rates["in_fresh"] for m in found.models] == ["3", "3"]
    assert any("--card" in step for step in found.next_steps) and len(found.jumps) == 2
    given = review(con, Prices({"house-model": Rates(5, 4)}), now=NOW)
    assert {m.model: m.rates and m.rates["in_fresh"] for m in given.models} == {
        "house-model": "5",
        "gpt-5-mini": "0.25",
    }


def test_usage_shares(con: sqlite3.Connection) -> None:
    """Missing and estimated usage are told as shares of calls, and the estimated share of the money too."""
    card = {"m": Rates(1, 1)}
    guess = Usage(in_fresh=1000, out_text=500, state="estimated")
    for usage in (USAGE, USAGE, guess):
        add(con, "m", 1, usage, price(card, "m", usage))
    add(con, "m", 1, None)
    found = review(con, Prices(card), now=NOW)
    assert (found.missing, found.estimated, found.estimated_cost) == (0.25, 0.25, 1 / 3)
    assert found.models[0].unknown == 1
    assert any("costkit.record" in step for step in found.next_steps)


def test_models_without_a_price(con: sqlite3.Connection) -> None:
    """A model that nothing prices is told with the mend, and so are classes that no price is listed for."""
    add(con, "house-model", 1)
    add(con, "gpt-5.6", 1, Usage(in_fresh=10, cache_write_1h=5), provider="openai")
    found = review(con, Prices(), now=NOW)
    by = {model.model: model for model in found.models}
    assert by["house-model"].rates is None and "no price is known" in str(by["house-model"].problem)
    assert by["gpt-5.6"].unpriced == ("cache_write_1h",) and by["gpt-5.6"].rates is not None
    assert "Kit(prices={'house-model': costkit.Rates(IN, OUT)})" in found.next_steps[0]
    assert "cache_write_1h" in found.next_steps[1]
    text = shown(found)
    assert "cache_write_1h (no price)" in text and "none" in text


def test_an_assumed_price_is_told(con: sqlite3.Connection) -> None:
    """Cached tokens of a model without a cached price are charged as fresh ones, and the review says so."""
    from genai_prices.data_snapshot import get_snapshot

    model = next(
        model.id
        for provider in get_snapshot().providers
        if provider.id == "openai"
        for model in provider.models
        if not isinstance(model.prices, list)
        and model.prices.input_mtok
        and model.prices.cache_read_mtok is None
    )
    add(con, model, 1, Usage(in_fresh=10, cache_read=90), provider="openai")
    (found,) = review(con, Prices(), now=NOW).models
    assert found.assumed == ("cache_read",)


def test_jumps(con: sqlite3.Connection) -> None:
    """A price that changed between two calls is told with both rates and what it does to the model's own tokens."""
    old, new = {"m": Rates(1, 2)}, {"m": Rates(2, 2)}
    add(con, "m", 40, priced=price(old, "m"))
    add(con, "m", 3, priced=price(new, "m"))
    add(con, "other", 2, priced=price({"other": Rates(9, 9)}, "other"))
    found = review(con, Prices(new | {"other": Rates(9, 9)}), now=NOW)
    (jump,) = found.jumps
    assert (jump.model, jump.at, jump.back) == ("m", NOW - 3 * DAY, False)
    assert jump.before is not None and jump.after is not None
    assert (jump.before["in_fresh"], jump.after["in_fresh"]) == ("1", "2")
    assert jump.ratio == (1000 * 2 + 500 * 2) / (1000 + 500 * 2)
    assert any("compare with the invoice" in step for step in found.next_steps)
    assert "x 1.5" in shown(found)


def test_what_is_no_jump(con: sqlite3.Connection) -> None:
    """Equal rates of a newer table are no change, nor is an old change one; a tier that comes and goes is marked."""
    same = price({"m": Rates(1, 2)}, "m")
    add(con, "m", 5, priced=same)
    add(con, "m", 4, priced=same)
    con.execute("UPDATE attempts SET price_id = 'newer' WHERE at = ?", (NOW - 4 * DAY,))
    con.execute("INSERT INTO prices SELECT 'newer', source, 'table 2', rates, first_used FROM prices")
    for ago, rate in ((60, 1), (50, 2)):
        add(con, "old", ago, priced=price({"old": Rates(rate, 1)}, "old"))
    for ago, rate in ((9, 1), (8, 3), (7, 1)):
        add(con, "tier", ago, priced=price({"tier": Rates(rate, 1)}, "tier"))
    found = review(con, Prices({name: Rates(1, 2) for name in ("m", "old", "tier")}), now=NOW)
    assert [(jump.model, jump.back) for jump in found.jumps] == [("tier", True)]
    assert not any("compare with the invoice" in step for step in found.next_steps)


def test_announced_changes(con: sqlite3.Connection) -> None:
    """A price dated within 30 days is told with its day and what it does; one further off is not yet."""
    add(con, "gpt-5.6", 1)
    start = datetime(2026, 8, 21, tzinfo=UTC).timestamp()
    con.execute("UPDATE attempts SET at = ?", (start - 20 * DAY - 1,))
    (found,) = review(con, Prices(), now=start - 20 * DAY).announced
    assert (found.model, found.at) == ("gpt-5.6", start)
    before, after = (
        Prices().price(USAGE, model="gpt-5.6", when=datetime(2026, 8, day, tzinfo=UTC)).cost
        for day in (20, 21)
    )
    assert found.ratio == after / before < 1
    assert review(con, Prices(), now=start - 31 * DAY).announced == ()
    assert review(con, Prices(), now=start).announced == ()
    assert review(con, Prices({"gpt-5.6": Rates(1, 1)}), now=start - 20 * DAY).announced == ()


def test_damaged_and_hostile_rows(con: sqlite3.Connection) -> None:
    """Rates that are no rates, odd types and names that steer a terminal neither raise nor reach the terminal."""
    for number, rates in enumerate(["", "[1]", '{"in_fresh": 1}', '{"in_fresh": "x"}', "[" * 10**5, b"\x00"]):
        add(con, "m", 9 - number)
        con.execute("INSERT INTO prices VALUES (?, 'card', '', ?, 0)", (f"p{number}", rates))
        con.execute("UPDATE attempts SET price_id = ? WHERE at = ?", (f"p{number}", NOW - (9 - number) * DAY))
    add(con, "[red]\x1b[31mevil\u202e[/red]", 1)
    con.execute("INSERT INTO attempts (query_id, root_id, role, model, at, usage_state, price_id) "
                "VALUES ('q', 'q', 'x', x'ff', 'later', 'missing', 'p1')")  # fmt: skip
    found = review(con, Prices({"m": Rates(1, 1)}), now=NOW)
    assert {model.model for model in found.models} == {"m", "[red]\x1b[31mevil\u202e[/red]"}
    assert all(jump.ratio is None for jump in found.jumps)
    text = shown(found)
    assert "\x1b" not in text and "\u202e" not in text and "[red]" in text


def test_the_review_as_data(con: sqlite3.Connection) -> None:
    """The data is JSON as it is, with the next steps in it."""
    add(con, "gpt-5-mini", 1, priced=Prices().price(USAGE, model="gpt-5-mini"))
    add(con, "house-model", 1)
    found = review(con, Prices(), now=NOW)
    told: dict[str, Any] = json.loads(json.dumps(found.to_dict()))
    assert told["next_steps"] == list(found.next_steps)
    assert {model["model"]: model["source"] for model in told["models"]} == {
        "gpt-5-mini": "genai-prices",
        "house-model": None,
    }


def test_nothing_is_written(con: sqlite3.Connection) -> None:
    """The review only reads."""
    add(con, "m", 1)
    before = con.total_changes
    review(con, Prices(), now=NOW)
    assert con.total_changes == before and not con.in_transaction
