"""The command line, run as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from costkit.cli import load_function, main
from costkit.errors import ConfigError

APP = """
def ask(question, *, tenant):
    return f"For {tenant}: 30 days."

async def slow(question, *, tenant):
    return "5 days"

class Desk:
    @staticmethod
    def ask(question, **args):
        raise TimeoutError("busy")

limit = 3
"""
GOLD = '[[test]]\nquestion = "how long?"\ntenant = "acme"\ncontains = ["30 days"]\ntags = ["time"]\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder with an app and a gold file; the current folder."""
    (tmp_path / "cli_app.py").write_text(APP, "utf-8")
    (tmp_path / "gold.toml").write_text(GOLD, "utf-8")
    (tmp_path / "broken_app.py").write_text("import nothing_of_that_name\n", "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    sys.modules.pop("cli_app", None)
    return tmp_path


def run(*args: str) -> int:
    return main(["gold", "run", *args, "--gold", "gold.toml"])


def test_a_gold_run_prints_the_analysis(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The table goes to standard output, nothing to standard error, and the status is 0."""
    assert run("cli_app:ask") == 0
    out, err = capsys.readouterr()
    assert "1 of 1 right: 100.0%" in out and "time" in out and err == ""


def test_min_right_decides_the_exit_status(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Below the bar the status is 1 with one line saying so, at the bar it is 0."""
    assert run("cli_app:slow", "--min-right", "0.5") == 1
    assert "0.0% right is below --min-right 50.0%" in capsys.readouterr().err
    assert run("cli_app:ask", "--min-right", "1") == 0
    assert run("cli_app:slow", "--workers", "2") == 0


def test_json_goes_to_a_file_or_alone_to_standard_output(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With - standard output is JSON and nothing else, the table moves to standard error."""
    assert run("cli_app:Desk.ask", "--json", "-") == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["rows"][0]["reason"] == "TimeoutError: busy" and "0 of 1 right" in err
    assert run("cli_app:ask", "--json", "report.json") == 0
    assert json.loads((folder / "report.json").read_text("utf-8"))["right"] == 1


@pytest.mark.parametrize(
    ("args", "part"),
    [
        (["cli_app"], "write MODULE:FUNCTION"),
        (["cli_app:answer"], "has no 'answer'"),
        (["cli_app:limit"], "cannot be called"),
        (["no_such_app:ask"], "cannot import 'no_such_app': ModuleNotFoundError"),
        (["broken_app:ask"], "nothing_of_that_name"),
        (["cli_app:ask", "--workers", "0"], "workers=0"),
        (["cli_app:ask", "--json", "no/where.json"], "folder does not exist"),
    ],
)
def test_an_error_is_one_line_and_status_2(
    folder: Path, capsys: pytest.CaptureFixture[str], args: list[str], part: str
) -> None:
    """What costkit refuses is one line on standard error that names the mend, without a traceback."""
    assert run(*args) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("costkit: ") and part in err and err.count("\n") == 1


def test_a_broken_gold_file_stops_before_the_app_is_imported(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The gold file is checked first, so that its mistake costs nothing."""
    (folder / "gold.toml").write_text(GOLD + "contain = []\n", "utf-8")
    assert run("broken_app:ask") == 2
    assert "did you mean 'contains'" in capsys.readouterr().err


@pytest.mark.parametrize("share", ["80", "x", "-0.1", "nan"])
def test_a_share_outside_0_to_1_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], share: str
) -> None:
    """--min-right takes a share; 80 is not read as 80 %."""
    with pytest.raises(SystemExit) as caught:
        run("cli_app:ask", f"--min-right={share}")
    assert caught.value.code == 2 and "between 0 and 1" in capsys.readouterr().err


def test_help_and_version_work_as_a_program() -> None:
    """`python -m costkit.cli` prints its commands, its version, and help when nothing is asked."""

    def program(*args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "costkit.cli", *args], capture_output=True, text=True, timeout=60
        )

    assert "gold" in program("--help").stdout
    assert program("--version").stdout.strip()[:1].isdigit()
    nothing = program()
    assert nothing.returncode == 2 and "usage: costkit" in nothing.stdout


def test_load_function_follows_dots_after_the_colon(folder: Path) -> None:
    """A method of a class in the module can be named, a missing part raises ConfigError."""
    assert callable(load_function("cli_app:Desk.ask"))
    with pytest.raises(ConfigError, match="no 'nope'"):
        load_function("cli_app:Desk.nope")
