"""costkit opens no socket: a full use with every socket refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent

# An audit hook hears of every socket, however it is made and whatever module is asked for it.
REFUSED = """
import sys
def refuse(event, args):
    # asyncio's loop wakes itself through a socket pair, which leaves the process by no door.
    if not event.startswith("socket."):
        return
    above = sys._getframe(1).f_back
    if event != "socket.__new__" or above is None or above.f_code.co_name != "socketpair":
        raise PermissionError(f"a socket: {event} {args}")
sys.addaudithook(refuse)
"""

FULL_USE = """
import asyncio, os, subprocess, sys, threading
import costkit
from costkit import tokens
folder = sys.argv[1]
os.environ["COSTKIT_SECRET"] = "no socket for this one"
kit = costkit.Kit(folder, prices={"m": costkit.Rates(1, 2)}, budget="100 USD/day")
SAID = {"id": "1", "object": "chat.completion", "created": 1, "model": "gpt-4o-mini",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hi"}}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}}

@kit.call(costkit.exact(ttl="1d", epoch="kb"), scope="tenant", budget="1 USD/day")
def ask(prompt, *, tenant, model="gpt-4o-mini", max_tokens=10):
    return SAID

@kit.call(costkit.exact(ttl="1d"), scope=None, max_cost="0.01 USD")
async def ask_async(prompt):
    await asyncio.sleep(0)
    costkit.record(model="gpt-4o", prompt=prompt, completion="x")
    return "x"

@kit.call(costkit.exact(ttl="1d"), scope=None, max_cost="0.01 USD")
def stream(prompt):
    yield "a"
    yield "b"

for _ in range(2):
    ask("q", tenant="acme")
    asyncio.run(ask_async("q"))
    list(stream("q"))
threads = [threading.Thread(target=ask, args=(f"q{i % 3}",), kwargs={"tenant": "acme"}) for i in range(9)]
[t.start() for t in threads], [t.join() for t in threads]
with kit.scope(tenant="acme", budget="0.5 USD"):
    query = ask.outcome("q2", tenant="acme").query_id
for model in ("gpt-4o", "claude-sonnet-4-5", "gemini-2.0-flash", "qwen3-8b"):
    tokens.estimate(model, [{"role": "user", "content": "how many tokens?"}], "these")
kit.prices.check("claude-sonnet-4-5", None)
kit.bump("kb")
kit.forget(tenant="acme")
assert kit.health() == dict.fromkeys(kit.health(), 0), kit.health()
kit.close()

from costkit import cli
for command in (["report"], ["why", query], ["doctor"], ["prices"], ["forget", "--scope", "tenant=acme", "--yes"]):
    command += ["--folder", folder]
    try:
        code = cli.main(command)
    except SystemExit as left:
        code = left.code
    assert code in (0, 1), (command, code)
print("USED", ask("again", tenant="acme") == SAID)
"""


def run(code: str, *args: str) -> subprocess.CompletedProcess[str]:
    """Python code in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-c", code, *args]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=110)


def test_no_socket_in_full_use(tmp_path: Path) -> None:
    """Calls of every kind, budgets, prices, token counts and the command line open no socket and look up no name."""
    done = run(REFUSED + FULL_USE, str(tmp_path / "kit"))
    assert done.returncode == 0 and "USED True" in done.stdout, done.stderr[-3000:]


def test_a_socket_would_be_noticed() -> None:
    """The hook refuses a plain socket, a name look-up, and urllib."""
    for use in (
        "import socket; socket.socket()",
        "import socket; socket.getaddrinfo('example.invalid', 80)",
        "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9/')",
    ):
        done = run(REFUSED + use)
        assert done.returncode != 0 and "a socket: socket." in done.stderr
