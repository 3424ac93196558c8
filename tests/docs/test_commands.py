"""Every command of the READMEs and of docs/ is run, or its options are checked where it cannot be run here.

A fenced `bash` block is run line by line, the blocks of one section in one temporary folder with the examples at hand
and a home of its own. What is not run is listed below with the reason. Commands within a sentence are held against the
options that there are.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import tomllib
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import click
import pytest

from compute_awareness.cli.commands import program

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [
    ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "benchmarks" / "README.md",
    ROOT / "plugin" / "README.md",
]  # fmt: skip
README = (ROOT / "README.md").read_text(encoding="utf-8")
CI = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
LIMIT_S = 120

# An option of ours -> why a command with it is not run here. Its arguments are still parsed.
NOT_RUN = {
    "--host": "needs another machine with sshd; tests/hardware/test_remote_sshd.py looks at a real one",
    "--live-prices": "asks the network; tests/advice/test_live_prices.py answers in its place",
}
# Programs that are not ours -> why they are not run here.
OTHERS = {
    "ruff": ".ci/run runs it",
    "pyright": ".ci/run runs it",
    "claude": "a program of its own that asks the network; tests/plugin holds the plugin's files",
}
VERDICTS = {"preflight": {0, 1, 3}, "check": {0, 1, 3}}
"""Command -> its exit codes where the answer depends on the machine; any other command ends with 0."""


@dataclass
class Part:
    """One program of a line: its words, and the file its output goes to."""

    words: list[str]
    out: str | None = None
    append: bool = False


@dataclass
class Section:
    """The commands below one heading."""

    name: str
    lines: list[str] = field(default_factory=list)


def _without_comments(text: str) -> str:
    return re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)


def _sections(path: Path) -> list[Section]:
    """The sections of a document, with the lines of their fenced `bash` blocks."""
    name = path.relative_to(ROOT).as_posix()
    sections, kind, joined = [Section(name)], "", ""
    for line in _without_comments(path.read_text(encoding="utf-8")).splitlines():
        if line.startswith("```"):
            kind = "" if kind else line.removeprefix("```") or "none"
        elif kind == "bash" and line.strip() and not line.startswith("#"):
            joined += line.removesuffix("\\")
            if not line.endswith("\\"):
                sections[-1].lines.append(joined)
                joined = ""
        elif not kind and line.startswith("#"):
            sections.append(Section(f"{name}: {line.lstrip('# ')}"))
    return [section for section in sections if section.lines]


def _parts(line: str) -> list[Part]:
    """`a x > file && b y` as its programs. Nothing else of a shell is understood, and none of it is written."""
    reader = shlex.shlex(line, posix=True, punctuation_chars=True)
    reader.whitespace_split = True
    parts, words = [Part([])], iter(reader)
    for word in words:
        if word == "&&":
            parts.append(Part([]))
        elif word in (">", ">>"):
            parts[-1].out, parts[-1].append = next(words), word == ">>"
        elif not re.fullmatch(r"[A-Z_]+=\S*", word) or parts[-1].words:
            assert not re.fullmatch(r"[();<>|&]+", word), f"{line}: {word} is not understood here"
            parts[-1].words.append(word)
    return parts


SECTIONS = [section for path in DOCUMENTS for section in _sections(path)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty project with the examples."""
    place = tmp_path / "project"
    shutil.copytree(ROOT / "examples", place / "examples")
    return place


def _environment(folder: Path) -> dict[str, str]:
    """A home of its own: what a command writes there is not the user's."""
    home = folder.parent / "home"
    home.mkdir(exist_ok=True)
    names = ("HOME", "USERPROFILE", "APPDATA", "LOCALAPPDATA", "XDG_CONFIG_HOME", "CODEX_HOME", "CLAUDE_CONFIG_DIR")
    own = dict.fromkeys(names, str(home)) | {"COMPUTE_AWARENESS_PROFILE": str(home / "profile.toml")}
    return os.environ | own | {"PYTHONUTF8": "1", "HF_HUB_OFFLINE": "1"}


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.name)
def test_every_command_runs(section: Section, folder: Path) -> None:
    for line in section.lines:
        for part in _parts(line):
            if part.words[0] == "compute-awareness":
                _ours(part, folder, line)
            else:
                _another(part, folder, line)


def _ours(part: Part, folder: Path, line: str) -> None:
    """Run it, or serve and stop; else check its options."""
    args = part.words[1:]
    _check_options(args, line)
    if any(option in args for option in NOT_RUN):
        return
    if args[0] == "serve":
        _serve_and_stop(args, folder, line)
        return
    codes = VERDICTS.get(args[0], {0})
    _run([sys.executable, "-m", "compute_awareness", *args], part, folder, line, codes)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_python_block_runs(path: Path, folder: Path) -> None:
    for block in re.findall(r"(?ms)^```python\n(.*?)^```", _without_comments(path.read_text(encoding="utf-8"))):
        _run([sys.executable, "-W", "error", "-c", block], Part([]), folder, block, {0})


def _another(part: Part, folder: Path, line: str) -> None:
    """A program that is not ours: the probe is run, scripts and paths of the repository must be there."""
    program_name, *args = part.words
    if program_name in OTHERS:
        assert program_name == "claude" or re.search(rf"(?m)^{program_name}\b", CI), line
    elif args[:3] == ["-m", "pip", "install"]:
        # .ci/run installs; here only what is to be installed is looked at.
        wanted = [word for word in args[3:] if not word.startswith("-")]
        assert wanted and all(re.fullmatch(r"\.(\[\w+\])?", word) for word in wanted), line
        assert {name for word in wanted for name in re.findall(r"\[(\w+)\]", word)} <= EXTRAS.keys(), line
    elif program_name == "python3":
        _run([sys.executable, *args], part, folder, line, {0})
    else:
        assert program_name == "python", line
        _of_the_repository(args, line)


def _of_the_repository(args: list[str], line: str) -> None:
    """A script writes files of the repository or takes minutes, and the tests are what runs here: both must be there
    and know the options. Other tests hold what the scripts write."""
    if args[:2] == ["-m", "pytest"]:
        assert all((ROOT / word).exists() for word in args[2:] if not word.startswith("-") and "/" in word), line
        return
    if args[:2] == ["-m", "pip"]:
        return
    if args[0] == "-c":
        compile(args[1], line, "exec")
        return
    source = (ROOT / args[0]).read_text(encoding="utf-8")
    assert "__main__" in source, line
    assert all(f'"{word}"' in source for word in args[1:] if word.startswith("-")), line


def _run(command: list[str], part: Part, folder: Path, line: str, codes: set[int]) -> None:
    done = subprocess.run(
        command, cwd=folder, env=_environment(folder), stdin=subprocess.DEVNULL, capture_output=True,
        timeout=LIMIT_S, check=False,
    )  # fmt: skip
    said = done.stderr.decode("utf-8", "replace")
    assert done.returncode in codes and "Traceback" not in said, f"{line}\nended with {done.returncode}: {said}"
    assert done.stdout.strip(), f"{line}\nprinted nothing: {said}"
    if part.out is not None:
        with (folder / part.out).open("ab" if part.append else "wb") as file:
            file.write(done.stdout)


def _serve_and_stop(args: list[str], folder: Path, line: str) -> None:
    """A server over HTTP that answers; on a free port, since the documented one may be taken."""
    assert args[args.index("--transport") + 1] == "http", f"{line}: on stdio it serves whoever started it"
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    command = [sys.executable, "-m", "compute_awareness", *args, "--port", str(port)]
    with (folder / "served.txt").open("wb") as log:
        server = subprocess.Popen(
            command, cwd=folder, env=_environment(folder), stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        ends = time.monotonic() + LIMIT_S
        while not _healthy(port):
            assert server.poll() is None and time.monotonic() < ends, (line, (folder / "served.txt").read_text())
            time.sleep(0.1)
    finally:
        server.terminate()
        server.wait(timeout=LIMIT_S)


def _healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def _check_options(args: list[str], line: str) -> None:
    """The command exists and takes these options. Raises AssertionError."""
    command: click.Command = program
    context = click.Context(program)
    while isinstance(command, click.Group) and args:
        found = command.get_command(context, args[0])
        assert found is not None, f"{line}: no command {args[0]}"
        command, args = found, args[1:]
    given = {word.partition("=")[0] for word in args if re.match(r"-{1,2}[a-z]", word)}
    assert given <= _options(command), f"{line}: no such option: {sorted(given - _options(command))}"


def _options(command: click.Command) -> set[str]:
    """The options of a command, or of all the commands of a group."""
    if isinstance(command, click.Group):
        return set().union(*map(_options, command.commands.values()))
    return {
        option
        for parameter in command.get_params(click.Context(command))
        for option in (*parameter.opts, *parameter.secondary_opts)
    }


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_commands_in_sentences_have_their_options(path: Path) -> None:
    text = re.sub(r"(?ms)^```.*?^```", "", _without_comments(path.read_text(encoding="utf-8")))
    for line in re.findall(r"`(compute-awareness [^`]+)`", text.replace("\n", " ")):
        for part in _parts(line):
            if part.words[1] != "COMMAND":
                _check_options(part.words[1:], line)
    for line in re.findall(r"`((?:[A-Z_]+=\S+ )?python [^`]+)`", text.replace("\n", " ")):
        _of_the_repository(_parts(line)[0].words[1:], line)


def test_the_synopsis_has_the_options_that_there_are() -> None:
    block = re.search(r"(?ms)^```text\n(compute-awareness detect.*?)^```", README)
    assert block is not None
    for line in block[1].splitlines():
        command = program.get_command(click.Context(program), line.split()[1])
        assert command is not None, line
        assert set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", line)) <= _options(command), line


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_block_says_what_it_is(path: Path) -> None:
    """A command in a block of no kind would not be run."""
    text = re.sub(r"(?s)<!-- session:start -->.*?<!-- session:end -->", "", path.read_text(encoding="utf-8"))
    fences = re.findall(r"(?m)^```(.*)$", text)
    assert set(fences[::2]) <= {"bash", "python", "text", "json", "toml"} and set(fences[1::2]) <= {""}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[\w-]+)?\)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), target


def test_what_is_not_run_is_there() -> None:
    """A reason for a command that no document has any more is out of date."""
    words = {word for section in SECTIONS for line in section.lines for part in _parts(line) for word in part.words}
    assert NOT_RUN.keys() | OTHERS.keys() <= words
