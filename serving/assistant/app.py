"""The assistant ready to ask, from the environment: what `costkit gold run` and a shell import.

`COSTKIT_DOCS` names the folder of articles (default: the help desk's), `OPENAI_BASE_URL` and `OPENAI_API_KEY` who is
asked (default: `make serve` on this machine), `COSTKIT_MODEL` the model. Its ledger and cache lie in `./.costkit`.
"""

from __future__ import annotations

import os
from pathlib import Path

import costkit
from serving.assistant.version import version_of
from serving.assistant.workflow import DEFAULT_MODEL, Answer, Assistant, connect
from serving.demo.servers import machine_prices

__all__ = ["ask", "kit"]

DOCS = Path(__file__).parent / "docs"
LOCAL = "http://127.0.0.1:8000/v1"

kit = costkit.Kit(os.environ.get("COSTKIT_FOLDER", "./.costkit"), prices=machine_prices())
_hosted = bool(os.environ.get("OPENAI_API_KEY"))
_model = os.environ.get("COSTKIT_MODEL") or DEFAULT_MODEL
_url = os.environ.get("OPENAI_BASE_URL") or (None if _hosted else LOCAL)
_docs = Path(os.environ.get("COSTKIT_DOCS", DOCS))
_complete = kit.call(scope=None, name="complete")(connect(_url))
_assistant = Assistant(_docs, _complete, model=_model)


@kit.call(costkit.exact(ttl="1d"), scope="tenant", version=version_of(_docs, _model, _url))
def ask(question: str, *, tenant: str = "default") -> Answer:
    """One answer of the assistant; identical questions of one tenant are answered from the cache."""
    answer = _assistant.ask(question, tenant=tenant)
    if not answer.model_called:
        costkit.record(free=True)
    return answer
