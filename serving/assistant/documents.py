"""Help articles on disk, and the passages and questions made of them.

An article is a Markdown or text file, with or without a few lines of front matter:

    ---
    id: kb-101
    title: How refunds work
    tenants: [acme, globex]     # or: all
    replaces: kb-100            # these tenants see this article in place of kb-100
    ---

A file without front matter is an article for everybody whose id is the file's name without its ending.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

KEYS = ("id", "title", "topic", "updated", "tenants", "replaces")
KINDS = ("answerable", "near_miss", "unanswerable", "no_retrieval")
MAX_WORDS = 110
MIN_WORDS = 50
DEFAULT_TENANT = "default"

_ID = re.compile(r"[A-Za-z0-9][\w.-]*")
_STOP = re.compile(r"(?:(?<=[.!?])|(?<=[.!?][\"'”’)]))\s+(?=[\"'“‘(]*[A-Z0-9$])")
_ABBREVIATION = re.compile(r"\b(?:e\.g|i\.e|etc|vs|approx|incl|cf|st|dr|mr|mrs|ltd|inc)\.$", re.I)
_ITEM = re.compile(r"\s*(?:[-*+]|\d+[.)])\s+(.*)")
_RULE = re.compile(r"\|?[\s:|-]*-{2,}[\s:|-]*\|?")


class ContentError(ValueError):
    """A document or question file is broken; the message names the file and the mend."""


@dataclass(frozen=True, slots=True)
class Article:
    """One help article. ``tenants`` is None where every tenant sees it; ``body`` is its Markdown."""

    id: str
    title: str
    body: str
    topic: str = ""
    updated: date | None = None
    tenants: tuple[str, ...] | None = None
    replaces: str | None = None
    file: str = ""


@dataclass(frozen=True, slots=True)
class Passage:
    """A few neighbouring sentences of one article; ``id`` is the article's id, ``#`` and a number from 1."""

    id: str
    article: str
    title: str
    heading: str
    sentences: tuple[str, ...]

    @property
    def text(self) -> str:
        """The sentences in their order, parted by one space."""
        return " ".join(self.sentences)


@dataclass(frozen=True, slots=True)
class Question:
    """One question of a traffic file; equal ``intent`` means the same right answer for that tenant."""

    id: str
    question: str
    tenant: str = DEFAULT_TENANT
    intent: str = ""
    kind: str = "answerable"
    sources: tuple[str, ...] = ()
    near: str | None = None


def load_documents(folder: Path | str) -> tuple[Article, ...]:
    """All ``.md`` and ``.txt`` articles below ``folder``, in the order of their ids.

    Raises ContentError for a missing or empty folder, front matter that cannot be read, an id used twice, or
    a ``replaces`` that fits no article.
    """
    root = Path(folder)
    if not root.is_dir():
        raise ContentError(f"{root}: no such folder of documents; give a folder of .md or .txt files")
    files = sorted(f for f in root.rglob("*") if f.suffix.lower() in {".md", ".txt"} and f.is_file())
    articles = [read_article(f) for f in files]
    if not articles:
        raise ContentError(f"{root}: holds no .md or .txt file; put at least one article there")
    _check(articles)
    return tuple(sorted(articles, key=lambda a: a.id))


def read_article(file: Path) -> Article:
    """The article in one file; raises ContentError naming the file and the line's key."""
    try:
        text = file.read_text("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise ContentError(f"{file.name}: not UTF-8 text at byte {error.start}; save it as UTF-8") from None
    fields: dict[str, str] = {}
    body = text
    if text.startswith("---\n"):
        head, mark, body = text[4:].partition("\n---\n")
        if not mark:
            raise ContentError(f"{file.name}: front matter is opened by --- and never closed; add a --- line")
        fields = dict(_front_matter(head, file.name))
    if not body.strip():
        raise ContentError(f"{file.name}: the article is empty; write its text or delete the file")
    return _article(file, fields, body.strip())


def _front_matter(head: str, name: str) -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    for line in head.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        key, colon, value = line.partition(":")
        key = key.strip()
        if not colon:
            raise ContentError(f"{name}: front matter line {line!r} is not 'key: value'")
        if key not in KEYS:
            near = difflib.get_close_matches(key, KEYS, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(KEYS)}"
            raise ContentError(f"{name}: unknown front matter key {key!r}; {hint}")
        if key in seen:
            raise ContentError(f"{name}: front matter key {key!r} stands twice; keep one")
        seen.add(key)
        yield key, re.sub(r"(^|\s)#.*$", "", value).strip().strip("\"'")


def _article(file: Path, fields: dict[str, str], body: str) -> Article:
    ident = fields.get("id") or re.sub(r"[^\w.-]+", "-", file.stem).strip("-.")
    if not _ID.fullmatch(ident):
        raise ContentError(f"{file.name}: id {ident!r} must be letters, digits, '.', '_' and '-' only")
    first = re.match(r"#\s+(.+)", body)
    title = fields.get("title") or (first[1].strip() if first else re.sub(r"[-_]+", " ", file.stem))
    updated = None
    if fields.get("updated"):
        try:
            updated = date.fromisoformat(fields["updated"])
        except ValueError:
            raise ContentError(f"{file.name}: updated must be a date such as 2026-03-02") from None
    return Article(
        id=ident,
        title=title,
        body=body,
        topic=fields.get("topic", ""),
        updated=updated,
        tenants=_tenants(fields.get("tenants", "all"), file.name),
        replaces=fields.get("replaces") or None,
        file=file.name,
    )


def _tenants(value: str, name: str) -> tuple[str, ...] | None:
    if value == "all":
        return None
    names = tuple(sorted({part.strip().strip("\"'") for part in value.strip("[]").split(",")} - {""}))
    if not (value.startswith("[") and value.endswith("]") and names and all(map(_ID.fullmatch, names))):
        raise ContentError(f"{name}: tenants {value!r} must be 'all' or a list such as [acme, globex]")
    return names


def _check(articles: Iterable[Article]) -> None:
    by_id: dict[str, Article] = {}
    for article in articles:
        if other := by_id.get(article.id):
            raise ContentError(f"{article.file}: id {article.id!r} is taken by {other.file}; ids must differ")
        by_id[article.id] = article
    taken: dict[tuple[str, str], str] = {}
    for article in by_id.values():
        if article.replaces is None:
            continue
        if article.tenants is None:
            raise ContentError(f"{article.file}: replaces needs a list of tenants")
        old = by_id.get(article.replaces)
        if old is None or old is article:
            raise ContentError(f"{article.file}: replaces {article.replaces!r}, which no other article has")
        for tenant in article.tenants:
            if old.tenants is not None and tenant not in old.tenants:
                raise ContentError(f"{article.file}: replaces {old.id!r}, which {tenant} does not see")
            if before := taken.get((tenant, old.id)):
                raise ContentError(f"{article.file}: {old.id!r} is already replaced for {tenant} by {before}")
            taken[tenant, old.id] = article.file


def tenants_of(articles: Iterable[Article]) -> tuple[str, ...]:
    """Every tenant named by an article, or ``("default",)`` where none is named."""
    named = {tenant for article in articles for tenant in article.tenants or ()}
    return tuple(sorted(named)) or (DEFAULT_TENANT,)


def visible(articles: Iterable[Article], tenant: str) -> tuple[Article, ...]:
    """What ``tenant`` may see: the common articles and its own, without those its own ones replace."""
    mine = [a for a in articles if a.tenants is None or tenant in a.tenants]
    hidden = {a.replaces for a in mine if a.replaces}
    return tuple(a for a in mine if a.id not in hidden)


def passages_of(article: Article, *, max_words: int = MAX_WORDS) -> tuple[Passage, ...]:
    """Cuts an article into passages of whole sentences, by section, none shared by two passages.

    A passage has at most ``max_words`` words unless one sentence alone is longer. A section of fewer than
    ``MIN_WORDS`` words goes on in the passage of the section before it, if there is room.

    >>> [p.id for p in passages_of(Article("kb-1", "Trash", "One. Two.\\n## Later\\n" + "Word. " * 120))]
    ['kb-1#1', 'kb-1#2']
    """
    groups: list[tuple[str, list[str]]] = []
    for heading, sentences in _sections(article.body):
        for part in _split(sentences, max_words):
            words, before = _words(part), _words(groups[-1][1]) if groups else max_words
            if min(words, before) < MIN_WORDS and words + before <= max_words:
                groups[-1][1].extend(part)
            else:
                groups.append((heading, part))
    return tuple(
        Passage(f"{article.id}#{n}", article.id, article.title, heading, tuple(sentences))
        for n, (heading, sentences) in enumerate(groups, 1)
    )


def _words(sentences: Iterable[str]) -> int:
    return sum(len(s.split()) for s in sentences)


def _split(sentences: list[str], max_words: int) -> Iterator[list[str]]:
    """Parts of about equal length, so that no section ends in a passage of one stray sentence."""
    total = _words(sentences)
    parts = -(-total // max_words) or 1
    part: list[str] = []
    for sentence in sentences:
        if part and (_words([*part, sentence]) > max_words or _words(part) >= total / parts):
            yield part
            part = []
        part.append(sentence)
    if part:
        yield part


def _sections(body: str) -> Iterator[tuple[str, list[str]]]:
    heading, lines = "", list[str]()
    for line in [*body.splitlines(), "## "]:
        if re.match(r"#{1,6}\s", line):
            if sentences := list(_sentences(lines)):
                yield heading, sentences
            heading, lines = line.lstrip("#").strip(), []
        else:
            lines.append(line)


def _sentences(lines: Iterable[str]) -> Iterator[str]:
    """Sentences of prose, list items and table rows; a row is told with its column names."""
    paragraph: list[str] = []
    header: list[str] = []
    for line in [*lines, ""]:
        item = _ITEM.match(line)
        row = line.strip().startswith("|")
        if (item or row or not line.strip()) and paragraph:
            yield from split_sentences(" ".join(paragraph))
            paragraph = []
        if row and not _RULE.fullmatch(line.strip()):
            cells = [plain(cell) for cell in line.strip().strip("|").split("|")]
            if header:
                yield "; ".join(f"{h}: {c}" if h else c for h, c in zip(header, cells, strict=False)) + "."
            else:
                header = cells
        elif not row:
            header = []
            if text := (item[1] if item else line).strip():
                paragraph.append(text)


def plain(markdown: str) -> str:
    """Markdown of one line without its marks: links to their text, no emphasis, no code quotes.

    >>> plain("See **[Trash](kb-2.md)**, `Settings`")
    'See Trash, Settings'
    """
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", markdown)
    text = re.sub(r"\*\*|__|`|(?<![\w*])\*(?=\S)|(?<=\S)\*(?![\w*])|^>\s*", "", text)
    return " ".join(text.split())


def split_sentences(text: str) -> list[str]:
    """Splits prose at full stops, question and exclamation marks, not within numbers or after "e.g.".

    >>> split_sentences("Version 7.4 costs $9.50, e.g. on Team. It is out! (See kb-3.)")
    ['Version 7.4 costs $9.50, e.g. on Team.', 'It is out!', '(See kb-3.)']
    """
    parts: list[str] = []
    for part in _STOP.split(plain(text)):
        if parts and _ABBREVIATION.search(parts[-1]):
            parts[-1] += " " + part
        else:
            parts.append(part)
    return [p for p in parts if p]


def load_questions(path: Path | str) -> tuple[Question, ...]:
    """The questions of a ``.jsonl`` file, or of every one in a folder in the order of the file names.

    Only ``question`` is needed on a line; ``id`` defaults to the file's name and line number. Raises
    ContentError naming the file and line.
    """
    root = Path(path)
    files = sorted(root.glob("*.jsonl")) if root.is_dir() else [root]
    if not files or not all(f.is_file() for f in files):
        raise ContentError(f"{root}: no question file; give a .jsonl file or a folder of them")
    questions: dict[str, Question] = {}
    for file in files:
        for number, line in enumerate(file.read_text("utf-8").splitlines(), 1):
            if not line.strip():
                continue
            question = _question(line, f"{file.name} line {number}", f"{file.stem}-{number}")
            if question.id in questions:
                raise ContentError(f"{file.name} line {number}: id {question.id!r} is taken; ids must differ")
            questions[question.id] = question
    return tuple(questions.values())


def _question(line: str, where: str, ident: str) -> Question:
    try:
        row: Any = json.loads(line)
    except ValueError as error:
        raise ContentError(f"{where}: not JSON ({error})") from None
    if not isinstance(row, dict):
        raise ContentError(f'{where}: must be a JSON object such as {{"question": "..."}}')
    known = Question.__dataclass_fields__
    for key, value in row.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            raise ContentError(f"{where}: unknown key {key!r}; known are {', '.join(near or known)}")
        if key != "sources" and not isinstance(value, str) and not (key == "near" and value is None):
            raise ContentError(f"{where}: {key} must be text, not {type(value).__name__}")
    sources = row.get("sources", [])
    if not isinstance(sources, list) or not all(isinstance(s, str) for s in sources):
        raise ContentError(f"{where}: sources must be a list of article ids")
    question = Question(**{"id": ident, "question": "", **row, "sources": tuple(sources)})
    if not question.question.strip():
        raise ContentError(f"{where}: question is empty; write the question or delete the line")
    if question.kind not in KINDS:
        raise ContentError(f"{where}: kind {question.kind!r} must be one of {', '.join(KINDS)}")
    return question
