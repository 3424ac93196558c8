"""Configs fetched from a Hugging Face hub: a server on the loopback plays it, in all its moods."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

CONFIG = {
    "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 64, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 96, "vocab_size": 100,
    "max_position_embeddings": 512,
}  # fmt: skip
HEADER = {
    "__metadata__": {"format": "pt"},
    "model.embed_tokens.weight": {"dtype": "BF16", "shape": [100, 64], "data_offsets": [0, 12800]},
    "model.layers.0.self_attn.rotary_emb.inv_freq": {"dtype": "F32", "shape": [1, 8], "data_offsets": [12800, 12832]},
}


def safetensors(header: dict[str, Any]) -> bytes:
    """A weights file as far as a reader of headers needs it."""
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text


BODIES = {
    "lab/fine": json.dumps(CONFIG).encode(),
    "lab/broken": b'{"architectures": [',
    "lab/weights": json.dumps(CONFIG).encode(),
    "lab/moved": json.dumps(CONFIG).encode(),
    "lab/truncated": json.dumps(CONFIG).encode(),
    "lab/shards": json.dumps(CONFIG).encode(),
    "lab/slowheaders": json.dumps(CONFIG).encode(),
    "lab/moe": json.dumps(CONFIG | {"num_experts": 60}).encode(),
    "lab/noconfig": b"",
}
FILES = {
    ("lab/weights", "model.safetensors"): safetensors(HEADER),
    ("lab/moved", "model.safetensors"): safetensors(HEADER),
    ("lab/truncated", "model.safetensors"): safetensors(HEADER)[:40],
    ("lab/shards", "model.safetensors.index.json"): json.dumps(
        {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    ).encode(),
    ("lab/shards", "one.safetensors"): safetensors(HEADER),
    ("lab/shards", "two.safetensors"): safetensors({"b": {"dtype": "F16", "shape": [10], "data_offsets": [0, 20]}}),
}
# huggingface_hub reads the headers X-Error-Code that the real hub sends.
REFUSALS = {
    "lab/gated": (401, "GatedRepo"),
    "lab/missing": (404, "RepoNotFound"),
    "lab/noconfig": (404, "EntryNotFound"),
    "lab/sick": (400, ""),
}
ASK = """
import json, sys, time
from compute_awareness.errors import InputError
from compute_awareness.models.resolve import resolve
begun = time.monotonic()
try:
    spec = resolve(sys.argv[1])
    found = spec.checkpoint
    answer = {
        "name": spec.name, "hf_id": spec.hf_id, "qkv_bias": spec.qkv_bias, "n_layers": spec.n_layers,
        "checkpoint": found and [found.stored_bytes, found.parameters, found.dtype],
    }
except InputError as error:
    answer = {"error": str(error)}
print(json.dumps(answer | {"seconds": time.monotonic() - begun, "torch": "torch" in sys.modules}))
"""


class _Hub(BaseHTTPRequestHandler):
    asked: list[str] = []  # noqa: RUF012

    def _answer(self) -> None:
        self.asked.append(self.path)
        repo = "/".join(self.path.removeprefix("/api/models/").lstrip("/").split("/")[:2])
        if repo == "lab/slow":
            time.sleep(30)
            return
        status, code = REFUSALS.get(repo, (200, "") if repo in BODIES else (404, "RepoNotFound"))
        body = BODIES.get(repo, b"") if status == 200 else b"{}"
        file = self.path.rsplit("/", 1)[-1]
        if file.startswith("model.safetensors") or file.endswith(".safetensors"):
            if repo == "lab/slowheaders":
                time.sleep(30)
                return
            if repo == "lab/moved" and not self.path.startswith("/elsewhere"):
                self.send_response(302)
                self.send_header("Location", f"/elsewhere/{repo}/{file}")
                self.send_header("X-Repo-Commit", "a" * 40)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if self.path.startswith("/elsewhere"):
                repo = "lab/moved"
            found = FILES.get((repo, file))
            status, code, body = (200, "", found) if found is not None else (404, "EntryNotFound", b"{}")
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("X-Repo-Commit", "a" * 40)
        self.send_header("ETag", f'"{repo.replace("/", "-")}-{file}"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_GET = do_HEAD = _answer

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def ask(ref: str, endpoint: str, home: Path, **environment: str) -> dict[str, Any]:
    """`resolve(ref)` in a process of its own: huggingface_hub reads its settings when it is imported."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
    settings = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "*"}
    done = subprocess.run(
        [sys.executable, "-c", ASK, ref],
        env=kept | settings | {"PYTHONPATH": os.pathsep.join(sys.path)} | environment,
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    answer = json.loads(done.stdout)
    assert answer.pop("torch") is False
    return answer


def test_fetched_once_then_read_from_the_cache(hub: str, tmp_path: Path) -> None:
    answer = ask("lab/fine", hub, tmp_path)
    assert {k: answer[k] for k in ("name", "hf_id", "qkv_bias", "n_layers")} == {
        "name": "fine", "hf_id": "lab/fine", "qkv_bias": True, "n_layers": 3,
    }  # fmt: skip
    _Hub.asked.clear()
    assert ask("lab/fine", hub, tmp_path)["name"] == "fine"
    assert not [path for path in _Hub.asked if path.endswith("config.json")]
    _Hub.asked.clear()
    assert ask("lab/fine", hub, tmp_path, HF_HUB_OFFLINE="1")["name"] == "fine"
    assert _Hub.asked == []


@pytest.mark.parametrize(
    ("repo", "says"),
    [
        ("lab/gated", "a gated repository: accept its licence on its page and log in"),
        ("lab/missing", "no such repository on 127.0.0.1"),
        ("lab/noconfig", "the repository has no config.json"),
        ("lab/sick", "answered 400"),
        ("lab/broken", "not valid JSON at line 1"),
        ("lab/moe", "recognised but not covered yet: mixture of experts"),
    ],
)
def test_refusals_say_the_real_reason(hub: str, tmp_path: Path, repo: str, says: str) -> None:
    answer = ask(repo, hub, tmp_path)
    assert answer["error"].startswith(f"model '{repo}': ")
    assert says in answer["error"]
    assert "\n" not in answer["error"]


@pytest.mark.parametrize("repo", ["lab/weights", "lab/moved"])
def test_stored_bytes_come_from_the_headers(hub: str, tmp_path: Path, repo: str) -> None:
    """The rotary table of an old file is downloaded, but no parameter of the model."""
    assert ask(repo, hub, tmp_path)["checkpoint"] == [100 * 64 * 2 + 32, 100 * 64, "bfloat16"]


def test_shards_are_added_up(hub: str, tmp_path: Path) -> None:
    assert ask("lab/shards", hub, tmp_path)["checkpoint"] == [100 * 64 * 2 + 32 + 20, 100 * 64 + 10, "bfloat16"]


@pytest.mark.parametrize("repo", ["lab/truncated", "lab/fine", "lab/slowheaders"])
def test_without_readable_headers_the_config_is_enough(hub: str, tmp_path: Path, repo: str) -> None:
    answer = ask(repo, hub, tmp_path)
    assert answer["n_layers"] == 3 and answer["checkpoint"] is None
    assert answer["seconds"] < 15


def test_a_missing_fork_lists_the_nearest(hub: str, tmp_path: Path) -> None:
    assert "nearest: pythia-70m" in ask("EleutherAI/pythia-71m", hub, tmp_path)["error"]


def test_a_slow_hub_is_given_up(hub: str, tmp_path: Path) -> None:
    answer = ask("lab/slow", hub, tmp_path)
    assert answer["error"].startswith("model 'lab/slow': ")
    assert "127.0.0.1" in answer["error"]
    assert answer["seconds"] < 15


def test_nobody_there(tmp_path: Path) -> None:
    answer = ask("lab/fine", "http://127.0.0.1:9", tmp_path)
    assert "127.0.0.1:9 cannot be reached" in answer["error"]
    assert answer["seconds"] < 10


def test_offline_does_not_touch_the_network(hub: str, tmp_path: Path) -> None:
    _Hub.asked.clear()
    answer = ask("lab/fine", hub, tmp_path, HF_HUB_OFFLINE="1")
    assert "HF_HUB_OFFLINE is set" in answer["error"]
    assert _Hub.asked == []


def test_a_short_name_never_touches_the_network(hub: str, tmp_path: Path) -> None:
    _Hub.asked.clear()
    assert "unknown model 'fine'" in ask("fine", hub, tmp_path)["error"]
    assert ask("gpt2", hub, tmp_path)["name"] == "gpt2"
    assert _Hub.asked == []
