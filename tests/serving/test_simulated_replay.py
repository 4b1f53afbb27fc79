"""The simulated server replays a recording, or refuses a broken one, with the real process and a real client."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any, cast

import openai
import pytest

from serving.prompt_digest import prompt_digest
from serving.simulated import Answer, RecordingError, load_recording, write_recording
from tests.serving.simulators import refused, serving

RECORDED = "Refunds take 14\u2028days \u2013 \u00e0 la carte plans 30."


def record(folder: Path) -> dict[str, Any]:
    asked: dict[str, Any] = {
        "model": "tiny",
        "messages": [{"role": "user", "content": "refund?"}],
        "temperature": 0,
    }
    answers = [
        Answer(prompt_digest(asked), RECORDED, "length", 31, 16, 12, 0.100, 0.320),
        Answer("0" * 64, "", "stop", 5, 0, 0, 0.1, 0.2),
    ]
    write_recording(folder, answers, model="tiny", date="2026-01-31", machine="test")
    return asked


def test_replay_is_exact(tmp_path: Path) -> None:
    """A recorded prompt gets its text, usage and service times back, labelled, streamed or not."""
    asked = record(tmp_path / "rec")
    with (
        serving(tmp_path, "--recording", str(tmp_path / "rec"), "--speed", "2") as server,
        server.sdk() as sdk,
    ):
        raw = sdk.chat.completions.with_raw_response.create(**asked)
        stream = sdk.chat.completions.create(
            **asked, stream=True, stream_options={"include_usage": True}, user="u"
        )
        chunks = list(stream)
        rows = server.truth()
    plain = raw.parse()
    assert raw.headers["x-costkit-replay"] == "recorded"
    assert str(plain.system_fingerprint).startswith("replay-") and len(str(plain.system_fingerprint)) == 15
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert plain.choices[0].message.content == text == RECORDED
    assert plain.choices[0].finish_reason == "length"
    for usage in (plain.usage, chunks[-1].usage):
        assert usage and usage.prompt_tokens_details
        assert (usage.prompt_tokens, usage.completion_tokens) == (31, 12)
        assert usage.prompt_tokens_details.cached_tokens == 16
    for row in rows:
        assert row["first_token"] - row["start"] == pytest.approx(0.100, abs=2e-6)
        assert row["last_token"] - row["start"] == pytest.approx(0.320, abs=2e-6)
        assert (row["prompt_tokens"], row["cached_tokens"], row["completion_tokens"]) == (31, 16, 12)


def test_unrecorded_prompt_is_said_so(tmp_path: Path) -> None:
    """A prompt that was not recorded gets 422 with the recording's date and model, never an answer."""
    asked = record(tmp_path / "rec")
    with serving(tmp_path, "--recording", str(tmp_path / "rec")) as server:
        with pytest.raises(openai.UnprocessableEntityError) as caught:
            server.sdk().chat.completions.create(**{**asked, "temperature": 1})
        assert server.truth()[0]["status"] == 422
    error = cast(dict[str, Any], caught.value.body)
    assert error["type"] == "not_recorded"
    assert all(word in error["message"] for word in ("2026-01-31", "tiny", "make record"))
    assert prompt_digest({**asked, "temperature": 1}) in error["message"]


def _spoil_meta(folder: Path, name: str, value: object) -> None:
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps({**meta, name: value}))


def _rewrite(folder: Path, data: bytes) -> None:
    """Replace the answers and make the digest fit, so that a later check has to find the fault."""
    (folder / "answers.jsonl.gz").write_bytes(data)
    _spoil_meta(folder, "answers_sha256", hashlib.sha256(data).hexdigest())


def _rows(folder: Path) -> list[dict[str, Any]]:
    return [
        json.loads(line) for line in gzip.decompress((folder / "answers.jsonl.gz").read_bytes()).splitlines()
    ]


def _with_row(folder: Path, change: dict[str, object]) -> None:
    rows = [{**_rows(folder)[0], **change}, _rows(folder)[1]]
    _rewrite(folder, gzip.compress("\n".join(json.dumps(row) for row in rows).encode()))


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("stale digest", "answers_sha256"),
        ("row count", "rows=3"),
        ("no meta", "cannot be read"),
        ("no answers", "cannot be read"),
        ("meta not JSON", "is not JSON"),
        ("meta field", "'date'"),
        ("half a gzip", "gzip"),
        ("not gzip", "gzip"),
        ("row not JSON", "line 1: is not JSON"),
        ("row field", "'text'"),
        ("twice", "appears twice"),
        ("times", "ttft_s"),
    ],
)
def test_broken_recording_is_refused(tmp_path: Path, fault: str, words: str) -> None:
    """Each way a recording can be stale or broken is one clear error that names the file."""
    folder = tmp_path / "rec"
    record(folder)
    packed = (folder / "answers.jsonl.gz").read_bytes()
    match fault:
        case "stale digest":
            (folder / "answers.jsonl.gz").write_bytes(gzip.compress(b"{}"))
        case "row count":
            _spoil_meta(folder, "rows", 3)
        case "no meta":
            (folder / "meta.json").unlink()
        case "no answers":
            (folder / "answers.jsonl.gz").unlink()
        case "meta not JSON":
            (folder / "meta.json").write_text("{")
        case "meta field":
            _spoil_meta(folder, "date", None)
        case "half a gzip":
            _rewrite(folder, packed[: len(packed) // 2])
        case "not gzip":
            _rewrite(folder, b"plain")
        case "row not JSON":
            _rewrite(folder, gzip.compress(b"{\n"))
        case "row field":
            _with_row(folder, {"text": None})
        case "twice":
            _with_row(folder, {"prompt": "0" * 64})
        case "times":
            _with_row(folder, {"ttft_s": 9})
    with pytest.raises(RecordingError) as caught:
        load_recording(folder)
    assert words in str(caught.value) and str(folder) in str(caught.value) and "\n" not in str(caught.value)


def test_server_refuses_a_stale_recording(tmp_path: Path) -> None:
    """The process itself ends with code 2 and one line, before it serves anything."""
    record(tmp_path)
    _spoil_meta(tmp_path, "rows", 1)
    ended = refused("--recording", str(tmp_path))
    assert ended.returncode == 2 and ended.stdout == ""
    assert ended.stderr.count("\n") == 1 and "stale" in ended.stderr and "Traceback" not in ended.stderr
