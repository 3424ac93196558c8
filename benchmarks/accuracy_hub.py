"""A hub on the loopback: configs and headers of weight files, no weights, for peers that only ask a hub.

Headers hold the parameters in the dtype the model was published in. The published files of GPT-2 and Pythia also hold
their old attention masks, which is why tools that count stored bytes are high on them; so they are here too.
"""

from __future__ import annotations

import json
import math
import re
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from experiments import truth_module

from compute_awareness.models.spec import ModelSpec

_NAMES = {"float32": ("F32", 4), "float16": ("F16", 2), "bfloat16": ("BF16", 2)}
_FILE = "model.safetensors"


def model_id(spec: ModelSpec) -> str:
    """As the hub names it; models of the benchmark's own get a made-up name."""
    return spec.hf_id or "narrow/" + re.sub("[^a-z0-9.]+", "-", spec.name)  # the hub allows no two dashes


def config_of(spec: ModelSpec) -> dict[str, Any]:
    """config.json of the model, with the dtype it was published in."""
    config = truth_module("builders").hf_config(spec).to_dict()
    dtype = spec.checkpoint_dtype or "float32"
    return config | {"torch_dtype": dtype, "dtype": dtype}


def _header(spec: ModelSpec) -> bytes:
    name, width = _NAMES[spec.checkpoint_dtype or "float32"]
    model = truth_module("builders").hf_model(spec)
    entries: dict[str, Any] = {}
    offset = 0

    def add(key: str, shape: tuple[int, ...], dtype: str, size: int) -> None:
        nonlocal offset
        end = offset + size * math.prod(shape)
        entries[key] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, end]}
        offset = end

    for key, parameter in model.named_parameters():
        add(key, tuple(parameter.shape), name, width)
    square = (1, 1, spec.n_ctx, spec.n_ctx)
    for layer in range(spec.n_layers if spec.hf_id else 0):
        if spec.architecture == "GPT2LMHeadModel":
            add(f"h.{layer}.attn.bias", square, "F32", 4)
        elif spec.architecture == "GPTNeoXForCausalLM":
            add(f"gpt_neox.layers.{layer}.attention.bias", square, "U8", 1)
    text = json.dumps({"__metadata__": {"format": "pt"}, **entries}).encode()
    return struct.pack("<Q", len(text)) + text


class Hub:
    """`with Hub() as hub`: answers on `hub.url` for the models that were added."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: dict[str, dict[str, bytes]] = {}
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> Hub:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()

    def add(self, spec: ModelSpec) -> tuple[str, Path]:
        """(id on the hub, folder with its config.json)."""
        name = model_id(spec)
        path = self.folder / name
        if name not in self.files:
            config = json.dumps(config_of(spec)).encode()
            path.mkdir(parents=True, exist_ok=True)
            (path / "config.json").write_bytes(config)
            self.files[name] = {"config.json": config, _FILE: _header(spec)}
        return name, path

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        files = self.files

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: Any) -> None:
                """Says nothing."""

            def answer(self, code: int, body: bytes, **headers: str) -> None:
                self.send_response(code)
                for key, value in headers.items():
                    self.send_header(key.replace("_", "-"), value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            def do_HEAD(self) -> None:
                self.do_GET()

            def do_GET(self) -> None:
                path = unquote(urlparse(self.path).path)
                for name, held in files.items():
                    if path.startswith(f"/api/models/{name}"):
                        return self.answer(200, json.dumps(_about(name, held, path)).encode(),
                                           Content_Type="application/json")  # fmt: skip
                    if path.startswith(f"/{name}/resolve/") and path.rsplit("/", 1)[1] in held:
                        return self.give(held[path.rsplit("/", 1)[1]])
                return self.answer(404, b'{"error": "Entry not found"}', X_Error_Code="EntryNotFound")

            def give(self, body: bytes) -> None:
                tags = {"ETag": '"0"', "X_Repo_Commit": "0" * 40, "Accept_Ranges": "bytes"}
                asked = self.headers.get("Range")
                if not asked:
                    return self.answer(200, body, **tags)
                first, last = asked.split("=")[1].split("-")
                begin, end = int(first), min(int(last or len(body)), len(body) - 1)
                tags["Content_Range"] = f"bytes {begin}-{end}/{len(body)}"
                return self.answer(206, body[begin : end + 1], **tags)

        return Handler


def _about(name: str, held: dict[str, bytes], path: str) -> Any:
    if "/tree/" in path:
        return [{"type": "file", "path": file, "size": len(body), "oid": "0"} for file, body in held.items()]
    config = json.loads(held["config.json"])
    return {
        "id": name, "modelId": name, "sha": "0" * 40, "private": False, "gated": False, "library_name": "transformers",
        "tags": ["transformers"], "siblings": [{"rfilename": file} for file in held],
        "config": {"architectures": config["architectures"], "model_type": config["model_type"]},
    }  # fmt: skip
