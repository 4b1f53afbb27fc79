"""The ledger's budgets against a plain model: any order of holds, settles, crashes and clock jumps."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from costkit.budget import Budget, Hold, Line, Settle, line
from costkit.ledger import Ledger, Query

LEASE, DAY = 60.0, 86_400.0
BUDGETS = {"kit": Budget(100, "day", ""), "acme": Budget(60, "total", ""), "ask": Budget(80, "hour", "")}


@dataclass
class Held:
    """One hold in one budget, as the model knows it."""

    amount: int
    expires: float
    lapsed: bool = False


@dataclass
class Stand:
    """One budget in one window."""

    cap: int
    spent: int = 0
    held: int = 0
    lapsed: int = 0


class Machine(RuleBasedStateMachine):
    """Two processes, written to by hand so that every step is seen, beside dictionaries that do the same."""

    calls = Bundle("calls")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.now = 1_700_000_000.0
        self.ledgers = [self.opened(), self.opened()]
        self.stands: dict[str, Stand] = {}
        self.holds: dict[str, dict[str, Held]] = {}
        self.alive: list[set[str]] = [set(), set()]
        self.made = 0

    def opened(self) -> Ledger:
        ledger = Ledger(self.folder, clock=lambda: self.now, lease=LEASE)
        ledger._closed = True  # no writer thread: each call writes at once
        ledger._forgot = float("inf")
        return ledger

    def lapse(self, budget: str | None = None) -> None:
        for parts in self.holds.values():
            for id, part in parts.items():
                if budget in (None, id) and not part.lapsed and part.expires <= self.now:
                    stand, part.lapsed = self.stands[id], True
                    stand.held -= part.amount
                    stand.spent += part.amount
                    stand.lapsed += part.amount

    @rule(
        target=calls,
        who=st.integers(0, 1),
        amount=st.integers(0, 70),
        which=st.sets(st.sampled_from([*BUDGETS])),
    )
    def hold(self, who: int, amount: int, which: set[str]) -> object:
        """A call asks; ledger and model agree on yes or no, and on why not."""
        self.made += 1
        lines = tuple(line(BUDGETS[name], name, name, self.now) for name in sorted(which))
        hold = Hold(f"{self.made}", amount, lines)
        refusal = self.ledgers[who].hold(hold).result(0)
        expected = self.first_without_room(lines, amount)
        assert (refusal and refusal.label) == expected
        if refusal is not None:
            stand = self.stands[next(one.id for one in lines if one.label == expected)]
            assert (refusal.spent, refusal.held) == (stand.spent, stand.held)
            return multiple()
        self.holds[hold.id] = {one.id: Held(amount, self.now + LEASE) for one in lines}
        for one in lines:
            self.stands[one.id].held += amount
        self.alive[who].add(hold.id)
        return (who, hold)

    def first_without_room(self, lines: tuple[Line, ...], amount: int) -> str | None:
        for one in lines:
            stand = self.stands.setdefault(one.id, Stand(one.cap))
            self.lapse(one.id)
            if amount and stand.spent + stand.held + amount > stand.cap:
                return one.label
        return None

    @rule(call=calls, part=st.one_of(st.none(), st.floats(0, 1)))
    def settle(self, call: tuple[int, Hold], part: float | None) -> None:
        """The call ends, with a cost or without a known one; perhaps after it lapsed, perhaps not the first time."""
        who, hold = call
        actual = None if part is None else int(part * hold.amount)
        self.made += 1
        query = Query(
            f"q{self.made}", None, "r", "ask", "1", None, None, self.now, 0, None, None, "call", 0, 0
        )
        future = self.ledgers[who].write(query, (), durable=True, settle=Settle(hold, actual))
        assert future is not None and future.result(0) is None
        self.ended(who, hold, hold.amount if actual is None else actual)

    @rule(call=consumes(calls))
    def release(self, call: tuple[int, Hold]) -> None:
        """The call was not made after all."""
        self.ledgers[call[0]].release(call[1])
        self.ended(*call, 0)

    def ended(self, who: int, hold: Hold, cost: int) -> None:
        self.alive[who].discard(hold.id)
        for id, part in self.holds.pop(hold.id, {}).items():
            stand = self.stands[id]
            stand.spent += cost - (part.amount if part.lapsed else 0)
            stand.lapsed -= part.amount if part.lapsed else 0
            stand.held -= 0 if part.lapsed else part.amount

    @rule(who=st.integers(0, 1))
    def tend(self, who: int) -> None:
        """A process renews what it holds; what others no longer renew lapses."""
        self.ledgers[who]._tend()
        open_parts = [(id, p) for id, parts in self.holds.items() for p in parts.values() if not p.lapsed]
        for id, part in open_parts:
            part.expires = self.now + LEASE if id in self.alive[who] else min(part.expires, self.now + LEASE)
        self.lapse()

    @rule(who=st.integers(0, 1))
    def crash(self, who: int) -> None:
        """A process is killed, and another one starts."""
        self.ledgers[who]._disconnect()
        self.ledgers[who] = self.opened()
        self.alive[who].clear()

    @rule(seconds=st.one_of(st.floats(0, 200), st.sampled_from([-DAY, DAY, 3600.0, -3600.0, LEASE])))
    def turn(self, seconds: float) -> None:
        """Time passes, or the clock is set."""
        self.now += seconds

    @invariant()
    def agrees(self) -> None:
        """The ledger's rows are the model's, no cap is passed, and what is held adds up."""
        con = self.ledgers[0]._connected()
        rows = {r[0]: Stand(*r[1:]) for r in con.execute("SELECT id, cap, spent, held, lapsed FROM budgets")}
        assert rows == self.stands
        for id, stand in rows.items():
            assert stand.spent + stand.held <= stand.cap and min(stand.spent, stand.held, stand.lapsed) >= 0
            held = con.execute("SELECT TOTAL(amount) FROM holds WHERE budget_id = ? AND lapsed = 0", (id,))
            assert held.fetchone() == (stand.held,)

    def teardown(self) -> None:
        """When all are dead, one look after the lease leaves nothing held."""
        self.now += 1.0
        last = self.opened()
        last._tend()
        self.now += LEASE + 1
        last._tend()
        assert last.read().execute("SELECT COUNT(*) FROM holds WHERE lapsed = 0").fetchone()[0] == 0
        assert last.read().execute("SELECT TOTAL(held) FROM budgets").fetchone()[0] == 0
        for ledger in (*self.ledgers, last):
            ledger._disconnect()
        shutil.rmtree(self.folder)


Machine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestModel = Machine.TestCase
