"""The secret: where it comes from, what is refused, and the seals made with it."""

from __future__ import annotations

import copy
import fcntl
import os
import stat
import traceback
from pathlib import Path

import pytest

from costkit import Kit, exact
from costkit.epochs import Epochs
from costkit.errors import ConfigError, FolderError
from costkit.secret import Seal, find, make

SECRET = "the-house-secret-1"
OTHER = b"some-other-secret-2"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COSTKIT_SECRET", "COSTKIT_SECRET_FILE"):
        monkeypatch.delenv(name, raising=False)


def written(path: Path, text: str = SECRET + "\n", mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_found_where_it_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the argument, the file, or the environment, in that order; an empty one is none."""
    kit = tmp_path / "kit"
    assert find(None, None, kit) is None and find("", None, kit) is None
    assert find(SECRET, None, kit) == find(SECRET.encode(), None, kit) == SECRET.encode()
    file = written(tmp_path / "secret")
    assert find(None, file, kit) == find(None, str(file), kit) == SECRET.encode()
    monkeypatch.setenv("COSTKIT_SECRET_FILE", str(file))
    assert find(None, None, kit) == SECRET.encode()
    monkeypatch.setenv("COSTKIT_SECRET_FILE", "")
    monkeypatch.setenv("COSTKIT_SECRET", "from-the-environment")
    assert find(None, None, kit) == b"from-the-environment"
    assert find(None, file, kit) == SECRET.encode()


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n"])
def test_a_trailing_newline_is_no_part_of_it(tmp_path: Path, end: str) -> None:
    """An editor's newline changes nothing."""
    assert find(None, written(tmp_path / "s", SECRET + end), tmp_path / "kit") == SECRET.encode()


def test_given_twice_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which of two secrets counts is never guessed."""
    file = written(tmp_path / "s")
    with pytest.raises(ConfigError, match="give one of the two"):
        find(SECRET, file, tmp_path / "kit")
    monkeypatch.setenv("COSTKIT_SECRET", SECRET)
    monkeypatch.setenv("COSTKIT_SECRET_FILE", str(file))
    with pytest.raises(ConfigError, match="unset one of the two"):
        find(None, None, tmp_path / "kit")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o644, 0o610, 0o666])
def test_a_file_that_others_may_open_is_refused(tmp_path: Path, mode: int) -> None:
    """Any bit for group or others is an error that names the mend, which works."""
    file = written(tmp_path / "s", mode=mode)
    with pytest.raises(ConfigError, match=f"chmod 600 {file}"):
        find(None, file, tmp_path / "kit")
    file.chmod(0o600)
    assert find(None, file, tmp_path / "kit") == SECRET.encode()


def test_what_is_no_plain_file_is_refused(tmp_path: Path) -> None:
    """A link, a folder, a pipe (without waiting for it), a missing or an endless file are errors that name it."""
    real, kit = written(tmp_path / "real"), tmp_path / "kit"
    (tmp_path / "link").symlink_to(real)
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe", 0o600)
    written(tmp_path / "long", "x" * 5000)
    said = {
        "link": "link",
        "folder": "plain file",
        "pipe": "plain file",
        "long": "at most 4096",
        "no": "No such",
    }
    for name, what in said.items():
        with pytest.raises(ConfigError, match=what) as caught:
            find(None, tmp_path / name, kit)
        assert str(tmp_path / name) in str(caught.value)


def test_a_file_inside_the_kits_folder_is_refused(tmp_path: Path) -> None:
    """Beside the answers it seals it would protect nothing, whatever road the path takes there."""
    kit = tmp_path / "kit"
    (kit / "below").mkdir(parents=True)
    (tmp_path / "other").symlink_to(kit)
    for path in (kit / "s", kit / "below" / "s", tmp_path / "other" / "s", kit / ".." / "kit" / "s"):
        written(path)
        with pytest.raises(ConfigError, match="inside the kit's folder"):
            find(None, path, kit)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a file of another user's")
def test_another_users_file_is_refused(tmp_path: Path) -> None:
    """Who owns the file knows the secret and can change it."""
    file = written(tmp_path / "s")
    os.chown(file, 12345, 12345)
    with pytest.raises(ConfigError, match="belongs to another user"):
        find(None, file, tmp_path / "kit")


def test_a_short_secret_is_refused_unshown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under 16 bytes is an error, wherever it stands, and neither message nor traceback shows it."""
    short = "hunter2-hunter2"
    file = written(tmp_path / "s", short + "\n")
    monkeypatch.setenv("COSTKIT_SECRET", short)
    for given, path in ((short, None), (None, file), (None, None)):
        with pytest.raises(ConfigError, match="at least 16 bytes") as caught:
            find(given, path, tmp_path / "kit")
        told = "".join(traceback.format_exception(caught.value))
        assert "hunter2" not in told.replace("short = ", "")
    with pytest.raises(ConfigError, match="not valid text"):
        find("\ud800" * 20, None, tmp_path / "kit")
    with pytest.raises(ConfigError, match="text or bytes"):
        find(1234567890123456, None, tmp_path / "kit")  # type: ignore[arg-type]


def test_made_private_and_never_over_another(tmp_path: Path) -> None:
    """A made file is 0600 under any umask, differs each time, is accepted, and replaces nothing."""
    before = os.umask(0)
    try:
        one, two = make(tmp_path / "one"), make(tmp_path / "two")
    finally:
        os.umask(before)
    assert stat.S_IMODE(one.stat().st_mode) == 0o600 and one.read_bytes() != two.read_bytes()
    assert find(None, one, tmp_path / "kit") == one.read_bytes().strip() and len(one.read_bytes()) == 65
    (tmp_path / "dangling").symlink_to(tmp_path / "elsewhere")
    for path in (one, tmp_path / "dangling"):
        with pytest.raises(ConfigError, match="exists already"):
            make(path)
    assert not (tmp_path / "elsewhere").exists()
    with pytest.raises(ConfigError, match="name a file in a folder"):
        make(tmp_path / "no" / "such")


def test_a_seal_is_for_one_purpose_and_one_text() -> None:
    """A mark fits its own parts under its own secret and purpose, and nothing else."""
    parts = (b"scope", b"key", b"body")
    marks = {
        Seal(secret, purpose).mark(*parts)
        for secret in (None, SECRET.encode(), OTHER)
        for purpose in ("entry", "epochs")
    }
    assert len(marks) == 6 and {len(mark) for mark in marks} == {Seal.SIZE}
    seal = Seal(SECRET.encode(), "entry")
    assert sum(seal.fits(mark, *parts) for mark in marks) == 1
    mark = seal.mark(*parts)
    for i in range(len(mark) * 8):
        flipped = bytearray(mark)
        flipped[i // 8] ^= 1 << i % 8
        assert not seal.fits(bytes(flipped), *parts)
    assert not seal.fits(b"", *parts) and not seal.fits(mark, b"scopek", b"ey", b"body")
    assert not seal.fits(mark, *parts, b"")


def test_a_seal_shows_no_key() -> None:
    """Neither the secret nor the derived key is in a seal's repr."""
    seal = Seal(SECRET.encode(), "entry")
    assert repr(seal) == str(seal) == "<Seal for entry, with a secret>"
    assert repr(Seal(None, "entry")) == "<Seal for entry, without a secret>"
    assert copy.copy(seal).mark(b"x") == seal.mark(b"x") != SECRET.encode()


def tampered(path: Path, secret: bytes | None) -> None:
    """What somebody without the secret would do to bring bumped answers back."""
    text = path.read_text().replace('\\"kb\\": 2', '\\"kb\\": 1')
    assert text != path.read_text()
    path.write_text(text)


def test_forged_epochs_bring_nothing_back(tmp_path: Path) -> None:
    """A count set back by hand, under any seal but the right one, is a new identity: all misses, counted."""
    secret = SECRET.encode()
    epochs = Epochs(tmp_path, secret=secret)
    seen = set()
    for _ in range(2):
        epochs.bump("kb")
        seen.add(epochs.state(("kb",)))
    path = tmp_path / "epochs.json"
    whole = path.read_text()
    tampered(path, secret)
    again = Epochs(tmp_path, secret=secret)
    assert again.state(("kb",)) not in seen and again.troubles == {"damaged": 1}
    for forger in (None, OTHER):
        path.write_text(whole)
        forged = Epochs(tmp_path, secret=forger)
        forged.bump("kb")
        fresh = Epochs(tmp_path, secret=secret)
        assert fresh.state(("kb",)) not in seen and fresh.troubles == {"damaged": 1}
        seen.add(fresh.state(("kb",)))


def test_a_reader_without_the_secret_disturbs_nobody(tmp_path: Path) -> None:
    """A kit opened without the secret (a report, say) reads sealed epochs and leaves them as they are."""
    epochs = Epochs(tmp_path, secret=SECRET.encode())
    epochs.bump("kb")
    whole = (tmp_path / "epochs.json").read_bytes()
    plain = Epochs(tmp_path)
    assert plain.state(("kb",)) == epochs.state(("kb",)) and plain.troubles == {"damaged": 0}
    assert (tmp_path / "epochs.json").read_bytes() == whole


@pytest.mark.parametrize("secret", [None, SECRET.encode()], ids=["checksum", "secret"])
def test_an_older_copy_is_noticed_while_running(tmp_path: Path, secret: bytes | None) -> None:
    """A whole, well sealed copy from before a bump does not bring back what the running process bumped away."""
    epochs = Epochs(tmp_path, secret=secret)
    epochs.bump("kb")
    seen, path = {epochs.state(("kb",))}, tmp_path / "epochs.json"
    old = path.read_bytes()
    epochs.bump("kb")
    seen.add(epochs.state(("kb",)))
    path.write_bytes(old)
    epochs.refresh()
    assert epochs.state(("kb",)) not in seen and epochs.troubles == {"damaged": 1}


def test_a_bump_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    """Nothing is said to be bumped that is not, and what was bumped before stays so."""
    epochs = Epochs(tmp_path)
    epochs.bump("kb")
    state = epochs.state(("kb",))
    (tmp_path / "epochs.new").mkdir()
    with pytest.raises(FolderError, match=r"epochs\.new"):
        epochs.bump("kb")
    assert epochs.state(("kb",)) == state == Epochs(tmp_path).state(("kb",))
    (tmp_path / "epochs.new").rmdir()
    assert epochs.bump("kb") == 2


def test_nobody_waits_for_ever_for_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that was stopped while it held the lock makes a bump an error, not a hang."""
    epochs = Epochs(tmp_path)
    monkeypatch.setattr("costkit.epochs._PATIENCE", 0.1)
    with open(tmp_path / "epochs.lock", "rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(FolderError, match="another process has held it"):
            epochs.bump("kb")
    assert epochs.bump("kb") == 1


def test_a_kit_takes_its_secret_from_a_file(tmp_path: Path) -> None:
    """Answers sealed from a file are served with it and not without it; a bad file is refused before anything else."""

    def ask(question: str) -> str:
        return question.upper()

    file, served = make(tmp_path / "secret"), None
    for _ in range(2):
        with Kit(tmp_path / "kit", secret_file=file) as kit:
            served = kit.call(exact(), scope=None, name="ask", version="1")(ask).outcome("q").saving
            assert file.read_text().strip() not in repr(kit) + repr(kit.health()) + repr(kit._store.__dict__)
    assert served == "exact"
    with Kit(tmp_path / "kit") as kit:
        assert kit.call(exact(), scope=None, name="ask", version="1")(ask).outcome("q").saving is None
    file.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        Kit(tmp_path / "other", secret_file=file)
    assert not (tmp_path / "other" / "ledger.db").exists()
