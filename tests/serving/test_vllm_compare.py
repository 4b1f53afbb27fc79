"""The comparison with ``vllm bench serve``: its pure parts, and the role chunk's lead where it is known."""

from __future__ import annotations

from dataclasses import replace

import pytest

from loadtests.sample import Sample
from serving.simulated.run import running
from tests.benchmarks.vllm_compare import beside, from_bench, gaps_beside, role_lead


def test_their_result_becomes_samples_with_their_stamps() -> None:
    """First, last and time per token are what the tool reports; failed requests are left out."""
    told = {
        "start_times": [10.0, 11.0], "ttfts": [0.05, 0.0], "itls": [[0.0, 0.01, 0.01], []],
        "input_lens": [9, 9], "output_lens": [3, 0], "errors": ["", "refused"],
    }  # fmt: skip
    (one,) = from_bench(told)
    assert one.ttft == pytest.approx(0.05) and one.e2e == pytest.approx(0.07)
    assert one.tpot == pytest.approx(0.01) and one.gaps == (0.0, 0.01, 0.01)


def test_the_role_chunks_gap_explains_their_mean_gap() -> None:
    """Ours, with one more gap an answer of the role chunk's lead, is theirs where that is all the difference."""
    gaps = (0.010, 0.012, 0.011)
    ours = Sample(0, "a", 0, 0, 1, first=0.050, last=0.083, gaps=gaps, output_tokens=4)
    theirs = replace(ours, first=0.049, gaps=(0.001, *gaps))
    found = gaps_beside({"ours": [ours] * 5, "theirs": [theirs] * 5}, 0.001)
    assert found["ours"] == pytest.approx(11.0)
    assert found["theirs"] == pytest.approx(8.5) == pytest.approx(found["ours_counted_as_theirs"])


def test_intervals_that_are_apart_are_said_to_be() -> None:
    """Two steady series ten per cent apart do not meet; a series meets itself; too few have no verdict."""

    def series(factor: float, number: int = 400) -> list[Sample]:
        rows = []
        for n in range(number):
            first = factor * (0.1 + 0.001 * (n * 7919 % 11))
            rows.append(Sample(n, "a", n, n, n + 1, first=n + first, last=n + first + 0.1, output_tokens=5))
        return rows

    apart = beside({"ours": series(1), "theirs": series(1.1)}, "ttft")
    assert apart["mean"]["meet"] is False and apart["p50"]["inside"] is False
    same = beside({"ours": series(1), "theirs": series(1)}, "ttft")
    assert same["mean"]["meet"] and same["p95"]["meet"] and same["p95"]["inside"]
    few = beside({"ours": series(1, 20), "theirs": series(1, 20)}, "ttft")
    assert few["p95"]["meet"] is None


@pytest.mark.parametrize(("flags", "lead"), [((), 0.0), (("--role-chunk-early",), 0.15)])
def test_the_lead_of_the_role_chunk_is_measured(flags: tuple[str, ...], lead: float) -> None:
    """Against a simulated server that sends the role at once and the first token 150 ms later, the lead is that."""
    with running("--prefill-base-ms", "150", "--prefill-ms-per-token", "0", *flags) as url:
        found = sorted(role_lead(url.removesuffix("/v1"), "simulated", 5))
    assert found[2] == pytest.approx(lead, abs=0.03)
