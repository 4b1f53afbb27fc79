"""Options, what is asked, prices and the check before load: what is wrong is said in one line and costs nothing."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loadtests.options import OPTIONS, SettingsError, add_options, read_settings
from loadtests.preflight import Refused, prepare
from loadtests.pricing import Pricing
from loadtests.rows import log, three_digits
from loadtests.sample import Sample
from loadtests.stream import Answer
from loadtests.traces import Row
from loadtests.traffic import (
    Model,
    Traffic,
    TrafficError,
    chat,
    multiturn,
    rag,
    read_prompts,
    read_questions,
    replay,
)
from tests.loadtests.runs import ROOT
from tests.loadtests.test_wire import good, peer, says
from tests.serving.simulators import serving

MODEL = Model("tiny", 16)


def said(**other: Any) -> Namespace:
    return Namespace(**{**{one.key: one.default for one in OPTIONS}, **other})


@pytest.mark.parametrize(
    ("other", "line"),
    [
        ({"rate": 0.0}, "--rate"), ({"rate": "nan"}, "--rate"), ({"stages": "10@"}, "--stages"),
        ({"arrivals": "sometimes"}, "--arrivals"), ({"arrivals": "trace"}, "--trace"), 
        ({"burstiness": 3}, "--arrivals"),
        ({"slo": "fast"}, "--slo"), ({"timeout": "soon"}, "--timeout"), ({"drain": "0s"}, "--drain"),
        ({"body": "[1]"}, "--body"), ({"header": "no colon"}, "--header"), ({"max_tokens": -1}, "--max-tokens"),
        ({"header": "Authorization: Bearer sk-geheim"}, "--key-env"), ({"key_env": "sk-geheim-1"}, "--key-env"),
        ({"price_in": "1"}, "--price-out"), ({"price_cached": "1"}, "--price-in"), ({"run_name": "../x"}, "--run-name"),
        ({"max_in_flight": 0}, "--max-in-flight"), ({"machine_hour": "-2"}, "--machine-hour"),
        ({"machine_hour": "2", "slo": "cost.mean<0.001USD"}, "--slo cost.mean"),
    ],
)  # fmt: skip
def test_wrong_settings_name_their_option(other: dict[str, Any], line: str) -> None:
    """Each setting that cannot be run is refused by name, in one line, and no key is said again."""
    with pytest.raises(SettingsError) as told:
        read_settings(said(**other))
    assert line in str(told.value) and "\n" not in str(told.value) and "geheim" not in str(told.value)


def test_settings_from_a_web_form() -> None:
    """A form gives text for what had no default; it means the same."""
    settings = read_settings(said(price_in="0.1", price_out="0.4", temperature="0.5", rate=5.0), seconds=60.0)
    assert settings.prices == (0.1, 0.4, 0.1) and settings.model.temperature == 0.5
    assert settings.plan is not None and settings.plan.seconds == 60.0


def test_every_option_is_known_to_a_parser() -> None:
    """Each option stands on the parser itself, with its default and a help that ends where it ends."""

    class Parser(ArgumentParser):
        def add_argument(self, *names: Any, env_var: str = "", **more: Any) -> Any:
            assert env_var.startswith("LOADTEST_") or names[0] == "-h"
            return super().add_argument(*names, **more)

    parser = Parser()
    add_options(parser)
    assert read_settings(parser.parse_args([])) == read_settings(said())
    assert "--burstiness" in parser.format_help()


def test_the_key_is_read_from_the_environment_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The key comes from the named variable, and a key with a line break is refused without being said."""
    settings = read_settings(said(key_env="MY_KEY"))
    assert settings.key() is None
    monkeypatch.setenv("MY_KEY", "sk-geheim\n")
    assert settings.key() == "sk-geheim" and "geheim" not in repr(settings)
    monkeypatch.setenv("MY_KEY", "sk geheim")
    with pytest.raises(SettingsError, match="MY_KEY") as told:
        settings.key()
    assert "geheim" not in str(told.value)


def bodies(traffic: Traffic, count: int) -> list[str]:
    return [json.loads(traffic.ask(n).body)["messages"][-1]["content"] for n in range(count)]


def test_what_is_asked_depends_on_the_number_alone() -> None:
    """The same number asks the same in any order and process; another seed asks something else."""
    makes: list[Callable[[int], Traffic]] = [
        lambda seed: chat(MODEL, words=30, distinct=9, seed=seed),
        lambda seed: multiturn(MODEL, seed=seed),
    ]
    for make in makes:
        forward, backward = make(1), make(1)
        assert [forward.ask(n) for n in range(40)] == [backward.ask(n) for n in reversed(range(40))][::-1]
        assert [forward.ask(n).body for n in range(40)] != [make(2).ask(n).body for n in range(40)]


def test_distinct_questions_follow_a_zipf_law() -> None:
    """With 10 different questions the first is asked twice as often as the second, within 5 standard errors."""
    asked = bodies(chat(MODEL, words=5, distinct=10), 4000)
    counts = sorted((asked.count(one) for one in set(asked)), reverse=True)
    total = sum(1 / k for k in range(1, 11))
    for k in (1, 2, 10):
        share = 1 / k / total
        assert abs(counts[k - 1] - 4000 * share) < 5 * (4000 * share * (1 - share)) ** 0.5
    assert len(set(bodies(chat(MODEL, words=5), 500))) == 500


def test_questions_carry_their_tenant() -> None:
    """The sample assistant's questions can be asked, each with its tenant in the header that is named."""
    questions = read_questions(ROOT / "serving" / "assistant" / "questions")
    traffic = rag(MODEL, questions, header="X-Tenant", seed=3)
    known = {(one["question"], one["tenant"]) for one in questions}
    for n in range(50):
        ask = traffic.ask(n)
        assert (json.loads(ask.body)["messages"][0]["content"], ask.headers["X-Tenant"]) in known


def test_a_replay_keeps_lengths_and_prefixes() -> None:
    """Two requests that shared a block in the trace share its words, and answers are as long as recorded."""
    rows = [Row(0.0, 1100, 30, (1, 2)), Row(4.0, 900, 40, (1, 3))]
    traffic = replay(MODEL, rows, speed=2.0, scale=0.5)
    one, two = (text.split() for text in bodies(traffic, 2))
    assert traffic.times == [0.0, 2.0] and json.loads(traffic.ask(1).body)["max_tokens"] == 20
    assert (len(one), len(two)) == (550, 450) and one[:256] == two[:256] and one[256] != two[256]


@pytest.mark.parametrize(
    "line", ["{broken", '{"messages":[{"role":"user"}]}', '{"other":1}', '{"prompt":""}']
)
def test_a_broken_prompt_is_named(tmp_path: Path, line: str) -> None:
    """The error of a file of prompts says which line, and a file that is not there says so."""
    path = tmp_path / "prompts.jsonl"
    path.write_text(f'plain text\n{{"prompt":"a"}}\n\n{line}\n')
    with pytest.raises(TrafficError, match="line 4"):
        read_prompts(path)
    with pytest.raises(TrafficError, match="cannot be read"):
        read_questions(tmp_path / "none.jsonl")


def test_prices_by_name_by_option_or_by_the_endpoint() -> None:
    """The endpoint's own word comes first, then named prices, then the table; an unknown model has no cost, not 0."""
    usage = {"prompt_tokens": 1000, "completion_tokens": 100}
    assert Pricing()(usage, "no-such-model").cost_nano is None
    assert (Pricing()(usage, "gpt-4o-mini").cost_nano or 0) > 0
    assert Pricing((1.0, 2.0, 0.5))(usage, "no-such-model").cost_nano == 1_200_000
    assert Pricing((1.0, 2.0, 0.5))({**usage, "costkit": {"cost_nano_usd": 5}}, "x").cost_nano == 5
    assert Pricing((1.0, 2.0, 0.5))({"prompt_tokens": True, "completion_tokens": -4}, "x").cost_nano is None
    assert Pricing((1.0, 2.0, 0.5))(None, None).cost_nano is None


@pytest.mark.parametrize(
    ("value", "kept"), [(1049.0, 1050.0), (999.6, 1000.0), (52.34, 52.3), (7.456, 7.46), (0.0, 0.0)]
)
def test_three_digits_are_kept(value: float, kept: float) -> None:
    """A p95 of 1,049 ms is not told as 1,000."""
    assert three_digits(value) == kept


def test_a_failed_request_has_no_time_in_locusts_tables() -> None:
    """A failure is counted, with its code, and adds no fast time to any row."""
    fired, logged = list[dict[str, Any]](), list[tuple[str, str]]()

    class Entry:
        def __init__(self, key: tuple[str, str]) -> None:
            self.key = key

        def log(self, *_: Any) -> None:
            logged.append(self.key)

    class Entries(dict[tuple[str, str], Entry]):
        def __missing__(self, key: tuple[str, str]) -> Entry:
            return Entry(key)

    request = Namespace(fire=lambda **told: fired.append(told))
    environment = Namespace(events=Namespace(request=request), stats=Namespace(entries=Entries()))
    log(
        environment,
        Sample(id=0, name="chat", intended=0, sent=0, ended=0.001, first=0.001, error="status_503"),
    )
    assert fired[0]["response_time"] is None and str(fired[0]["exception"]) == "status_503"
    assert logged == [("chat [us]", "LAG")]


def tried(host: str, **other: Any) -> Refused:
    with pytest.raises(Refused) as told:
        prepare(said(**other), host, lambda settings, _: chat(settings.model, words=5), seconds=3.0)
    assert "\n" not in str(told.value)
    return told.value


def test_servers_that_are_none_are_refused(tmp_path: Path) -> None:
    """Nothing there, a web page, no HTTP, a wrong path or model: one line each, before load, exit code 1."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
    assert (tried(nobody).code, "nothing listens" in str(tried(nobody))) == (1, True)
    assert "no such host" in str(tried("http://no-such-host.invalid"))
    with serving(tmp_path, "--answer-html") as pages:
        assert "web page" in str(tried(pages.url))
    with peer(says(b"SSH-2.0-OpenSSH\r\n")) as other:
        assert "does not speak HTTP" in str(tried(other.url, model="m"))
    with serving(tmp_path) as server:
        assert "404" in str(tried(server.url + "/wrong"))
        assert "lists simulated" in str(tried(server.url, model="gpt-9"))
        assert tried(server.url, rate=900_000.0).code == 5
        made = prepare(said(), server.url, lambda settings, _: chat(settings.model, words=5), seconds=3.0)
        assert made.settings.model.name == "simulated"


def test_a_server_under_load_already_is_no_reason_not_to_begin() -> None:
    """A trial request that meets a 503 or 429 does not refuse the run: that is what load is to find out."""
    busy = b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n"
    with peer(says(busy)) as server:
        prepare(said(model="m"), server.url, lambda settings, _: chat(settings.model, words=5), seconds=3.0)
    with peer(good) as server:
        prepare(said(model="m"), server.url, lambda settings, _: chat(settings.model, words=5), seconds=3.0)


@pytest.mark.parametrize(
    "name",
    [
        "sample",
        "traffic",
        "stream",
        "options",
        "pricing",
        "outcome",
        "web",
        "rows",
        "report",
        "table",
        "page",
        "plot",
    ],
)
def test_what_reads_results_is_free_of_locust(name: str) -> None:
    """In a fresh process the module brings neither locust nor gevent along."""
    code = f"import sys, loadtests.{name}; sys.exit('locust' in sys.modules or 'gevent' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_an_answer_that_was_never_begun_is_an_error() -> None:
    """No bytes at all is a failure too."""
    answer = Answer()
    answer.end_of_input()
    assert answer.error == "cut_off" and not answer.started
