"""The help desk that ships with the assistant: articles, questions, gold tests, and their requests."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from costkit.gold import judge, load_gold
from serving.assistant.documents import KINDS, load_documents, load_questions, passages_of, visible
from serving.assistant.workflow import Answer, Assistant, small_talk

HOME = Path(__file__).parents[2] / "serving" / "assistant"
ARTICLES = load_documents(HOME / "docs")
QUESTIONS = load_questions(HOME / "questions")
GOLD = load_gold(HOME / "gold")
SHIPPED = Assistant(HOME / "docs", lambda *_a, **_k: None, model="m")


def test_the_shipped_folder_is_as_large_as_promised() -> None:
    """At least 60 articles, 800 questions, 80 gold tests, three tenants whose documents differ."""
    assert len(ARTICLES) >= 60 and len(QUESTIONS) >= 800 and len(GOLD) >= 80
    assert SHIPPED.tenants == ("acme", "meridian", "northwind")
    assert len({tuple(a.id for a in visible(ARTICLES, t)) for t in SHIPPED.tenants}) == 3
    lengths = sorted(len(a.body.split()) for a in ARTICLES)
    assert lengths[0] >= 100 and lengths[len(lengths) // 2] >= 280


def test_shipped_articles_are_complete_and_refer_to_articles_that_exist() -> None:
    """Every article has a topic and a date, and every id it mentions is an article's."""
    ids = {a.id for a in ARTICLES}
    for article in ARTICLES:
        assert article.topic and article.updated, article.file
        named = set(re.findall(r"\b(?:kb|ac|nw|mh)-\d{3}\b", article.body))
        assert named <= ids, (article.file, named - ids)


def test_shipped_questions_have_sources_their_tenant_sees() -> None:
    """What documents answer names visible sources, the rest none; intents have several phrasings."""
    seen = {tenant: {a.id for a in visible(ARTICLES, tenant)} for tenant in SHIPPED.tenants}
    for question in QUESTIONS:
        assert question.tenant in seen, question.id
        assert set(question.sources) <= seen[question.tenant], question.id
        assert bool(question.sources) is (question.kind in ("answerable", "near_miss")), question.id
    kinds = {kind: sum(q.kind == kind for q in QUESTIONS) for kind in KINDS}
    assert all(count >= 40 for count in kinds.values()), kinds
    intents = [q.intent for q in QUESTIONS if q.sources]
    assert len(intents) / len(set(intents)) >= 3


def test_shipped_gold_tests_ask_shipped_questions_with_visible_sources() -> None:
    """Each gold question is one of the questions, and cites and sources are articles its tenant sees."""
    asked = {(q.question, q.tenant) for q in QUESTIONS}
    for test in GOLD:
        tenant = test.args["tenant"]
        assert (test.question, tenant) in asked, test.where
        seen = {a.id for a in visible(ARTICLES, tenant)}
        assert {*test.sources, *test.cite} <= seen, test.where


def test_shipped_gold_facts_stand_in_one_sentence_of_a_cited_article() -> None:
    """What a gold test wants is said by one sentence of an article it accepts, so a quote can be right."""
    sentences = {a.id: [s for p in passages_of(a) for s in p.sentences] for a in ARTICLES}
    hopeless = [
        test.where
        for test in GOLD
        if test.cite
        and not any(
            judge(test, Answer(s, (ident,), s, True)).kind == "right"
            for ident in test.cite
            for s in sentences[ident]
        )
    ]
    assert len(hopeless) <= len(GOLD) * 0.02, hopeless


def test_shipped_requests_stay_small() -> None:
    """Every request body is under 6 kB and offers at most four sentences and the refusal."""
    for question in QUESTIONS:
        if body := SHIPPED.request(question.question, question.tenant):
            enum = body["response_format"]["json_schema"]["schema"]["properties"]["quote"]["enum"]
            assert len(json.dumps(body)) < 6000 and 2 <= len(enum) <= 5, question.id


def test_retrieval_finds_a_source_for_nine_in_ten() -> None:
    """Recall@3 over the shipped answerable and near-miss questions is above 0.9."""
    wanted = [q for q in QUESTIONS if q.sources]
    hits = sum(
        bool({p.article for p in SHIPPED.retrieve(q.question, q.tenant)} & set(q.sources)) for q in wanted
    )
    assert hits / len(wanted) > 0.9


def test_shipped_small_talk_rules_take_no_real_question() -> None:
    """No question that documents answer is taken for small talk, and most small talk is."""
    talk = [q for q in QUESTIONS if small_talk(q.question)]
    assert [q.question for q in talk if q.kind != "no_retrieval"] == []
    assert len(talk) >= 0.75 * sum(q.kind == "no_retrieval" for q in QUESTIONS)


def test_requests_do_not_depend_on_the_hash_seed() -> None:
    """Another process with another hash seed builds the same bytes, so recorded answers fit."""
    program = (
        "import hashlib, json, sys\n"
        "from serving.assistant.documents import load_questions\n"
        "from serving.assistant.workflow import Assistant\n"
        "home = sys.argv[1]\n"
        "a = Assistant(home + '/docs', None, model='m')\n"
        "bodies = [a.request(q.question, q.tenant) for q in load_questions(home + '/questions')[::4]]\n"
        "print(hashlib.sha256(json.dumps(bodies).encode()).hexdigest())\n"
    )
    digests = set()
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", program, str(HOME)],
            cwd=HOME.parents[1],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            timeout=100,
            check=True,
        )
        digests.add(done.stdout)
    assert len(digests) == 1 and digests.pop().strip()
