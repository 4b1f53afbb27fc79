"""Encoders: what a callable returns is checked, texts are embedded once, names tell models apart."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from costkit.embed import Encoder, Model, encoder_of
from costkit.errors import ConfigError, EncoderError, MissingExtra


def plain(texts: list[str]) -> list[list[float]]:
    return [[float(len(text)), 1.0, 0.0] for text in texts]


def returning(value: Any) -> Encoder:
    return encoder_of(lambda texts: value, name="fixed")


def test_vectors_have_length_one_whatever_the_scale() -> None:
    """Numbers of any size and kind come back as float32 unit vectors of the same direction."""
    for scale in (1e-300, 1e-30, 1.0, 1e30, 1e300):
        vector = returning([[3 * scale, 4 * scale]]).one("x")
        assert vector.dtype == np.float32 and np.allclose(vector, [0.6, 0.8], atol=1e-6)
    assert np.allclose(returning(np.array([[3, 4]], np.int8)).one("x"), [0.6, 0.8])
    assert returning(np.array([[3, 4]], np.float16)).encode(["x"]).dtype == np.float32


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ([[1.0, float("nan")]], "NaN"),
        ([[float("inf"), 1.0]], "NaN or infinity"),
        ([[0.0, 0.0]], "zeros"),
        ([1.0, 2.0], "shape"),
        ([[1.0], [2.0]], "shape"),
        ([[]], "shape"),
        ([[[1.0]]], "shape"),
        (None, "numbers"),
        ([["a", "b"]], "numbers"),
        (np.array([[1 + 2j]]), "numbers"),
        ([[True, False]], "numbers"),
        ([[1.0], [1.0, 2.0]], "raised ValueError"),
    ],
)
def test_what_no_encoder_may_return_is_refused(value: Any, says: str) -> None:
    """A wrong shape, type, NaN, infinity or a zero vector is an error that names the encoder, and no vector."""
    with pytest.raises(EncoderError, match=f"(?s)encoder fixed: .*{says}"):
        returning(value).one("a secret question")


def test_a_dimension_that_changes_is_refused() -> None:
    """Once a vector had three numbers, one of two is an error, and the encoder goes on working."""
    sizes = iter([3, 2, 3])
    encoder = encoder_of(lambda texts: np.ones((len(texts), next(sizes))), name="shaky")
    assert len(encoder.one("a")) == 3 and encoder.id == "shaky d3"
    with pytest.raises(EncoderError, match="2 numbers a text, where it has 3"):
        encoder.one("b")
    assert len(encoder.one("b")) == 3


def test_errors_show_no_text() -> None:
    """What an encoder raises is wrapped, with its cause, and no message of ours holds the text."""

    def broken(texts: list[str]) -> Any:
        raise RuntimeError("no answer")

    with pytest.raises(EncoderError) as told:
        encoder_of(broken, name="remote").one("canary-7431")
    assert "canary" not in str(told.value) and "RuntimeError" in str(told.value)
    assert isinstance(told.value.__cause__, RuntimeError)


def test_interrupts_pass() -> None:
    """Ctrl-C while an encoder works is Ctrl-C, not an encoder's failure."""

    def interrupted(texts: list[str]) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encoder_of(interrupted, name="slow").one("x")


def test_each_text_is_embedded_once() -> None:
    """A text asked for again, alone or among others, or twice at once, reaches the model once; order is kept."""
    asked: list[list[str]] = []

    def counting(texts: list[str]) -> list[list[float]]:
        asked.append(texts)
        return plain(texts)

    encoder = encoder_of(counting, name="counting")
    one = encoder.one("a")
    both = encoder.encode(["bbb", "a", "bbb", "cc"])
    assert asked == [["a"], ["bbb", "cc"]]
    assert np.array_equal(both[1], one) and np.array_equal(both[0], both[2])
    assert np.allclose(both, [np.array(v) / np.linalg.norm(v) for v in plain(["bbb", "a", "bbb", "cc"])])
    assert encoder.encode([]).shape == (0, 3)


def test_what_is_remembered_is_bounded_and_cannot_be_changed() -> None:
    """Many texts do not fill the memory, and a caller that writes into a vector does not spoil the next one's."""
    encoder = encoder_of(lambda texts: np.ones((len(texts), 4096)), name="wide")
    for n in range(40):
        encoder.encode([f"{n} {i}" for i in range(50)])
    assert len(encoder._recent) * 4096 * 4 <= 16 << 20
    with pytest.raises(ValueError, match="read-only"):
        encoder.one("x")[0] = 5.0
    encoder.encode(["x"])[0][0] = 5.0
    assert encoder.one("x")[0] == pytest.approx(1 / 64)


def test_texts_that_are_none() -> None:
    """What is no text, or longer than can be compared, is refused before the model sees it; a lone surrogate is not."""
    encoder = encoder_of(plain)
    for wrong in (None, b"bytes", 7, ["a"]):
        with pytest.raises(EncoderError, match="text is needed"):
            encoder.one(wrong)  # type: ignore[arg-type]
    with pytest.raises(EncoderError, match="200001 characters"):
        encoder.one("x" * 200_001)
    assert encoder.one("\ud800").shape == (3,)


def test_loaded_on_first_use_and_once() -> None:
    """Nothing is loaded before a text comes; then once, however many threads ask."""
    loads: list[int] = []

    def load() -> Model:
        time.sleep(0.05)
        loads.append(threading.get_ident())
        return Model("slow/1", 3, plain)

    encoder = Encoder("slow", load)
    assert not loads
    with ThreadPoolExecutor(16) as pool:
        vectors = list(pool.map(lambda n: encoder.one(f"text {n % 5}"), range(200)))
    assert len(loads) == 1 and encoder.id == "slow/1 d3"
    assert all(np.array_equal(vectors[n], vectors[n % 5]) for n in range(200))


def test_a_model_that_cannot_be_loaded_is_not_tried_at_each_call() -> None:
    """The first failure is remembered and told again, named."""
    loads: list[int] = []

    def load() -> Model:
        loads.append(1)
        raise OSError("disk gone")

    encoder = Encoder("gone", load)
    for _ in range(3):
        with pytest.raises(EncoderError, match=r"encoder gone: cannot be loaded \(OSError\)"):
            encoder.one("x")
    assert len(loads) == 1


def made() -> Callable[[list[str]], Any]:
    def inner(texts: list[str]) -> Any:
        return plain(texts)

    return inner


class Remote:
    def __call__(self, texts: list[str]) -> Any:
        return plain(texts)

    def embed(self, texts: list[str]) -> Any:
        return plain(texts)


def test_a_callable_says_which_model_it_is() -> None:
    """A plain function is known by its name; a lambda, a closure, a method or an object needs one, for two of them
    may hold two models."""
    assert encoder_of(plain).id.endswith("test_embed.plain d3")
    for vague in (lambda texts: [[1.0, 0.0, 0.0]], made(), Remote(), Remote().embed):
        with pytest.raises(ConfigError, match="name="):
            encoder_of(vague)
        assert encoder_of(vague, name="remote/2").id == "remote/2 d3"
    with pytest.raises(ConfigError, match="printable"):
        encoder_of(plain, name="a\nb")


def test_what_is_no_encoder() -> None:
    """Anything but a callable, a name or nothing is refused at once, async functions with their mend."""

    async def later(texts: list[str]) -> Any:
        return plain(texts)

    for wrong in (7, [1.0], {"model": "x"}):
        with pytest.raises(ConfigError, match="give a callable"):
            encoder_of(wrong)
    with pytest.raises(ConfigError, match="async"):
        encoder_of(later, name="later")
    with pytest.raises(ConfigError, match="name a model"):
        encoder_of("")
    with pytest.raises(EncoderError, match="numbers"):
        encoder_of(functools.partial(lambda call, texts: call(texts), later), name="hidden").one("x")
    encoder = encoder_of(plain)
    assert encoder_of(encoder) is encoder


def test_a_missing_package_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra to install is named where the encoder is named, not at the first call."""
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    wanted = {None: "embed", "wordllama": "wordllama", "some/model": "sentence-transformers"}
    for what, extra in wanted.items():
        with pytest.raises(MissingExtra, match=rf"pip install 'costkit\[{extra}\]'"):
            encoder_of(what)
