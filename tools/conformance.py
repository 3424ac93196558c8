"""Runs the public MCP conformance suite against our server over HTTP, in both protocol eras.

    python tools/conformance.py            needs Node 22 or later with npx

The suite is written for SDKs: most of its scenarios call tools, prompts and resources of its own example server. So a
count of what passes says little, and some of it passes because a tool is missing. What is held here instead:

- `APPLY` names the scenarios that any real server can be held to; each must pass with a check of its own;
- every other failure or warning stands in `conformance-baseline.yml` (the format of the suite's `--expected-failures`)
  with its reason, and nothing there passes by now; unlike the suite, this also looks at scenarios that are not scored;
- what passes without showing anything is in `EMPTY`, so that a newer suite's scenarios cannot slip in unseen;
- every message on the wire, in all scenarios, follows the specification's JSON schema.
"""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SUITE = "@modelcontextprotocol/conformance@0.2.0-alpha.12"
BASELINE = Path(__file__).with_name("conformance-baseline.yml")
WIRE = "wire-schema-valid"

IN_BOTH = ("completion-complete", "dns-rebinding-protection", "prompts-list", "resources-list", "tools-list")
OF_A_SESSION = ("server-session-lifecycle", "server-sse-multiple-streams")
APPLY: dict[str, tuple[str, ...]] = {
    "2026-07-28": (
        *IN_BOTH,
        "caching",
        "http-header-validation",
        "input-required-result-unsupported-methods",
        "sep-2164-resource-not-found",
        "server-sse-multiple-streams",
        "server-stateless",
    ),
    "2025-11-25": (*IN_BOTH, *OF_A_SESSION, "ping", "server-initialize"),
}
EMPTY = frozenset({
    "input-required-result-validate-input",  # calls a tool that is not there, and is content with an error
    "tasks-status-notifications",  # skipped by the suite
})  # fmt: skip
Results = dict[str, list[dict[str, Any]]]


@dataclass(frozen=True)
class Run:
    """One start of the server and the revision it is held to; without sessions those of `OF_A_SESSION` say nothing."""

    revision: str
    options: tuple[str, ...] = ()

    @property
    def applies(self) -> set[str]:
        sessions = self.revision != "2025-11-25" or "--sessions" in self.options
        return set(APPLY[self.revision]) - (set() if sessions else set(OF_A_SESSION))


RUNS = (Run("2026-07-28"), Run("2025-11-25"), Run("2025-11-25", ("--sessions",)))


def main() -> int:
    """Prints a line per scenario that applies; 0 where all of `RUNS` hold."""
    npx = shutil.which("npx")
    if npx is None:
        print("npx was not found: install Node 22 or later", file=sys.stderr)
        return 2
    wrong: list[str] = []
    baseline = read_baseline(BASELINE)
    for run in RUNS:
        label = " ".join([run.revision, *run.options])
        print(f"\n{label}")
        with tempfile.TemporaryDirectory() as folder, serving(*run.options) as url:
            command = [npx, "-y", SUITE, "server", "--url", url, "--requirements", run.revision, "-o", folder]
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, encoding="utf-8", timeout=300
            )
            results = read_results(Path(folder))
        if not results:
            wrong.append(f"{label}: the suite did not run\n{(done.stdout + done.stderr)[-1500:]}")
        wrong += [f"{label}: {line}" for line in judge(run, results, baseline)]
        for name in sorted(run.applies & set(results)):
            counts = {status: sum(c["status"] == status for c in results[name]) for status in ("SUCCESS", "FAILURE")}
            left = f", {counts['FAILURE']} need tools of the suite" if counts["FAILURE"] else ""
            print(f"  {name:42} {counts['SUCCESS']} checks pass{left}")
    total = sum(map(len, APPLY.values()))
    print(
        f"\n{total} scenarios of {SUITE} apply to this server: "
        + ", ".join(f"{len(v)} of {k}" for k, v in APPLY.items())
    )
    print(
        "\n".join(["", *wrong])
        if wrong
        else "All of them pass; what else fails stands in the baseline with its reason."
    )
    return bool(wrong)


def judge(run: Run, results: Results, baseline: dict[str, set[str]]) -> list[str]:
    """What is wrong with the results of one run, a line each; `results` are the suite's checks by scenario."""
    wrong = [f"{name} was not run" for name in sorted(run.applies - set(results))]
    for name, checks in sorted(results.items()):
        if any(check["id"] == WIRE and check["status"] == "FAILURE" for check in checks):
            wrong.append(f"{name}: a message does not follow the specification's schema")
        if name in OF_A_SESSION and name not in run.applies:
            continue
        own = [check for check in checks if check["id"] != WIRE]
        failing = {check["id"]: check.get("errorMessage") for check in own if check["status"] in ("FAILURE", "WARNING")}
        passing = {check["id"] for check in own if check["status"] == "SUCCESS"} - set(failing)
        expected = baseline.get(name)
        if expected is None and name not in run.applies | EMPTY:
            wrong.append(f"{name} is new: say in tools/conformance.py whether it applies")
        if expected == set():  # the whole scenario
            wrong += [] if failing else [f"{name} passes: it no longer belongs in the baseline"]
            continue
        wrong += [f"{name}: {check}: {said}" for check, said in failing.items() if check not in (expected or ())]
        wrong += [
            f"{name}: {check} passes: it no longer belongs in the baseline" for check in (expected or set()) & passing
        ]
        if name in run.applies and not passing:
            wrong.append(f"{name} passes without a check of its own")
    return wrong


def read_baseline(path: Path) -> dict[str, set[str]]:
    """The checks that may fail, by scenario; an empty set stands for the whole scenario."""
    found: dict[str, set[str]] = {}
    for entry in re.findall(r"^\s+- (\S+)$", path.read_text("utf-8"), re.MULTILINE):
        scenario, _, check = entry.partition(":")
        found.setdefault(scenario, set()).update({check} if check else ())
    return found


def read_results(folder: Path) -> Results:
    """The checks by scenario, from folders that the suite calls `server-SCENARIO-TIME`."""
    named = (
        (re.sub(r"^server-|-\d{4}-\d\d-\d\dT[\d-]+Z$", "", p.parent.name), p) for p in folder.glob("*/checks.json")
    )
    return {name: json.loads(path.read_text("utf-8")) for name, path in named}


@contextmanager
def serving(*options: str) -> Iterator[str]:
    """The address of our server, started as users start it, on a free port of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "compute_awareness", "serve", "--transport", "http", "--port", str(port), *options]
    with tempfile.TemporaryFile() as said:
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT)
        try:
            until = time.monotonic() + 60
            while not _answers(f"http://127.0.0.1:{port}/healthz"):
                if server.poll() is not None or time.monotonic() > until:
                    said.seek(0)
                    raise SystemExit(f"the server did not start: {said.read().decode(errors='replace')}")
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}/mcp"
        finally:
            server.terminate()
            server.wait(timeout=30)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(main())
