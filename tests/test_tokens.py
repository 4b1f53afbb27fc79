"""Token counts: exact, offline, and unharmed by hostile text."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costkit import tokens
from costkit.errors import ConfigError
from costkit.tokens import vocabulary
from costkit.tokens.text import SPLIT, WINDOW, windows

O200K = "fb374d419588a4632f3f557e76b4b70aebbca790"
O200K_SHA256 = "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d"

# In a process of its own: whatever touches a socket is printed, and the count must be right.
OFFLINE = """
import sys
def refuse(event, args):
    if event.startswith("socket."):
        print(event)
sys.addaudithook(refuse)
from costkit import tokens
print(tokens.count("How long do refunds take?"), tokens.count("hello world", model="gpt-4"))
assert "bpe_openai" not in sys.modules
"""


def run_offline(**environment: str) -> subprocess.CompletedProcess[str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR", "XDG_CACHE_HOME")
    }
    root = str(Path(__file__).parents[1])
    return subprocess.run(
        [sys.executable, "-c", OFFLINE],
        env={**kept, "PYTHONPATH": root, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("text", "model", "ids"),
    [
        ("hello world", "gpt-5-mini", 2),
        ("hello world", "gpt-4", 2),
        ("tiktoken is great!", "gpt-4", 6),
        ("antidisestablishmentarianism", "gpt-4", 6),
        ("2 + 2 = 4", "gpt-4", 7),
        ("お誕生日おめでとう", "gpt-4", 9),
        ("お誕生日おめでとう", "gpt-4o", 8),
        ("", "gpt-5", 0),
    ],
)
def test_known_counts(text: str, model: str, ids: int) -> None:
    """Counts agree with the ones OpenAI publishes for both vocabularies."""
    assert tokens.count(text, model=model) == ids


@pytest.mark.parametrize(
    ("model", "encoding"),
    [
        ("gpt-5", "o200k_base"),
        ("gpt-5-mini-2025-08-07", "o200k_base"),
        ("gpt-4o-mini", "o200k_base"),
        ("gpt-4.1", "o200k_base"),
        ("gpt-4.5-preview", "o200k_base"),
        ("o3", "o200k_base"),
        ("ft:gpt-4o:acme::1", "o200k_base"),
        ("claude-sonnet-4-5", "o200k_base"),
        (None, "o200k_base"),
        ("gpt-4", "cl100k_base"),
        ("gpt-4-turbo", "cl100k_base"),
        ("openai/gpt-4-0613", "cl100k_base"),
        ("gpt-3.5-turbo", "cl100k_base"),
        ("gpt-35-turbo", "cl100k_base"),
        ("ft:gpt-4:acme::1", "cl100k_base"),
        ("text-embedding-3-small", "cl100k_base"),
    ],
)
def test_encoding_of_a_model(model: str | None, encoding: str) -> None:
    """Each family counts with its own vocabulary and unknown names with the newest."""
    assert tokens.encoding_for(model) == encoding


def test_special_tokens_are_text() -> None:
    """A user's text that spells a special token neither raises nor counts as one token."""
    assert tokens.count("<|endoftext|>") == 7
    assert tokens.count("a<|endofprompt|>b", model="gpt-4") > 3


@pytest.mark.parametrize("character", ["a", " ", "\n", "0", "é", ".", "\ud800"])
def test_ten_million_equal_characters(character: str) -> None:
    """Neither the expression engine's stack nor surrogates stop a huge text (10**7 spaces panic whole)."""
    millions = 10 if character == " " else 1
    assert 0 < tokens.count(character * (millions * 10**6)) <= millions * 10**6


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            ["word", "Größe", " ", "  ", "\n", ".", ",", "12345", "it's", "。", "世界", "'", "\t", "é"]
        ),
        max_size=120,
    ),
    st.sampled_from(["gpt-5", "gpt-4"]),
)
def test_windows_do_not_change_the_count(pieces: list[str], model: str) -> None:
    """A text cut before a space or stop that follows a letter or number counts the same as whole."""
    text = "".join(pieces)
    encoding = vocabulary.encoding(tokens.encoding_for(model))
    whole = len(encoding.encode_ordinary(text))
    for cut in SPLIT.finditer(text):
        parts = text[: cut.start()], text[cut.start() :]
        assert sum(len(encoding.encode_ordinary(part)) for part in parts) == whole


@given(st.text(max_size=400), st.integers(2, 50))
def test_windows_lose_nothing(text: str, size: int) -> None:
    """The windows of a text are the text, none longer than asked."""
    cut = list(windows(text, size))
    assert "".join(cut) == text
    assert all(len(window) <= size for window in cut)


def test_a_long_text_counts_exactly() -> None:
    """Prose of several windows counts as tiktoken counts it whole."""
    text = (
        "The refund for plan 42 (yearly) takes 5 days; it's paid to the card, ZIP 10115. Größe: 世界。 "
        * 3_000
    )
    assert len(text) > 4 * WINDOW
    assert tokens.count(text) == len(vocabulary.encoding("o200k_base").encode_ordinary(text))


def test_messages_follow_the_chat_rule() -> None:
    """Three tokens a message, one more for a name, three to prime; text parts and tool calls count."""
    user = {"role": "user", "content": "hello world"}
    assert tokens.count_messages([]) == 3
    assert tokens.count_messages([user]) == 3 + 3 + 1 + 2
    assert tokens.count_messages([{**user, "name": "bob"}]) == 3 + 3 + 1 + 2 + 1 + tokens.count("bob")
    parts = [{"type": "text", "text": "hello world"}, {"type": "image_url", "image_url": {"url": "data:..."}}]
    assert tokens.count_messages([{"role": "user", "content": parts}]) == 3 + 3 + 1 + 2
    call = {"function": {"name": "hello", "arguments": "hello world"}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    assert tokens.count_messages([message]) == 3 + 3 + 1 + 1 + 2


def test_openai_cookbook_example() -> None:
    """The published example of six messages has the 129 (gpt-4) and 124 (gpt-4o) tokens OpenAI reports."""
    system = (
        "You are a helpful, pattern-following assistant that translates corporate jargon into plain English."
    )
    shots = [
        ("example_user", "New synergies will help drive top-line growth."),
        ("example_assistant", "Things working well together will increase revenue."),
        (
            "example_user",
            "Let's circle back when we have more bandwidth to touch base on opportunities "
            "for increased leverage.",
        ),
        ("example_assistant", "Let's talk later when we're less busy about how to do better."),
    ]
    last = "This late pivot means we don't have time to boil the ocean for the client deliverable."
    messages = [
        {"role": "system", "content": system},
        *({"role": "system", "name": name, "content": text} for name, text in shots),
        {"role": "user", "content": last},
    ]
    assert tokens.count_messages(messages, model="gpt-4") == 129
    assert tokens.count_messages(messages, model="gpt-4o") == 124


def test_estimate_is_marked() -> None:
    """An estimated usage says so and holds the counts of what was sent and received."""
    usage = tokens.estimate("gpt-5", [{"role": "user", "content": "hello world"}], "hello")
    assert (usage.state, usage.tokens_in, usage.tokens_out) == ("estimated", 9, 1)
    assert tokens.estimate(None, "hello world", "").tokens_in == 2


def test_offline_in_a_fresh_home(tmp_path: Path) -> None:
    """A first count fills a private per-user folder from the installed wheel, with no socket opened."""
    done = run_offline(HOME=str(tmp_path))
    assert done.stdout.split() == ["6", "2"], done.stderr
    folder = tmp_path / ".cache" / "costkit" / "tiktoken"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / O200K).stat().st_mode) == 0o600
    assert hashlib.sha256((folder / O200K).read_bytes()).hexdigest() == O200K_SHA256
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize("variable", ["TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"])
def test_a_chosen_folder_with_a_bad_file(tmp_path: Path, variable: str) -> None:
    """The user's own cache folder is used, and a damaged file in it is replaced before tiktoken downloads."""
    (tmp_path / O200K).write_bytes(b"damaged")
    done = run_offline(**{variable: str(tmp_path), "HOME": "/nonexistent"})
    assert done.stdout.split() == ["6", "2"], done.stderr
    assert hashlib.sha256((tmp_path / O200K).read_bytes()).hexdigest() == O200K_SHA256


def test_without_a_writable_home(tmp_path: Path) -> None:
    """Where no folder can be made, and where caching is switched off, counting still works offline."""
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    done = run_offline(XDG_CACHE_HOME=str(blocked), TIKTOKEN_CACHE_DIR="")
    assert done.stdout.split() == ["6", "2"], done.stderr


def test_many_processes_at_once(tmp_path: Path) -> None:
    """Processes that fill one folder at the same time all count right and leave no scrap behind."""
    root = str(Path(__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": root, "TIKTOKEN_CACHE_DIR": str(tmp_path)}
    crowd = [
        subprocess.Popen([sys.executable, "-c", OFFLINE], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    assert [process.communicate(timeout=60)[0].split() for process in crowd] == [["6", "2"]] * 4
    assert sorted(path.suffix for path in tmp_path.iterdir()) == ["", ""]


def test_the_environment_is_left_alone() -> None:
    """Loading a vocabulary does not leave tiktoken's variable set for the rest of the process."""
    before = os.environ.get("TIKTOKEN_CACHE_DIR")
    vocabulary.encoding.cache_clear()
    tokens.count("x")
    assert os.environ.get("TIKTOKEN_CACHE_DIR") == before


def test_a_wrong_wheel_is_refused() -> None:
    """A packaged vocabulary with other contents is an error that names the mend, never used."""
    with pytest.raises(ConfigError, match="reinstall bpe-openai"):
        vocabulary.packaged("o200k_base", "0" * 64)
    with pytest.raises(ConfigError, match="pip install"):
        vocabulary.packaged("p50k_base", "0" * 64)
