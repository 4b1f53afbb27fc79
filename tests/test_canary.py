"""A key, an e-mail address and a card number put through every path: where they may not come out, they do not."""

from __future__ import annotations

import base64
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# In what callers ask with: nowhere in the folder. In what a model answers: in the cache alone, whose job it is.
ASKED = ("sk-canary0asked0key0", "canary.asked@example.com", "4000001234567899")
ANSWERED = ("sk-canary0answered0", "canary.answered@example.org", "5100009876543210")

EVERY_PATH = '''
import asyncio, contextlib, dataclasses, json, logging, os, sys, traceback, warnings
import openai, costkit
try: import httpx2 as httpx
except ImportError: import httpx
from costkit.errors import CostkitError, ConfigError

os.umask(0)
logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
for name in (httpx.__name__, "openai"):  # other packages' logs are their own
    logging.getLogger(name).setLevel(logging.WARNING)
warnings.simplefilter("always")
folder, labels, asked, answered = sys.argv[1], sys.argv[2] == "labels", sys.argv[3].split("|"), sys.argv[4].split("|")
ASKED, ANSWERED = " ".join(asked), " ".join(answered)
WHO = "acme" if labels else asked[1]
RATES = {"m": costkit.Rates(1, 2)}
kit = costkit.Kit(folder, prices=RATES, scope_labels=labels, secret="canary seals are 16 bytes")
told = []

def own(error):
    """What costkit itself says must be clean; the function's own exception is the caller's affair."""
    if isinstance(error, CostkitError):
        told.append("".join(traceback.format_exception(error)) + repr(error) + str(error.args))

@contextlib.contextmanager
def expected(*kinds):
    try:
        yield
    except BaseException as error:
        own(error)
        assert isinstance(error, kinds), repr(error)
    else:
        raise AssertionError(f"nothing raised, {kinds} expected")

class Opaque:
    def __repr__(self): return ASKED

@dataclasses.dataclass
class Odd:
    text: str
    def __post_init__(self): self.more = ASKED

RESPONSE = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [
    {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": ANSWERED}}],
    "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}}
TENANT = dict(scope="tenant", provider=None)

@kit.call(costkit.exact(ttl="1d"), scope="tenant", max_cost="0.01 USD")
def ask(prompt, messages=(), *, tenant, model="m", how="answer", thing=None):
    if how == "raise":
        raise ValueError(ASKED)
    if how == "sdk":
        request = httpx.Request("POST", "https://example.com/v1", headers={"authorization": ASKED})
        raise openai.AuthenticationError(ASKED, response=httpx.Response(401, request=request, text=ASKED), body=ASKED)
    if how == "record":
        costkit.record(model="m", prompt=ASKED, completion=ANSWERED)
    if how == "usage":
        costkit.record({**RESPONSE, "usage": {"prompt_tokens": 10, "prompt_tokens_details": {"cached_tokens": 99},
                                              "completion_tokens": 1}})
    if how == "odd":
        return Odd(ANSWERED)
    if how == "opaque":
        return Opaque()
    if how == "surrogate":
        return {"x": ASKED + "\\ud800", "y": Opaque()}
    return RESPONSE

@kit.call(costkit.exact(ttl="1d"), scope="tenant")
async def ask_async(prompt, *, tenant, how="answer"):
    await asyncio.sleep(0)
    if how == "raise":
        raise ValueError(ASKED)
    if how == "hang":
        await asyncio.sleep(60)
    return RESPONSE

CHUNK = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m",
         "choices": [{"index": 0, "delta": {"content": ANSWERED}, "finish_reason": None}]}

@kit.call(costkit.exact(ttl="1d"), scope="tenant")
def stream(prompt, *, tenant, how="answer"):
    yield CHUNK
    if how == "raise":
        raise ValueError(ASKED)
    yield {**CHUNK, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}

@kit.call(costkit.exact(ttl="1d"), scope="tenant")
async def stream_async(prompt, *, tenant, how="answer"):
    yield CHUNK
    if how == "hang":
        await asyncio.sleep(60)
    yield {**CHUNK, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}

@kit.call(scope="tenant")
def outer(prompt, *, tenant):
    return ask("inner " + prompt, tenant=tenant)

MESSAGES = [{"role": "system", "content": ASKED}, {"role": "user", "content": [{"type": "text", "text": ASKED}]}]
for how in ("answer", "answer", "record", "usage", "odd", "opaque", "surrogate"):
    shown = repr(ask.outcome(ASKED, MESSAGES, tenant=WHO, how=how).query_id)
    told.append(shown)
for how in ("raise", "sdk"):
    with expected(ValueError, openai.AuthenticationError):
        ask(ASKED, MESSAGES, tenant=WHO, how=how)
outer(ASKED, tenant=WHO)
with costkit.reference():
    ask(ASKED, tenant=WHO)
for bad in (Opaque(), {asked[2]: Opaque()}, [{asked[1]: {asked[0]: Opaque()}}], (ASKED, Opaque())):
    with expected(costkit.errors.UnkeyableArgument):
        ask(ASKED, bad, tenant=WHO)
with expected(costkit.errors.ScopeError):
    ask(ASKED, tenant=None)
with expected(TypeError):
    ask(ASKED, nonsense=1)

async def asynchronous():
    await ask_async(ASKED, tenant=WHO)
    with expected(ValueError):
        await ask_async(ASKED, tenant=WHO, how="raise")
    task = asyncio.create_task(ask_async(ASKED, tenant=WHO, how="hang"))
    await asyncio.sleep(0.05)
    task.cancel()
    with expected(asyncio.CancelledError):
        await task
    [c async for c in stream_async(ASKED, tenant=WHO)]
    left = stream_async(ASKED, tenant=WHO, how="hang")
    await anext(left)
    await left.aclose()
asyncio.run(asynchronous())

list(stream(ASKED, tenant=WHO)); list(stream(ASKED, tenant=WHO))
left = stream.outcome(ASKED + "left", tenant=WHO)
next(left)
left.close()
with expected(ValueError):
    list(stream(ASKED, tenant=WHO, how="raise"))

def server(request):
    if b"refuse" in request.content:
        said = {"error": {"message": "Incorrect API key provided: " + ASKED, "type": "x", "code": ASKED}}
        return httpx.Response(401, json=said, headers={"x-echo": ASKED})
    if b'"stream":true' in request.content.replace(b" ", b""):
        lines = [{**CHUNK, "choices": [{"index": 0, "delta": {"content": ANSWERED}, "finish_reason": "stop"}]}]
        text = "".join(f"data: {json.dumps(line)}" + chr(10) * 2 for line in lines) + "data: [DONE]" + chr(10) * 2
        return httpx.Response(200, text=text, headers={"content-type": "text/event-stream", "set-cookie": ASKED})
    return httpx.Response(200, json=RESPONSE, headers={"set-cookie": ASKED})

plain = openai.OpenAI(api_key=asked[0], organization=asked[1], base_url="https://example.com/v1",
                      default_headers={"x-mine": asked[2]},
                      http_client=httpx.Client(transport=httpx.MockTransport(server)))
client = kit.wrap(plain, costkit.exact(ttl="1d"), scope="tenant")
with kit.scope(tenant=WHO):
    for _ in range(2):
        client.chat.completions.create(model="m", messages=MESSAGES, user=asked[1], max_tokens=10)
        list(client.chat.completions.create(model="m", messages=MESSAGES, max_tokens=10, stream=True))
    left = client.chat.completions.create(model="m", messages=MESSAGES, max_tokens=11, stream=True)
    left.close()
    with expected(openai.AuthenticationError):
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": "refuse"}])
    with expected(openai.AuthenticationError, CostkitError):
        with kit.scope(budget="0.0000001 USD"):
            client.chat.completions.create(model="m", messages=MESSAGES, max_tokens=10_000)
told.append(repr(client.chat.completions) if asked[0] not in repr(plain) else "")

@kit.call(scope="tenant", budget=["0.000001 USD", "1 USD/day"])
def dear(prompt, *, tenant, model="m", max_tokens=100_000):
    return RESPONSE
with expected(CostkitError):
    dear(ASKED, tenant=WHO)
with expected(CostkitError):
    dear(ASKED, tenant=WHO, max_tokens=None)
with kit.scope(tenant=WHO, budget=["0.5 USD", "5 USD/day"]):
    ask("within " + ASKED, tenant=WHO)

with expected(ConfigError):
    costkit.Kit(folder + "-2", secret="sk-short")
kit.bump("handbook")
told += [repr(kit), repr(ask), repr(kit.health()), repr(vars(kit)["_store"]), repr(ask.outcome(ASKED, tenant=WHO).cost)]
con = kit.ledger()
for table in ("queries", "attempts", "budgets", "query_costs", "savings", "daily"):
    told.append(repr([tuple(row) for row in con.execute(f"SELECT * FROM {table}")]))
calls = con.execute("SELECT COUNT(*) FROM queries").fetchone()[0]
con.close()
kit._ledger.flush()
print(chr(10).join(told))
print("CALLS", calls)
sys.stdout.flush()
os._exit(0)  # as a crash leaves it: the log files are searched too
'''


def hidden(data: bytes, canaries: tuple[str, ...]) -> list[str]:
    """The canaries in these bytes, as text, UTF-16 or base64."""
    found = []
    for canary in canaries:
        raw = canary.encode()
        forms = [raw, canary.encode("utf-16-le"), base64.b64encode(raw)[:-4]]
        found += [canary for form in forms if form in data]
    return found


def everything(folder: Path) -> dict[str, bytes]:
    """Every file of the folder, by its relative name."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("labels", ["labels", "digests"])
def test_no_canary_comes_out(tmp_path: Path, labels: str) -> None:
    """Neither the ledger, epochs, leases, file names, output, warnings, logs, errors nor reprs show one; the cache
    holds answers and nothing of what was asked; and all of it is private under umask 000."""
    folder = tmp_path / "kit"
    done = subprocess.run(
        [sys.executable, "-c", EVERY_PATH, str(folder), labels, "|".join(ASKED), "|".join(ANSWERED)],
        capture_output=True, cwd=ROOT, timeout=100,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    assert int(done.stdout.split(b"CALLS")[1]) >= 20, "the paths were really taken"
    for name, stream in (("stdout", done.stdout), ("stderr", done.stderr)):
        for canary in (*ASKED, *ANSWERED, "canary seals", "sk-short"):
            at = stream.find(canary.encode())
            assert at < 0, f"{name}: ...{stream[max(0, at - 300) : at + 100].decode(errors='replace')}"
    files = everything(folder)
    assert {
        "ledger.db",
        "ledger.db-wal",
        "cache/cache.db",
        "cache/cache.db-wal",
        "epochs.json",
    } <= files.keys()
    found = {}
    for name, data in files.items():
        allowed = ANSWERED if name.startswith("cache/") else ()
        bad = [
            c for c in hidden(data + name.encode(), (*ASKED, *ANSWERED, "canary seals")) if c not in allowed
        ]
        if bad:
            found[name] = bad
    assert found == {}
    assert hidden(b"".join(d for n, d in files.items() if n.startswith("cache/")), ANSWERED), (
        "answers are cached"
    )
    modes = {
        str(p.relative_to(tmp_path)): stat.S_IMODE(p.stat().st_mode) for p in [folder, *folder.rglob("*")]
    }
    assert {n: oct(m) for n, m in modes.items() if m != (0o700 if (tmp_path / n).is_dir() else 0o600)} == {}


def test_the_search_finds_what_it_looks_for(tmp_path: Path) -> None:
    """With store_text the ledger does hold what was asked, and the search says so."""
    code = (
        "import costkit, sys; kit = costkit.Kit(sys.argv[1], store_text=True)\n"
        "kit.call(costkit.exact(), scope=None)(lambda q: 'x')(sys.argv[2]); kit.close()"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "kit"), " ".join(ASKED)], check=True, cwd=ROOT)
    files = everything(tmp_path / "kit")
    assert hidden(files["ledger.db"], ASKED) == list(ASKED)
    assert hidden(base64.b64encode(ASKED[0].encode()), ASKED) == [ASKED[0]]


def test_what_is_forgotten_is_gone_from_the_disk(tmp_path: Path) -> None:
    """After kit.forget() no byte of the scope's answers is left in the cache's files, nor in one set aside."""
    code = """if True:
        import costkit, os, sys
        kit = costkit.Kit(sys.argv[1])
        @kit.call(costkit.exact(), scope="tenant")
        def ask(i, *, tenant): return (sys.argv[2] if tenant == "acme" else "kept ") * 300
        for i in range(40):
            ask(i, tenant="acme"); ask(i, tenant="globex")
        kit.close()
        data = open(sys.argv[1] + "/cache/cache.db", "rb").read()
        assert sys.argv[2].encode() in data
        os.mkdir(sys.argv[1] + "/cache.damaged-1", 0o700)
        open(sys.argv[1] + "/cache.damaged-1/cache.db", "wb").write(data)
        kit = costkit.Kit(sys.argv[1])
        assert kit.forget(tenant="acme") == 40
        os._exit(0)
    """
    folder = tmp_path / "kit"
    subprocess.run([sys.executable, "-c", code, str(folder), ANSWERED[0]], check=True, cwd=ROOT, timeout=60)
    left = {name: data for name, data in everything(folder).items() if name.startswith("cache")}
    assert not hidden(b"".join(left.values()), ANSWERED)
    assert b"kept kept" in left["cache/cache.db"]


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
def test_private_under_any_umask(tmp_path: Path, umask: int) -> None:
    """Folders 0700 and files 0600 after real use, set-aside files and folders made on the way included."""
    code = """if True:
        import os, sys, warnings
        warnings.simplefilter("ignore")
        os.umask(int(sys.argv[2]))
        import costkit
        def use(**more):
            kit = costkit.Kit(sys.argv[1], **more)
            @kit.call(costkit.exact(ttl="1d"), scope="tenant", max_cost=0)
            def ask(i, *, tenant):
                costkit.record(free=True)
                return "x" * 9000
            for i in range(20): ask(i, tenant="a")
            kit.bump("kb"); kit.forget(tenant="b")
            return kit
        use().close()
        open(sys.argv[1] + "/cache/cache.db", "r+b").write(b"not a database" * 100)
        use(budget="1 USD/day")
        os._exit(0)
    """
    folder = tmp_path / "on" / "the" / "way" / "kit"
    subprocess.run([sys.executable, "-c", code, str(folder), str(umask)], check=True, cwd=ROOT, timeout=60)
    found = {
        str(p.relative_to(tmp_path)): (p.is_dir(), stat.S_IMODE(p.stat().st_mode))
        for p in tmp_path.rglob("*")
    }
    assert len(found) > 10
    assert {n: oct(m) for n, (folder, m) in found.items() if m != (0o700 if folder else 0o600)} == {}
