"""The one folder of a kit."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from costkit.errors import FolderError
from costkit.folder import kept_key, open_folder, private_file
from costkit.store import Store


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_made_private_whatever_the_umask(tmp_path: Path) -> None:
    """The folder is 0700 and its files 0600, with a .gitignore that hides all of it."""
    before = os.umask(0)
    try:
        folder = open_folder(tmp_path / "a" / "kit")
    finally:
        os.umask(before)
    assert mode(folder) == 0o700
    assert {p.name: mode(p) for p in folder.iterdir()} == {"costkit.json": 0o600, ".gitignore": 0o600}
    assert (folder / ".gitignore").read_text() == "*\n"


def test_opened_again_and_mended(tmp_path: Path) -> None:
    """A folder of ours opens any number of times, and one that was opened to others is closed again."""
    folder = open_folder(tmp_path / "kit")
    folder.chmod(0o755)
    made = (folder / "costkit.json").read_text()
    assert open_folder(folder) == folder
    assert mode(folder) == 0o700 and (folder / "costkit.json").read_text() == made


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    """An empty folder that exists becomes ours."""
    assert open_folder(tmp_path) == tmp_path


def test_a_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    """A folder with other files is refused by name, and nothing in it changes."""
    (tmp_path / "thesis.tex").write_text("x")
    tmp_path.chmod(0o755)
    with pytest.raises(
        FolderError, match=r"holds other files and no costkit\.json; name a new or empty folder"
    ):
        open_folder(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"] and mode(tmp_path) == 0o755


@pytest.mark.parametrize(
    "mark", ["", "not json", "[]", '{"format": 9, "made": 1, "check": "no"}', "[" * 9999]
)
def test_a_damaged_mark_is_made_again(tmp_path: Path, mark: str) -> None:
    """A mark that a crash or the disk damaged costs nothing; beside files of somebody else's it is an error."""
    folder = open_folder(tmp_path)
    (folder / "costkit.json").write_text(mark)
    assert open_folder(folder) == folder
    assert json.loads((folder / "costkit.json").read_text())["format"] == 1
    (folder / "costkit.json").write_text(mark)
    (folder / "thesis.tex").write_text("x")
    with pytest.raises(FolderError, match="damaged and it holds other files"):
        open_folder(folder)


def test_opened_by_many_at_once(tmp_path: Path) -> None:
    """Processes that make the same folder at the same moment all get it."""
    code = (
        "import sys; from costkit.folder import open_folder\n"
        "for i in range(40): open_folder(f'{sys.argv[1]}/{i}/kit')"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(4)]
    assert [p.wait(60) for p in running] == [0] * 4


@pytest.mark.parametrize("name", ["costkit.json", "cache", "cache/cache.db", "epochs.json", "epochs.lock"])
def test_a_planted_pipe_or_link_makes_nobody_wait(tmp_path: Path, name: str) -> None:
    """A named pipe or a link in a file's place is refused or replaced at once, and what it names is left alone."""
    target = tmp_path / "target"
    target.write_text("precious")
    for plant in (os.mkfifo, lambda path: os.symlink(target, path)):
        folder = open_folder(tmp_path / "kit")
        Store(folder).close()
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        plant(path)
        with contextlib.suppress(FolderError):
            store = Store(open_folder(folder))
            store.epochs.bump("kb")
        assert target.read_text() == "precious"
        shutil.rmtree(folder)


@pytest.mark.parametrize("mark", ['{"format": 2}'])
def test_other_formats_are_refused(tmp_path: Path, mark: str) -> None:
    """A mark of a newer format is an error that names the folder."""
    (tmp_path / "costkit.json").write_text(mark)
    with pytest.raises(FolderError, match=r"Kit\(folder="):
        open_folder(tmp_path)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    """A path to a file, or below one, is refused."""
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "file" / "kit"):
        with pytest.raises(FolderError, match="Kit"):
            open_folder(path)


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_refused(tmp_path: Path) -> None:
    """A parent that cannot be written is an error that says so."""
    tmp_path.chmod(0o500)
    with pytest.raises(FolderError, match="name a folder that can be written"):
        open_folder(tmp_path / "kit")


@pytest.mark.skipif(os.getuid() != 0, reason="needs a folder of another user's")
def test_another_users_folder_is_refused(tmp_path: Path) -> None:
    """A folder that belongs to someone else is not used, even where it could be."""
    os.chown(tmp_path, 12345, 12345)
    with pytest.raises(FolderError, match="belongs to another user"):
        open_folder(tmp_path)


def test_private_file_follows_no_link(tmp_path: Path) -> None:
    """A planted link is an error that names the file, and its target keeps its mode."""
    target = tmp_path / "target"
    target.write_text("x")
    target.chmod(0o644)
    (tmp_path / "link").symlink_to(target)
    with pytest.raises(FolderError, match="link"):
        private_file(tmp_path / "link")
    assert mode(target) == 0o644


def test_private_file_mends_an_open_one(tmp_path: Path) -> None:
    """A file that others could read is closed to them, its content kept."""
    path = tmp_path / "f"
    path.write_text("x")
    path.chmod(0o644)
    assert private_file(path).read_text() == "x" and mode(path) == 0o600


def test_one_key_for_all_who_ask_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen threads that make a folder's key at the same moment get the same 32 bytes, and its file is private, also
    where the file system knows no links."""

    def ask() -> None:
        barrier.wait()
        keys.append(kept_key(path))

    def unlinked(*_: object) -> None:
        raise PermissionError("no links here")

    for number in range(10):
        path, barrier, keys = tmp_path / f"{number}.key", threading.Barrier(16), list[bytes]()
        threads = [threading.Thread(target=ask) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(keys) == 16 and set(keys) == {path.read_bytes()} and len(keys[0]) == 32
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 10 == len(list(tmp_path.iterdir()))
    monkeypatch.setattr("os.link", unlinked)
    assert kept_key(tmp_path / "other.key") == kept_key(tmp_path / "other.key")


@pytest.mark.parametrize("harm", ["link", "short", "folder"])
def test_a_key_that_is_none_is_refused(tmp_path: Path, harm: str) -> None:
    """A key's file that is a link, is cut short or is a folder is a FolderError that names it."""
    path = tmp_path / "index.key"
    if harm == "link":
        path.symlink_to(tmp_path / "elsewhere")
    elif harm == "short":
        path.write_bytes(b"few")
    else:
        path.mkdir()
    with pytest.raises(FolderError, match=r"index\.key"):
        kept_key(path)
    assert not (tmp_path / "elsewhere").exists()
