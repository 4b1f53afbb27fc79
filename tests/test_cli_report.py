"""The commands that read or mend a folder, run as a user runs them."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import sqlite3
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest

import costkit
from costkit.cli import main
from costkit.cli.common import moment
from costkit.errors import ConfigError
from costkit.report.scopes import labels_of, parse, scope_id
from tests.recorded import START, folder_of, query, response


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, and no secret in the environment."""
    monkeypatch.delenv("COSTKIT_SECRET", raising=False)
    monkeypatch.delenv("COSTKIT_SECRET_FILE", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    # Programs started from here find costkit also where it is not installed.
    monkeypatch.setenv("PYTHONPATH", str(Path(costkit.__file__).parent.parent))
    return tmp_path


def use(**options: Any) -> None:
    """Two tenants ask two questions twice each in .costkit, and one asks by number."""
    kit = costkit.Kit(".costkit", **options)

    @kit.call(costkit.exact(ttl="1d"), scope="tenant", name="app.ask")
    def ask(question: str, *, tenant: Any) -> dict[str, Any]:
        return response(question)

    for tenant in ("acme", "globex", 7, "7"):
        for question in ("a", "b", "a", "b"):
            ask(f"{question}?", tenant=tenant)
    kit.close()


def run(*args: str) -> int:
    return main([*args])


def read(sql: str) -> list[Any]:
    with contextlib.closing(sqlite3.connect(".costkit/ledger.db")) as con:
        return con.execute(sql).fetchall()


def stored() -> int:
    with contextlib.closing(sqlite3.connect(".costkit/cache/cache.db")) as con:
        return int(con.execute("SELECT COUNT(*) FROM Cache").fetchone()[0])


def test_report_prints_and_writes(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    """The table goes to standard output plain and at most 120 wide, JSON and picture into files, status 0."""
    use()
    assert run("report", "--by", "name", "--json", "r.json", "--plot", "r.png") == 0
    out, err = capsys.readouterr()
    assert "16 queries" in out and "50.0%" in out and "app.ask" in out and "Drawn: r.png" in out
    assert err == "" and "\x1b" not in out and max(map(len, out.splitlines())) <= 120
    assert json.loads((here / "r.json").read_text())["counts"]["hits"] == 8
    assert (here / "r.png").stat().st_size > 10_000


def test_json_to_standard_output_is_alone_there(capsys: pytest.CaptureFixture[str]) -> None:
    """With - standard output is one JSON document, in ASCII, and the table goes to standard error."""
    use()
    for command in (["report"], ["why", "last"], ["doctor"]):
        assert run(*command, "--json", "-") == 0
        out, err = capsys.readouterr()
        assert json.loads(out) and out.isascii() and err


@pytest.mark.parametrize(
    ("args", "queries"),
    [
        (["--scope", "tenant=acme"], 4),
        (["--scope", "tenant=7"], 8),
        (["--scope", '{"tenant": 7}'], 4),
        (["--since", "1h"], 16),
        (["--since", "2099-01-01"], 0),
        (["--name", "app.ask", "--scope", "tenant=globex"], 4),
    ],
)
def test_report_filters(capsys: pytest.CaptureFixture[str], args: list[str], queries: int) -> None:
    """Scope, time and name choose queries; a number is found as text and as a number."""
    use()
    assert run("report", *args, "--json", "-") == 0
    assert json.loads(capsys.readouterr().out)["counts"]["queries"] == queries


def test_scopes_are_found_where_labels_are_off(capsys: pytest.CaptureFixture[str]) -> None:
    """With scope_labels=False the digest in the ledger is found by the name it was made of."""
    use(scope_labels=False)
    assert "acme" not in str(read("SELECT scope FROM queries"))
    assert run("report", "--scope", "tenant=acme", "--json", "-") == 0
    assert json.loads(capsys.readouterr().out)["counts"]["queries"] == 4


@pytest.mark.parametrize(
    ("args", "part"),
    [
        (["report", "--since", "yesterday"], "say how long ago"),
        (["report", "--scope", "acme"], "say name=value"),
        (["report", "--scope", "=x"], "say name=value"),
        (["report", "--scope", "{nope"], "not JSON"),
        (["report", "--scope", "a=1", "--scope", "a=2"], "given twice"),
        (["report", "--scope", "tenant=nobody"], "no query has tenant=nobody"),
        (["report", "--name", "ask"], "near: app.ask"),
        (["report", "--plot", "x.txt"], "end the name in"),
        (["report", "--json", "no/where.json"], "the folder does not exist"),
        (["report", "--folder", "nowhere"], "there is no such folder"),
        (["report", "--name", "\x1b[31m\u202e"], r"\x1b[31m\u202e"),
        (["why", "zzz"], "no query has this id; near:"),
        (["why", "last", "--folder", "nowhere"], "there is no such folder"),
        (["forget", "--scope", "tenant=acme", "--folder", "nowhere", "--yes"], "there is no such folder"),
        (["forget", "--scope", "tenant=acme"], "say --yes"),
        (["doctor", "--accept-loss"], "has lost nothing"),
        (["doctor", "--make-secret", ".costkit/costkit.json"], "exists already"),
        (["prices", "--card", "json:dumps"], "name a costkit.Prices"),
        (["prices", "--card", "no_such_module:x"], "cannot import"),
    ],
)
def test_an_error_is_one_line_and_status_2(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    here: Path,
    args: list[str],
    part: str,
) -> None:
    """What is refused is one line that names the mend, nothing is made or deleted, and no escape is printed."""
    use()
    before = stored()
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert run(*args) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("costkit: ") and err.count("\n") == 1 and part in err
    assert "\x1b" not in err and "\u202e" not in err
    assert stored() == before and not (here / "nowhere").exists()


def test_why_and_doctor_run(capsys: pytest.CaptureFixture[str]) -> None:
    """why tells the newest query and one by the beginning of its id; doctor ends with status 0 on a sound folder."""
    use()
    assert run("why", "last") == 0
    assert "answered by exact" in capsys.readouterr().out
    first = read("SELECT id FROM queries ORDER BY id LIMIT 1")[0][0]
    assert run("why", first) == 0
    out = capsys.readouterr().out
    assert "the first call of this function" in out and "gpt-4o-mini" in out and "Next: " in out
    assert run("doctor") == 0
    assert "Next: " in capsys.readouterr().out


def test_doctor_says_1_where_something_is_bad(capsys: pytest.CaptureFixture[str]) -> None:
    """A folder that is not there and a ledger that is no database are status 1, with the mend last."""
    assert run("doctor", "--folder", "nowhere") == 1
    use()
    Path(".costkit/ledger.db").write_text("no database" * 1000)
    assert run("doctor") == 1
    assert "Next: ledger: move ledger.db" in " ".join(capsys.readouterr().out.split())
    assert run("report") == 2 and "costkit doctor" in capsys.readouterr().err


def test_accept_loss_lets_budgets_count_again(capsys: pytest.CaptureFixture[str]) -> None:
    """After a damaged ledger the mark is bad until it is accepted, and nothing else of the ledger changes."""
    folder_of(
        Path(".costkit"),
        queries=[query("a")],
        meta=[{"name": "damaged_at", "value": "1"}, {"name": "x", "value": "y"}],
    )
    assert run("doctor") == 1
    capsys.readouterr()
    assert run("doctor", "--accept-loss") == 0
    assert read("SELECT * FROM meta WHERE name IN ('damaged_at', 'x')") == [("x", "y")]
    assert read("SELECT id FROM queries") == [("a",)]


def test_make_secret_writes_a_private_file(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    """The file is for its owner alone, and the secret is in no output."""
    assert run("doctor", "--make-secret", "secret") == 0
    out, err = capsys.readouterr()
    assert (here / "secret").stat().st_mode & 0o777 == 0o600
    assert (here / "secret").read_text().strip() not in out + err and "COSTKIT_SECRET_FILE" in out


def test_forget_deletes_one_scope_and_says_what_stays(capsys: pytest.CaptureFixture[str]) -> None:
    """Its answers go, everybody else's stay, and the ledger keeps its rows and label."""
    use()
    assert stored() == 8
    assert run("forget", "--scope", "tenant=acme", "--yes") == 0
    out = capsys.readouterr().out
    assert "2 cached answers of tenant=acme deleted" in out and "Not erased: the ledger's rows" in out
    assert stored() == 6
    assert read("SELECT COUNT(*) FROM queries WHERE scope LIKE '%acme%'") == [(4,)]
    kit = costkit.Kit(".costkit")
    assert kit.forget(tenant="acme") == 0 and kit.forget(tenant="globex") == 2
    kit.close()


def test_forget_takes_a_number_as_both_unless_json_says_which(capsys: pytest.CaptureFixture[str]) -> None:
    """tenant=7 is "7" and 7; JSON names one of them."""
    use()
    assert run("forget", "--scope", '{"tenant": 7}', "--yes") == 0
    assert stored() == 6
    assert run("forget", "--scope", "tenant=7", "--yes") == 0
    assert stored() == 4


def test_forget_with_ledger_leaves_no_trace_of_text_or_name(capsys: pytest.CaptureFixture[str]) -> None:
    """Stored texts of the scope and its readable name are in no byte of the ledger's files, its money still is."""
    use(store_text=True)
    kit = costkit.Kit(".costkit", store_text=True)
    ask = kit.call(scope="tenant", name="app.ask2")(lambda question, *, tenant: response(f"{question}"))
    for _ in range(50):
        ask("the canary-question sings", tenant="canary-tenant")
    kit.close()
    with contextlib.closing(sqlite3.connect(".costkit/ledger.db")) as con, con:
        label = 'app.ask2 {"tenant": "canary-tenant"}'
        con.execute("INSERT INTO budgets VALUES ('b', ?, 9, 0, NULL, 1, 0, 0)", (f"1 USD/day for {label}",))
    paid = read("SELECT SUM(provider_cost) FROM queries")
    assert run("forget", "--scope", "tenant=canary-tenant", "--yes", "--ledger") == 0
    assert "50 ledger rows" in capsys.readouterr().out
    raw = b"".join(p.read_bytes() for p in Path(".costkit").glob("ledger.db*"))
    assert b"canary" not in raw and b"globex" in raw
    assert read("SELECT cap, spent FROM budgets") == [(9, 1)]
    assert read("SELECT SUM(provider_cost) FROM queries") == paid
    assert read(f"SELECT COUNT(*) FROM queries WHERE scope = '{scope_id({'tenant': 'canary-tenant'})}'") == [
        (50,)
    ]


def test_forget_names_wider_scopes_it_does_not_touch(capsys: pytest.CaptureFixture[str]) -> None:
    """A scope of more names than were given is another scope, and is named."""
    kit = costkit.Kit(".costkit")
    ask = kit.call(costkit.exact(), scope=("tenant", "user"), name="ask")(
        lambda q, *, tenant, user: response(f"{q}")
    )
    ask("x", tenant="acme", user="u1")
    kit.close()
    assert run("forget", "--scope", "tenant=acme", "--yes") == 0
    out = capsys.readouterr().out
    assert (
        "0 cached answers" in out and 'Not touched: the wider scope {"tenant": "acme", "user": "u1"}' in out
    )
    assert run("forget", "--scope", "tenant=acme", "--scope", "user=u1", "--yes") == 0
    assert stored() == 0


def test_forget_needs_the_secret_of_a_sealed_folder(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it everybody's answers would be lost, so it is asked for; with it one scope goes."""
    use(secret="a secret of more than sixteen bytes")
    assert run("forget", "--scope", "tenant=acme", "--yes") == 2
    assert "set COSTKIT_SECRET" in capsys.readouterr().err and stored() == 8
    monkeypatch.setenv("COSTKIT_SECRET", "a secret of more than sixteen bytes")
    assert run("forget", "--scope", "tenant=acme", "--yes") == 0
    assert stored() == 6


def test_forget_takes_what_a_kit_takes(capsys: pytest.CaptureFixture[str]) -> None:
    """A UUID named as text is found as the UUID a program passed; scope=None is named by a dash."""
    kit = costkit.Kit(".costkit")
    mine = uuid.uuid4()
    ask = kit.call(costkit.exact(), scope="tenant", name="ask")(lambda q, *, tenant: response(f"{q}"))
    free = kit.call(costkit.exact(), scope=None, name="free")(lambda q: response(f"{q}"))
    ask("x", tenant=mine)
    free("y")
    kit.close()
    assert run("forget", "--scope", f"tenant={mine}", "--yes") == 0 and stored() == 1
    assert run("forget", "--scope", "-", "--yes") == 0 and stored() == 0


def test_scope_words() -> None:
    """Words and JSON name scopes; labels with more names hold them, other values do not."""
    assert parse(["a=b=c", "d="]) == {"a": "b=c", "d": ""}
    known = ['{"a": "1"}', '{"a": 1, "b": 2}', '{"a": true}', "[1]", "{broken", None, '{"a": {"b": 1}}']
    assert labels_of({"a": "1"}, known) == known[:2]
    assert labels_of({"a": 1}, known) == known[1:2]
    assert labels_of({"a": "true"}, known) == known[2:3]


def test_moments() -> None:
    """Durations count back from now, dates are UTC, a time zone is heeded, and anything else is refused."""
    assert moment("2026-11-01T12:00") == moment("2026-11-01") + 43_200
    assert moment("2026-11-01T12:00+02:00") == moment("2026-11-01") + 36_000
    assert 86_390 < moment("0.5d") - moment("1.5d") < 86_410
    for bad in ("", "7", "-1d", "0d", "2026-13-01", "nan", "7 days ago"):
        with pytest.raises(ConfigError, match="say how long ago"):
            moment(bad)


def program(*args: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "costkit.cli", *args], capture_output=True, text=True, timeout=60, **options
    )


def test_prices_reviews_what_was_used(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    """The models of the record come with their price in force; a rate card of the user's is loaded by name."""
    use()
    assert run("prices") == 0
    assert "gpt-4o-mini" in capsys.readouterr().out
    (here / "my_card.py").write_text(
        'import costkit\ncard = {"gpt-4o-mini": costkit.Rates(77, 99)}\nready = costkit.Prices(card)\n'
    )
    for name in ("card", "ready"):
        assert run("prices", "--card", f"my_card:{name}", "--json", "-") == 0
        assert '"77"' in capsys.readouterr().out


def test_every_command_has_its_help() -> None:
    """Each command is listed, and its own help names the folder."""
    listed = program("--help").stdout
    for command in ("report", "why", "prices", "doctor", "forget"):
        assert command in listed and "--folder" in program(command, "--help").stdout


def test_a_reader_that_leaves_early_is_no_error() -> None:
    """`costkit report | head -1` ends in silence."""
    use()
    line = f"{sys.executable} -m costkit.cli report --by name | head -c 1"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=60)
    assert done.stderr == "" and done.returncode == 0


def test_a_terminal_gets_colours_and_is_asked(here: Path) -> None:
    """On a real terminal the report is coloured, and forget waits for a yes: anything else deletes nothing."""
    use()
    assert "\x1b[1m" in _on_a_terminal(["report"], "")
    assert "not confirmed" in _on_a_terminal(["forget", "--scope", "tenant=acme"], "no\n") and stored() == 8
    assert "2 cached answers" in _on_a_terminal(["forget", "--scope", "tenant=acme"], "y\n") and stored() == 6


def _on_a_terminal(args: list[str], answer: str) -> str:
    """What the program prints on a pseudo-terminal into which ``answer`` is typed."""
    child, fd = pty.fork()
    if child == 0:
        os.environ["TERM"] = "xterm-256color"
        os.execv(sys.executable, [sys.executable, "-m", "costkit.cli", *args])
    os.write(fd, answer.encode())
    out = b""
    with contextlib.suppress(OSError):  # Linux says EIO where the other end has left
        while part := os.read(fd, 65536):
            out += part
    os.waitpid(child, 0)
    os.close(fd)
    return out.decode("utf-8", "replace")


def test_since_a_row_on_the_edge_counts() -> None:
    """--since is inclusive."""
    folder_of(Path(".costkit"), queries=[query("a", at=START), query("b", at=START - 1)])
    assert run("report", "--since", "2026-09-21T14:13:20", "--json", "r.json") == 0
    assert json.loads(Path("r.json").read_text())["counts"]["queries"] == 1
