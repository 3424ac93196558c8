"""Arguments that no honest client sends, made from the published schemas and a seed."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

TRAVERSAL = (
    "../../../../etc/passwd", "/etc/passwd", "/dev/zero", "/dev/stdin", "/proc/self/environ", "~/.ssh/id_rsa", "~root",
    "~nobody-here/x", "..\\..\\windows\\win.ini", "file:///etc/passwd", "C:\\Windows", "\\\\server\\share\\config.json",
    "gpt2/../../secret", "./", "..", "/", ".json", "/etc/passwd\0.json", "%2e%2e%2fetc%2fpasswd", "con.json",
)  # fmt: skip
INJECTION = (
    "-oProxyCommand=touch pwned", "-", "--", "-V", "--help", "$(touch pwned)", "`touch pwned`", "; touch pwned",
    "a b", "a\nb", "user@-oProxyCommand=x", "user@host -oProxyCommand=x", "host;touch pwned", "| touch pwned",
    "{{7*7}}", "${HOME}", "%s%s%n", "{0.__class__}", "{hook_layer.__class__}", "{", "}", "{}", "' OR 1=1 --",
)  # fmt: skip
UNICODE = (
    "", " ", "\0", "a\0b", "\x1b[31mred", "\u202egnp.exe", "\ufeffgpt2", "ﬀ", "ǅ", "İ", "ß" * 50, "💥" * 40,
    "\u0301" * 300, "\u2028", "\r\n", "\ufffd", "\U0010ffff", "gpt\u200b2", "ｇｐｔ２", "١٢٣", "a" * 300,
    "x" * 70_000, "\t" * 1000,
)  # fmt: skip
NUMBERS = (
    0, -0.0, -1, 1, 0.5, -1e-300, 5e-324, 1e308, -1e308, float("inf"), float("-inf"), float("nan"), 2**31, 2**53 + 1,
    2**63, -(2**63) - 1, 2**64, 10**30, 10**400, -(10**4000), 10**4299, True, False,
)  # fmt: skip
HOSTILE_OBJECTS: tuple[Any, ...] = (
    {}, [], [[]], [None], [{}], {"": ""}, {"__class__": "x", "__proto__": {"a": 1}}, {"$ref": "#"},
    {"task": "inference"}, {"model_type": "gpt2"}, {"model_type": "llama", "num_hidden_layers": 10**12},
    {"architectures": ["X"]}, {"n_layers": -1, "d_model": 0},
    {"n_layers": 10**9, "d_model": 10**9, "d_vocab": 10**9, "n_heads": 1},
    {"task": ["inference"], "model": {"model": {}}}, ["a"] * 2000, {str(at): at for at in range(2000)}, "null", None,
)  # fmt: skip
MARKERS = (
    "=== compute-awareness", "{", '{"schema_version": 1}', '{"accelerators": [{}]}',
    "CUDA out of memory. Tried to allocate " + "9" * 400 + " GiB",
    "traceback (most recent call last):\n" + '  File "x", line 1\n' * 500, "9" * 5000,
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate -1 GiB. GPU 0 has a total capacity of nan GiB",
    "(" * 20_000, "a" * 5000 + "!", "1 GiB " * 5000, "0..999999999999", "0..-1", "1..x", "0xH100", "999999999999xH100",
    "-1xH100", "nanxH100", "a card with 1e999 GB", "a card with -3 GB", "none", "unknown", "H100, H100", "auto",
    "trace",
)  # fmt: skip
NAMES = {
    "model": ("gpt2", "pythia-70m", "pythia-2.8b", "gemma-2-2b", "EleutherAI/nobody", "org/../x", "a/b/c"),
    "gpu": ("RTX 4090", "2xH100", "unknown", "a card with 24 GB", "T4"),
    "dtype": ("float32", "bfloat16", "int4"),
    "hook_name": ("blocks.0.hook_resid_pre", "blocks.99.hook_resid_pre", "blocks.*.hook_z"),
    "names_filter": ("*hook_resid_post", ["*"], ["*" * 200], ["[" * 50], ["{a,b}"]),
    "message": ("CUDA out of memory. Tried to allocate 2.25 GiB", "MPS backend out of memory"),
    "run": ("python t.py {batch_size}", "python t.py {0.__class__}", "{batch_size!r:>999999999}", "x" * 100_000),
    "sweep": ({"batch_size": [1, 2]}, {"seq_len": "1..4"}, {"batch_size": "1..100000000"}, {"x" * 300: [1]}),
    "python": ("/nowhere/python", "python9", "-c", "./missing"),
    "host": ("box", "user@box", "box.example.org"),
}  # fmt: skip

SCRIPTS = (
    "import torch\nfrom transformer_lens import HookedTransformer\nm = HookedTransformer.from_pretrained({})\n"
    "with torch.no_grad():\n    _, c = m.run_with_cache(torch.zeros(({}, {}), dtype=torch.long), names_filter={})\n",
    "from sae_lens import LanguageModelSAERunnerConfig as C\nc = C(model_name={}, d_in={}, train_batch_size_tokens={}, "
    "hook_name={})\n",
    "from transformers import AutoModelForCausalLM as A\nm = A.from_pretrained({}, torch_dtype={}, device_map={})\n"
    "for n in range({}):\n    m(n, labels=n).loss.backward()\n",
)
"""Of scripts, with a place for each value that is read from them."""
SELDOM = ("python", "host", "live_prices", "compute")
HONEST: tuple[dict[str, Any], ...] = (
    {"task": "inference", "model": "gpt2", "seq_len": 128},
    {"task": "activation_cache", "model": "pythia-2.8b", "batch_size": 4, "names_filter": ["*hook_resid_post"]},
    {"task": "activation_cache", "model": "gpt2", "layers": [3, 4]},
    {"task": "training", "model": "pythia-70m", "batch_size": 2, "optimizer": "adamw"},
    {"task": "generation", "model": "gpt2", "new_tokens": 20},
    {"task": "patching", "model": "gpt2", "method": "attribution_patching"},
    {"task": "sae_training", "model": "gpt2", "hook_name": "blocks.6.hook_resid_pre", "expansion_factor": 8},
    {"task": "sae_training", "d_in": 768, "d_sae": 6144},
    {"task": "sae_inference", "model": "gpt2", "hook_name": "blocks.6.hook_resid_pre", "d_sae": 6144},
)

KEYWORDS = {"type", "enum", "anyOf", "items", "properties", "required", "additionalProperties", "description"}
"""Of JSON Schema, what the published schemas use and `Generator.allowed` follows."""


def nested(depth: int, of: type = list) -> Any:
    """A list or object within itself, `depth` times."""
    made: Any = "end"
    for _ in range(depth):
        made = [made] if of is list else {"a": made}
    return made


class Generator:
    """Calls from a seed: (tool, arguments), each from the tool's own schema, most with up to four fields gone wrong."""

    def __init__(self, tools: Mapping[str, Mapping[str, Any]], hidden: tuple[str, ...], seed: int) -> None:
        """`tools`: name -> published input schema; `hidden`: arguments that are accepted, but not listed."""
        self.tools = tools
        self.hidden = hidden
        self.random = random.Random(seed)

    def call(self) -> tuple[Any, Any]:
        """A tool's name and its arguments; now and then neither is what the protocol asks for."""
        rng = self.random
        # Looking at a machine takes a hundred times as long as the rest and has three arguments.
        tool = rng.choice([name for name in self.tools if name != "detect_compute" or rng.random() < 0.1])
        if rng.random() < 0.01:
            return rng.choice([tool.upper(), "", "x" * 5000, "../" + tool, tool + "\0"]), {}
        if rng.random() < 0.01:
            return tool, rng.choice([[], "x", 3, nested(50)])
        return tool, self.allowed(self.tools[tool]) if rng.random() < 0.15 else self.arguments(tool)

    def allowed(self, schema: Mapping[str, Any], name: str = "") -> Any:
        """Any value that the schema allows, from its keywords alone. Raises ValueError for one that is not known here.

        `name` is the field's: of texts, every second is one that the field could have.
        """
        rng = self.random
        if other := set(schema) - KEYWORDS:
            raise ValueError(f"{name} uses {other}, which no value is made for")
        if "enum" in schema:
            return rng.choice(schema["enum"])
        if "anyOf" in schema:
            return self.allowed(rng.choice(schema["anyOf"]), name)
        kind = schema["type"]
        if kind == "object" and "properties" in schema:
            required = schema.get("required", ())
            return {
                field: self.allowed(inner, field)
                for field, inner in schema["properties"].items()
                if field in required or rng.random() < (0.02 if field in SELDOM else 0.3)
            }
        if kind == "object":
            return {rng.choice([*self.hidden, *UNICODE]): self.anything("") for _ in range(rng.randrange(4))}
        if kind == "array":
            return [self.allowed(schema["items"], name) for _ in range(rng.choice([0, 1, 1, 2, 3, 30, 3000]))]
        if kind == "boolean":
            return rng.random() < 0.5
        if kind == "integer":
            return rng.choice([rng.randrange(-3, 100), rng.randrange(10**7), rng.randrange(-(10**40), 10**40)])
        if kind == "number":
            return rng.choice([rng.randrange(100), rng.random() * 64, rng.uniform(-1e308, 1e308)])
        assert kind == "string", kind
        likely = [text for text in NAMES.get(name, ()) if isinstance(text, str)]
        if likely and rng.random() < 0.5:
            return rng.choice(likely)
        return rng.choice([rng.choice(TRAVERSAL + INJECTION + UNICODE + MARKERS), self.text()])

    def script(self) -> str:
        """Python that can be parsed more often than not, with values of any type in it."""
        rng = self.random
        likely = ("gpt2", "pythia-2.8b", 1, 8, 128, 768, None, "auto", "*hook_z", "blocks.0.hook_z")
        values = [rng.choice(likely) if rng.random() < 0.7 else self.anything("model") for _ in range(4)]
        said = rng.choice(SCRIPTS).format(*map(repr, values))
        at = rng.randrange(len(said))
        return said if rng.random() < 0.7 else said[:at] + self.text() + said[at + rng.randrange(20) :]

    def text(self) -> str:
        """Of ASCII and of everything."""
        rng = self.random
        return "".join(
            chr(rng.choice([rng.randrange(32, 127), rng.randrange(1, 0xD7FF)])) for _ in range(rng.randrange(40))
        )

    def arguments(self, tool: str) -> dict[str, Any]:
        """A mostly valid object, then spoiled."""
        rng = self.random
        properties = self.tools[tool]["properties"]
        honest = rng.random() < 0.8
        made: dict[str, Any] = dict(rng.choice(HONEST)) if honest and "task" in properties else {}
        for name, schema in properties.items():
            often = 0.02 if name in SELDOM else 0.0 if honest else 0.25
            if name not in made and (rng.random() < often or name in self.tools[tool].get("required", ())):
                made[name] = self.value(name, schema)
        for name, often in (("gpu", 0.95), ("detail", 0.3), ("sweep", 0.15)):
            if name in properties and rng.random() < often:
                made[name] = self.value(name, properties[name])
        if "workload" in made and rng.random() < 0.7:
            made["workload"] = self.arguments("estimate_memory")
        if "text" in properties and rng.random() < 0.8:
            made = {"text": self.script()}
        for _ in range(rng.choice([0, 0, 0, 1, 1, 2, 4])):
            where = rng.choice(list(made) if made and rng.random() < 0.5 else [*properties, rng.choice(self.hidden)])
            unusual = where in properties and rng.random() < 0.3
            made[where] = self.allowed(properties[where], where) if unusual else self.anything(where)
        if "launch_for" in properties and rng.random() < 0.15:
            made["launch_for"] = self.value("launch_for", properties["launch_for"])
            made["run"] = rng.choice(NAMES["run"])
        for name in ("batch_size", "seq_len", "n_layers"):
            if name in properties and rng.random() < 0.1:
                made[name] = rng.choice([1, 3, 10**6, 10**9, 10**12, "8", 4.0])
        if "options" in properties and rng.random() < 0.1:
            made["options"] = {rng.choice(self.hidden): self.anything("") for _ in range(rng.randrange(4))}
        if rng.random() < 0.05:
            made[rng.choice([*UNICODE, *INJECTION, "__class__", "self", "asked", "ctx"])] = self.anything("")
        return made

    def value(self, name: str, schema: Mapping[str, Any]) -> Any:
        """What the schema allows."""
        rng = self.random
        if "enum" in schema:
            return rng.choice(schema["enum"])
        if name in NAMES and rng.random() < 0.9:
            return rng.choice(NAMES[name])
        arms = schema.get("anyOf") or [schema]
        arm = rng.choice(arms)
        kind = arm.get("type", "string")
        kind = rng.choice(kind) if isinstance(kind, list) else kind
        if kind == "integer":
            return rng.choice([1, 2, 7, 64, 1024, rng.randrange(10**6)])
        if kind == "number":
            return rng.choice([0.5, 1.0, 16.0, rng.random() * 100])
        if kind == "boolean":
            return rng.random() < 0.5
        if kind == "array":
            return [self.value("", arm.get("items", {})) for _ in range(rng.randrange(4))]
        if kind == "object":
            return rng.choice(HOSTILE_OBJECTS[:16])
        return rng.choice(["x", *MARKERS])

    def anything(self, name: str) -> Any:
        """Of any type: near misses, escapes, and what is too large, too deep or not text."""
        rng = self.random
        kind = rng.random()
        if kind < 0.002:
            return rng.choice(["A", "é", "9", "[", "blocks.0.hook_z "]) * rng.choice([10**6, 10**7])
        if kind < 0.25:
            return rng.choice(TRAVERSAL + INJECTION)
        if kind < 0.4:
            return rng.choice(UNICODE)
        if kind < 0.6:
            return rng.choice(NUMBERS)
        if kind < 0.75:
            return rng.choice(HOSTILE_OBJECTS)
        if kind < 0.85:
            return rng.choice(MARKERS)
        if kind < 0.9:
            return nested(rng.choice([3, 30, 90]), rng.choice([list, dict]))
        if name in NAMES:
            return rng.choice(NAMES[name])
        return self.text()
