#!/usr/bin/env python3
"""PreToolUse hook: reads the code that is about to be written or run, and speaks only where compute matters.

A quick look by patterns decides whether it is an experiment at all. The file of one that is about to run is then read
by `compute-awareness check`, where that is installed, for at most `READ_SECONDS`; the answer names its worst line.

Standard library only, Python 3.8 or newer, no network, none of the code is imported or run. A hook that is slow, noisy
or broken gets uninstalled: whatever goes wrong here, it is silent and lets the call through. It never denies.
"""

import itertools
import json
import os
import re
import shlex
import sys
import tempfile
import zlib

LARGE = 3e9
"""Parameters from which a load is worth a word: 5.6 GiB in 16 bits, 11 GiB in float32, more than many cards leave."""
ASK_FROM = 7e9
"""Parameters from which a run that nobody checked is worth the user's time: 13 GiB in 16 bits, 26 GiB in float32."""
SECONDS = "COMPUTE_AWARENESS_HOOK_SECONDS"
READ_SECONDS = 4.0
"""How long a call may wait for the reader, unless `SECONDS` is set (0: never): it takes some 0.4 s of CPU time."""
LARGEST_FILE = 1 << 20
LARGEST_TRANSCRIPT = 4 << 20

LIBRARIES = re.compile(
    r"(?:^|[\"';])[ \t]*(?:from|import)[ \t]+(?:transformer_lens|sae_lens|transformers|nnsight|dictionary_learning|"
    r"sparsify|circuit_tracer|eap)\b",
    re.MULTILINE,
)
LOADS = re.compile(
    r"(?:from_pretrained(?:_no_processing)?|boot_transformers|LanguageModel|model_name|model_id|model)\s*[(=:]\s*"
    r"(?:\w+\s*=\s*)?[\"']([^\"'\n]{1,120})[\"']"
)
SIZE = re.compile(r"(?<![\w.])(\d{1,4}(?:\.\d{1,2})?)b(?![a-z0-9])", re.IGNORECASE)
FULL_CACHE = re.compile(r"\.run_with_cache\((?:[^()]|\((?:[^()]|\([^()]{0,500}\)){0,500}\)){0,500}\)")
SAE = re.compile(r"\b(?:LanguageModelSAERunnerConfig|LanguageModelSAETrainingRunner|SAETrainingRunner|trainSAE)\s*\(")
NAMED = {"gpt2-xl": 1.5e9, "gpt-j": 6e9, "gpt-neox": 20e9}
INTERPRETERS = re.compile(r"^(?:python[\d.]*|ipython|torchrun|accelerate|deepspeed|uv|srun|jupyter|papermill)$")
SHELL = re.compile(r"^(?:[|&;<>]|\d>)")
"""Where the arguments of a command end."""
GRAVE = {"error": 2, "warning": 1, "note": 0}


def main():
    """Read the event on stdin; print a decision, or nothing."""
    try:
        event = json.loads(sys.stdin.buffer.read(8 << 20).decode("utf-8", "replace"))
        answer = decide(event)
        if answer:
            answer["hookEventName"] = "PreToolUse"
            print(json.dumps({"hookSpecificOutput": answer}))
    except Exception as error:
        if os.environ.get("COMPUTE_AWARENESS_DEBUG"):
            raise
        del error
    return 0


def decide(event):
    """What to add to the call, or None: `ask` with a reason, or `additionalContext`."""
    running = event.get("tool_name") == "Bash"
    name, code, path, words = code_of(event)
    if not code or not LIBRARIES.search(code):
        return None
    model, params = largest_model(code)
    found = []
    if params >= LARGE:
        half, full = params * 2 / 2**30, params * 4 / 2**30
        size = f"{params / 1e9:g} billion parameters: {half:.0f} GiB in bfloat16, {full:.0f} GiB in float32"
        found.append(f"loads {model} ({size})")
    if any("names_filter" not in call for call in FULL_CACHE.findall(code)):
        found.append("calls run_with_cache without names_filter, which keeps every activation")
    if SAE.search(code):
        found.append("trains an SAE")
    # What is about to run is worth a reading where it loads anything; what is being written only where these patterns
    # say so, and of that the words below are enough: it is read before its run.
    if not (found or (path and "from_pretrained" in code)) or checked(event, name, model):
        return None
    if path:
        if said_before(event, [name, zlib.crc32(code.encode("utf-8", "replace"))]):
            return None
        report = read_whole(path, words, event)
        if report is not None:
            return from_report(report, bool(found), params >= ASK_FROM)
    if not found or said_before(event, [running, name, found]):
        return None
    what = "{} {}".format(name, ", ".join(found))
    # A script that is there is read whole, line by line; of code that is being written the experiment is asked about.
    tool = "preflight_script" if path else "preflight_experiment"
    if running and params >= ASK_FROM:
        return {
            "permissionDecision": "ask",
            "permissionDecisionReason": what + ". Nobody has checked in this session that it fits the GPU it will run "
            "on; Claude can, with the tool " + tool + ".",
        }
    return {
        "additionalContext": what
        + ". Unless that is done already, call "
        + tool
        + " of compute-awareness for it before "
        "the run: it looks at the GPU itself and says whether the run fits, and what to ask the user."
    }


def from_report(report, striking, large):
    """What to say of a file that was read; None where it fits and wastes nothing.

    Args:
        report: what `check --json` answers.
        striking: whether the patterns found something too; large: whether it loads a large model.
    """
    status = report["status"]
    findings = sorted(report["findings"], key=lambda one: -GRAVE.get(one["severity"], 0))
    grave = [one for one in findings if GRAVE.get(one["severity"], 0)]
    if not (status in ("does_not_fit", "tight") or grave or (status == "unknown" and striking)):
        return None
    name = os.path.basename(report["files"][0])
    text = name + " was read, not run. " + report["summary"]
    for one in grave[:2]:
        now, after = one.get("bytes_now"), one.get("bytes_after")
        sizes = f" ({now / 2**30:.1f} GiB, {after / 2**30:.1f} GiB with the edit)" if now and after is not None else ""
        other = "" if one["file"] == report["files"][0] else os.path.basename(one["file"]) + " "
        place = other + one["place"]
        text += f" {place[:1].upper()}{place[1:]}: {one['cause']}{sizes}."
    if status == "unknown" and report["questions"]:
        text += " To ask: " + report["questions"][0]
    edits = any(one.get("diff") for one in findings)
    more = " The tool preflight_script of compute-awareness has " + ("the edits as diffs." if edits else "all of it.")
    if status == "does_not_fit" or (status == "unknown" and large):
        return {"permissionDecision": "ask", "permissionDecisionReason": text + more}
    return {"additionalContext": text + more}


def read_whole(path, words, event):
    """The report of `compute-awareness check` on a file; None where it is not installed, fails or takes too long."""
    import importlib.util
    import shutil
    import subprocess

    try:
        seconds = float(os.environ.get(SECONDS, READ_SECONDS))
    except ValueError:
        seconds = READ_SECONDS
    if seconds <= 0:
        return None
    if sys.version_info >= (3, 11) and importlib.util.find_spec("compute_awareness"):
        program = [sys.executable, "-P", "-m", "compute_awareness"]  # -P: nothing of the folder that it is called in
    elif shutil.which("compute-awareness"):
        program = [shutil.which("compute-awareness")]
    elif shutil.which("uvx"):
        program = [shutil.which("uvx"), "--offline", "compute-awareness"]  # as the plugin starts the server
    else:
        return None
    before, after = words
    command = [*program, "check", path, "--quick", "--json", "--args", " ".join(map(shlex.quote, after))]
    if "srun" in map(os.path.basename, before):
        command += ["--gpu", "unknown"]  # it runs on another machine
    env = dict(os.environ, HF_HUB_OFFLINE="1", PYTHONIOENCODING="utf-8")
    env.update(word.split("=", 1) for word in before if word.startswith("CUDA_VISIBLE_DEVICES="))
    cwd = str(event.get("cwd") or "") or None
    try:
        process = subprocess.Popen(
            command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            start_new_session=os.name == "posix",
        )  # fmt: skip
    except OSError:
        return None
    try:
        out, _ = process.communicate(timeout=seconds)
        return json.loads(out.decode("utf-8", "replace"))
    except (subprocess.TimeoutExpired, ValueError):
        if process.poll() is None:
            if os.name == "posix":
                os.killpg(process.pid, 9)  # and what it has started
            else:
                process.kill()
            process.communicate()
        return None


def code_of(event):
    """Of the code a name, its text, its file where one is about to run, and the words before and after it.

    Empty where the call has nothing to do with Python.
    """
    nothing = "", "", "", ((), ())
    given = event.get("tool_input") or {}
    if event.get("tool_name") != "Bash":
        path = str(given.get("file_path") or given.get("notebook_path") or "")
        if not path.endswith((".py", ".ipynb")):
            return nothing
        text = str(given.get("content") or given.get("new_string") or given.get("new_source") or "")
        if text and event.get("tool_name") != "Write":  # what an edit leaves of the imports is in the file
            text = read(path) + "\n" + text
        return os.path.basename(path), plain(path, text), "", ((), ())
    command = str(given.get("command") or "")
    try:
        words = shlex.split(command, comments=True)
    except ValueError:
        words = command.split()
    if not any(INTERPRETERS.match(os.path.basename(word)) for word in words):
        return nothing
    cwd = str(event.get("cwd") or "")
    for at, word in enumerate(words):
        if word.endswith((".py", ".ipynb")):
            path = os.path.join(cwd, os.path.expanduser(word))
            text = read(path)
            if text:
                # The model may be named in the command's own flags.
                flags = " ".join("model='{}'".format(w.split("=")[-1]) for w in words if SIZE.search(w) and w != word)
                after = list(itertools.takewhile(lambda word: not SHELL.match(word), words[at + 1 :]))
                return os.path.basename(word), plain(word, text) + "\n" + flags, path, (words[:at], after)
    return "the command", command, "", ((), ())  # python -c, or a here document


def read(path):
    """A file's text; empty where it cannot be read or is no reasonable script."""
    try:
        if not os.path.isfile(path) or os.path.getsize(path) > LARGEST_FILE:
            return ""
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(LARGEST_FILE)
    except (OSError, ValueError):
        return ""


def plain(path, text):
    """A notebook's code cells as one text; other text as it is."""
    if not path.endswith(".ipynb"):
        return text
    try:
        cells = json.loads(text)["cells"]
        return "\n".join("".join(cell["source"]) for cell in cells if cell.get("cell_type") == "code")
    except (ValueError, KeyError, TypeError, RecursionError):
        return text


def largest_model(code):
    """The largest model that is named where models are loaded, and its parameters by its name.

    The first that is named, and 0, where no name says a size.
    """
    names = LOADS.findall(code)
    best = (names[0] if names else "", 0.0)
    for name in names:
        sizes = [float(size) * 1e9 for size in SIZE.findall(name.replace("_", "-"))]
        params = max(sizes) if sizes else next((NAMED[key] for key in NAMED if key in name.lower()), 0.0)
        if params > best[1]:
            best = (name, params)
    return best


def checked(event, name, model):
    """Whether this session has called a preflight of compute-awareness for that model, or for that script."""
    path = str(event.get("transcript_path") or "")
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.path.getsize(path) - LARGEST_TRANSCRIPT))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except (OSError, ValueError):
        return False
    short = model.rsplit("/", 1)[-1].lower()
    return any(
        "compute-awareness__preflight" in line
        and '"tool_use"' in line
        and (short in line.lower() or ("preflight_script" in line and name in line))
        for line in lines
    )


def said_before(event, what):
    """Whether the same was said, or read, in this session; from now on it was."""
    session = re.sub(r"[^\w-]", "", str(event.get("session_id") or ""))[:64]
    if not session:
        return False
    line = json.dumps(what)
    user = getattr(os, "getuid", lambda: 0)()
    path = os.path.join(tempfile.gettempdir(), f"compute-awareness-hook-{user}-{session}.jsonl")
    try:
        # Only a file of our own is read or added to, never one that another user has put there, or a link.
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        with os.fdopen(os.open(path, flags, 0o600), "r+", encoding="utf-8") as file:
            if hasattr(os, "getuid") and os.fstat(file.fileno()).st_uid != user:
                return False
            if line in file.read(LARGEST_FILE).splitlines():
                return True
            file.write(line + "\n")
    except OSError:
        return False
    return False


if __name__ == "__main__":
    sys.exit(main())
