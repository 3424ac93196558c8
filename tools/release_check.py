"""The release checklist: everything a machine can check of a release, in one command. It uploads nothing.

    python -m pip install -e '.[release]'
    python tools/release_check.py               before a release; what is to be uploaded lands in dist/VERSION
    python tools/release_check.py --rehearse    at any time: uncommitted changes and an open changelog are accepted

Needs Node 22.19 or later with npx. docs/releasing.md says what comes before and after.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MCPB = "@anthropic-ai/mcpb@2.1.2"
STEP_S = 900
LEFT_BY_HAND = """\
Left to do by hand, in this order (docs/releasing.md):
  1. claude plugin validate --strict --profile directory plugin    (needs Claude Code)
  2. git tag v{version} && git push origin v{version}
  3. python -m twine upload {out}/*.whl {out}/*.tar.gz
  4. a release of that tag on the repository's page, with {out}/*.mcpb
  5. mcp-publisher login github && mcp-publisher publish    (after 3: the registry reads the package's README)
  6. uvx compute-awareness@{version} --version, on another machine"""


class Failed(Exception):
    """A step does not hold; the text says why."""


@dataclass(frozen=True)
class Release:
    """What is checked: the version, where its files go, and whether this is only a rehearsal."""

    version: str
    out: Path
    rehearse: bool

    @property
    def bundle(self) -> Path:
        return self.out / f"compute-awareness-{self.version}.mcpb"

    @property
    def wheel(self) -> Path:
        return self.out / f"compute_awareness-{self.version}-py3-none-any.whl"


def main() -> int:
    """Runs every step, also after one that fails; 0 where all hold."""
    parser = argparse.ArgumentParser(description="Checks everything of a release that a machine can; uploads nothing.")
    parser.add_argument("--rehearse", action="store_true", help="accept uncommitted changes and an open changelog")
    rehearse: bool = parser.parse_args().rehearse
    # The tools of this Python's environment go before others of the same name.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    os.chdir(ROOT)
    version = versions()["pyproject.toml"]
    with tempfile.TemporaryDirectory() as scratch:
        release = Release(version, Path(scratch) if rehearse else Path("dist") / version, rehearse)
        release.out.mkdir(parents=True, exist_ok=True)
        failed = [name for name, step in STEPS.items() if not _holds(name, step, release)]
    if failed:
        print(f"\n{len(failed)} of {len(STEPS)} steps do not hold: {', '.join(failed)}")
    elif not rehearse:
        print("\n" + LEFT_BY_HAND.format(version=version, out=release.out.as_posix()))
    return bool(failed)


def _holds(name: str, step: Callable[[Release], None], release: Release) -> bool:
    started = time.monotonic()
    try:
        step(release)
    except Failed as error:
        print(f"NO  {name}\n    " + str(error).strip().replace("\n", "\n    "), flush=True)
        return False
    print(f"ok  {name} ({time.monotonic() - started:.0f} s)", flush=True)
    return True


def clean_tree(release: Release) -> None:
    """What is built is what is committed, and the tag is still free."""
    if release.rehearse:
        return
    if changed := run(tool("git"), "status", "--porcelain"):
        raise Failed(f"uncommitted:\n{changed}")
    if run(tool("git"), "tag", "--list", f"v{release.version}"):
        raise Failed(f"the tag v{release.version} is there already: raise the version")
    if any(release.out.iterdir()):
        raise Failed(f"{release.out} holds files of an earlier try: remove it")


def versions() -> dict[str, str]:
    """Every place that states the version; pyproject.toml is the one that counts."""
    entry, package = document("server.json"), document("server.json")["packages"][0]
    return {
        "pyproject.toml": tomllib.loads(Path("pyproject.toml").read_text("utf-8"))["project"]["version"],
        "manifest.json": document("manifest.json")["version"],
        "server.json": entry["version"],
        "server.json, packages": package["version"],
        "plugin/.claude-plugin/plugin.json": document("plugin/.claude-plugin/plugin.json")["version"],
    }


def version_agrees(release: Release) -> None:
    """One version everywhere, and the installed package is of it."""
    stated = versions() | {"the installed package": installed_version("compute-awareness")}
    if other := {place: said for place, said in stated.items() if said != release.version}:
        raise Failed(f"{release.version} in pyproject.toml, but {other}")


def changelog(release: Release) -> None:
    """The changelog's newest entry is this version's, with its day."""
    newest = re.search(r"^## (\S+), (.+)$", Path("CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    if newest is None or newest[1] != release.version:
        raise Failed(f"its newest entry is {newest and newest[1]}, not {release.version}")
    if not release.rehearse and not re.fullmatch(r"\d{4}-\d\d-\d\d", newest[2]):
        raise Failed(f"{release.version} is {newest[2]!r}: give it the day, YYYY-MM-DD")


def build(release: Release) -> None:
    """The sdist, and the wheel made from it; both as an index wants them."""
    run(sys.executable, "-m", "build", "--outdir", str(release.out))
    if not release.wheel.is_file():
        raise Failed(f"no {release.wheel.name} among {sorted(path.name for path in release.out.iterdir())}")
    run(sys.executable, "-m", "twine", "check", "--strict", *map(str, release.out.glob("compute_awareness-*")))


def wheel_is_whole(release: Release) -> None:
    """The wheel holds the package and its prompts, and runs where nothing else of ours is."""
    ours = files("server") | {f"compute_awareness/prompts/{name}" for name in files("prompts")}
    lacks(release.wheel, ours)
    said = run(tool("uv"), "tool", "run", "--isolated", "--from", str(release.wheel), "compute-awareness", "--version")
    if said.splitlines()[-1] != release.version:
        raise Failed(f"`compute-awareness --version` of the wheel says {said}")


def bundle(release: Release) -> None:
    """The bundle is valid and whole, and what is unpacked of it elsewhere starts."""
    run(tool("npx"), "-y", MCPB, "validate", "manifest.json")
    run(tool("npx"), "-y", MCPB, "pack", ".", str(release.bundle))
    lacks(release.bundle, {f"{folder}/{name}" for folder in ("server", "prompts") for name in files(folder)})
    tool("uv")
    run(sys.executable, "tools/check_bundle.py", str(release.bundle))


def registry_entry(_: Release) -> None:
    """server.json against the registry's schema, the plugin, its marketplace and its skill."""
    run(tool("skillsaw"), "lint", "--strict", ".")


def definitions(_: Release) -> None:
    """The tools as a model reads them."""
    run(tool("tdqs"), "lint", "--command", "python -m compute_awareness", "--fail-on", "warning")


def conformance(_: Release) -> None:
    """The public conformance suite, in both protocol eras."""
    tool("npx")
    run(sys.executable, "tools/conformance.py")


def inspector(_: Release) -> None:
    """Every tool by somebody else's client, in both protocol eras."""
    tool("npx")
    run(sys.executable, "tools/inspector.py")


STEPS: dict[str, Callable[[Release], None]] = {
    "clean tree, new tag": clean_tree,
    "one version": version_agrees,
    "changelog": changelog,
    "wheel and sdist": build,
    "the wheel is whole and runs": wheel_is_whole,
    "bundle, unpacked elsewhere and started": bundle,
    "server.json, plugin, skill": registry_entry,
    "tool definitions": definitions,
    "conformance suite, both eras": conformance,
    "Inspector, both eras": inspector,
}


def document(name: str) -> dict:
    return json.loads(Path(name).read_text("utf-8"))


def files(folder: str) -> set[str]:
    """The files of a folder of the repository, by their names in it, without what Python leaves there."""
    found = (path for path in Path(folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(folder).as_posix() for path in found}


def lacks(archive: Path, ours: Iterable[str]) -> None:
    """Raises Failed where the archive lacks one of the names."""
    if missing := sorted(set(ours) - set(zipfile.ZipFile(archive).namelist())):
        raise Failed(f"{archive.name} lacks {len(missing)} files: {', '.join(missing[:5])}")


def tool(name: str) -> str:
    """The path of a program. Raises Failed with how to get it."""
    found = shutil.which(name)
    if found is None:
        how = "install Node 22.19 or later" if name == "npx" else "python -m pip install -e '.[release]'"
        raise Failed(f"{name} was not found: {how}")
    return found


def run(*command: str) -> str:
    """What a command says on stdout. Raises Failed with the end of all that it said."""
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, encoding="utf-8", errors="replace",
        timeout=STEP_S,
    )  # fmt: skip
    if done.returncode:
        said = (done.stdout + done.stderr).strip().splitlines()[-25:]
        raise Failed("\n".join([f"`{' '.join(command)}` ended with {done.returncode}:", *said]))
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
