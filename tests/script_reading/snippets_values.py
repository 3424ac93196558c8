"""Labels of ways by which values reach a call, written before the reader."""

from __future__ import annotations

from labels import UNKNOWN, Case, Unknown, cache, load

TOP = "import torch\nfrom transformer_lens import HookedTransformer\ntorch.set_grad_enabled(False)\n"
RUN = """
model = HookedTransformer.from_pretrained({name})
model.run_with_cache(torch.zeros(({batch}, {seq})).long())
"""


def run(name: str, batch: object, seq: object) -> str:
    return RUN.format(name=name, batch=batch, seq=seq)


def both(name: object, batch: object, seq: object) -> list[dict[str, object]]:
    return [load(name), cache(name, batch, seq)]


ARGPARSE = (
    TOP
    + """
import argparse
parser = argparse.ArgumentParser()
parser.add_argument("--model", "-m", default="gpt2")
parser.add_argument("--batch-size", type=int, default=8)
parser.add_argument("--seq", type=int, {seq})
args = parser.parse_args()
"""
)

CASES = [
    Case(
        "argparse_default",
        ARGPARSE.format(seq="default=64") + run("args.model", "args.batch_size", "args.seq"),
        both("gpt2", 8, 64),
    ),
    Case(
        "argparse_required",
        ARGPARSE.format(seq="required=True") + run("args.model", "args.batch_size", "args.seq"),
        both("gpt2", 8, UNKNOWN),
    ),
    Case(
        "argparse_function",
        TOP
        + """
import argparse
def parse():
    p = argparse.ArgumentParser()
    p.add_argument("--bs", type=int, default=3)
    p.add_argument("name", nargs="?", default="gpt2")
    return p.parse_args()
def main():
    a = parse()
    model = HookedTransformer.from_pretrained(a.name)
    model.run_with_cache(torch.zeros((a.bs, 5)).long())
if __name__ == "__main__":
    main()
""",
        both("gpt2", 3, 5),
    ),
    Case(
        "argparse_positional",
        TOP
        + """
import argparse
p = argparse.ArgumentParser()
p.add_argument("model")
a = p.parse_args()
"""
        + run("a.model", 2, 4),
        both(UNKNOWN, 2, 4),
    ),
    Case(
        "argparse_flag",
        TOP
        + """
import argparse
p = argparse.ArgumentParser()
p.add_argument("--small", action="store_true")
a = p.parse_args()
name = "pythia-70m" if a.small else "gpt2"
"""
        + run("name", 2, 4),
        both("gpt2", 2, 4),
    ),
    Case(
        "argparse_vars",
        TOP
        + """
import argparse
p = argparse.ArgumentParser()
p.add_argument("--bs", type=int, default=6)
cfg = vars(p.parse_args())
"""
        + run('"gpt2"', 'cfg["bs"]', 4),
        both("gpt2", 6, 4),
    ),
    Case(
        "argparse_loop_over_defaults",
        TOP
        + """
import argparse
def update(default_cfg):
    cfg = dict(default_cfg)
    parser = argparse.ArgumentParser()
    for key, value in default_cfg.items():
        if type(value) == bool:
            parser.add_argument(f"--{key}", action="store_false" if value else "store_true")
        else:
            parser.add_argument(f"--{key}", type=type(value), default=value)
    cfg.update(vars(parser.parse_args()))
    return cfg
cfg = update({"bs": 16, "model": "gpt2", "fast": True})
"""
        + run('cfg["model"]', 'cfg["bs"]', 4),
        both("gpt2", 16, 4),
    ),
    Case(
        "dataclass",
        TOP
        + """
from dataclasses import dataclass, field
@dataclass
class Config:
    model: str = "gpt2"
    batch: int = 4
    layers: list = field(default_factory=lambda: [1, 2])
    @property
    def seq(self):
        return self.batch * 8
cfg = Config(batch=5)
"""
        + run("cfg.model", "cfg.batch", "cfg.seq"),
        both("gpt2", 5, 40),
    ),
    Case(
        "class_attributes",
        TOP
        + """
class Config:
    MODEL = "gpt2"
    BATCH = 4
"""
        + run("Config.MODEL", "Config.BATCH", 7),
        both("gpt2", 4, 7),
    ),
    Case(
        "simple_namespace",
        TOP
        + """
from types import SimpleNamespace
cfg = SimpleNamespace(name="gpt2", bs=9)
"""
        + run("cfg.name", "cfg.bs", 7),
        both("gpt2", 9, 7),
    ),
    Case(
        "namedtuple",
        TOP
        + """
from typing import NamedTuple
class C(NamedTuple):
    name: str = "gpt2"
    bs: int = 3
c = C(bs=4)
"""
        + run("c.name", "c.bs", 7),
        both("gpt2", 4, 7),
    ),
    Case(
        "enum",
        TOP
        + """
from enum import Enum
class M(Enum):
    SMALL = "gpt2"
"""
        + run("M.SMALL.value", 1, 7),
        both("gpt2", 1, 7),
    ),
    Case(
        "typer",
        TOP
        + """
import typer
app = typer.Typer()
@app.command()
def main(model: str = "gpt2", batch: int = typer.Option(8, help="b"), seq: int = 64):
    m = HookedTransformer.from_pretrained(model)
    m.run_with_cache(torch.zeros((batch, seq)).long())
app()
""",
        both("gpt2", 8, 64),
    ),
    Case(
        "typer_required",
        TOP
        + """
import typer
def main(model: str, batch: int = 2):
    m = HookedTransformer.from_pretrained(model)
    m.run_with_cache(torch.zeros((batch, 4)).long())
typer.run(main)
""",
        both(UNKNOWN, 2, 4),
    ),
    Case(
        "click",
        TOP
        + """
import click
@click.command()
@click.option("--model-name", default="gpt2")
@click.option("--bs", type=int, default=12)
@click.option("--seq", required=True, type=int)
def main(model_name, bs, seq):
    m = HookedTransformer.from_pretrained(model_name)
    m.run_with_cache(torch.zeros((bs, seq)).long())
main()
""",
        both("gpt2", 12, UNKNOWN),
    ),
    Case(
        "fire",
        TOP
        + """
import fire
def main(model="gpt2", bs=5, seq=6):
    m = HookedTransformer.from_pretrained(model)
    m.run_with_cache(torch.zeros((bs, seq)).long())
fire.Fire(main)
""",
        both("gpt2", 5, 6),
    ),
    Case(
        "fire_class",
        TOP
        + """
import fire
class Job:
    def __init__(self, model="gpt2"):
        self.model = HookedTransformer.from_pretrained(model)
    def run(self, bs=5):
        self.model.run_with_cache(torch.zeros((bs, 6)).long())
fire.Fire(Job)
""",
        both("gpt2", 5, 6),
    ),
    Case("arithmetic", TOP + run('"gpt2"', "2 ** 3", "1024 // 4 - 1"), both("gpt2", 8, 255)),
    Case("int_of_string", TOP + run('"gpt2"', 'int("12")', "int(1e2)"), both("gpt2", 12, 100)),
    Case("min_max", TOP + run('"gpt2"', "min(32, 8)", "max(4, len([1, 2, 3]))"), both("gpt2", 8, 4)),
    Case("tuple_unpack", TOP + "b, (s, n) = 4, (16, 'gpt2')\n" + run("n", "b", "s"), both("gpt2", 4, 16)),
    Case(
        "shape_unpack",
        TOP
        + """
t = torch.zeros((3, 17))
b, s = t.shape
"""
        + run('"gpt2"', "b", "s - 1"),
        both("gpt2", 3, 16),
    ),
    Case(
        "comprehension_length",
        TOP
        + """
prompts = [f"prompt {i}" for i in range(24)]
"""
        + run('"gpt2"', "len(prompts)", 4),
        both("gpt2", 24, 4),
    ),
    Case(
        "dict_items_loop",
        TOP
        + """
MODELS = {"a": "gpt2", "b": "pythia-70m"}
for key, name in MODELS.items():
    m = HookedTransformer.from_pretrained(name)
    del m
""",
        [load("gpt2"), load("pythia-70m")],
    ),
    Case(
        "enumerate_zip",
        TOP
        + """
for i, (name, bs) in enumerate(zip(["gpt2", "pythia-70m"], [2, 3])):
    m = HookedTransformer.from_pretrained(name)
    m.run_with_cache(torch.zeros((bs, 10 + i)).long())
""",
        [load("gpt2"), cache("gpt2", 2, 10), load("pythia-70m"), cache("pythia-70m", 3, 11)],
    ),
    Case(
        "device_choice",
        TOP
        + """
device = "cuda" if torch.cuda.is_available() else "cpu"
m = HookedTransformer.from_pretrained("gpt2", device=device)
""",
        [load("gpt2", device="cuda")],
    ),
    Case(
        "dict_of_dtypes",
        TOP
        + """
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
m = HookedTransformer.from_pretrained("gpt2", dtype=DTYPES["bf16"])
""",
        [load("gpt2", "bfloat16")],
    ),
    Case(
        "getattr_torch",
        TOP
        + """
m = HookedTransformer.from_pretrained("gpt2", dtype=getattr(torch, "float16"))
""",
        [load("gpt2", "float16")],
    ),
    Case(
        "environment",
        TOP
        + """
import os
m = HookedTransformer.from_pretrained(os.environ["MODEL"])
""",
        [load(UNKNOWN)],
    ),
    Case(
        "environment_default",
        TOP
        + """
import os
m = HookedTransformer.from_pretrained(os.environ.get("MODEL", "gpt2"))
""",
        [load("gpt2")],
    ),
    Case(
        "partial",
        TOP
        + """
from functools import partial
get = partial(HookedTransformer.from_pretrained, dtype=torch.bfloat16)
m = get("gpt2")
""",
        [load("gpt2", "bfloat16")],
    ),
    Case(
        "kwargs",
        TOP
        + """
kw = {"dtype": torch.float16}
m = HookedTransformer.from_pretrained("gpt2", **kw)
""",
        [load("gpt2", "float16")],
    ),
    Case(
        "default_argument",
        TOP
        + """
def go(bs, *, seq=33, name="gpt2"):
    m = HookedTransformer.from_pretrained(name)
    m.run_with_cache(torch.zeros((bs, seq)).long())
go(7)
""",
        both("gpt2", 7, 33),
    ),
    Case(
        "global_in_function",
        TOP
        + """
BATCH = 6
def go():
    m = HookedTransformer.from_pretrained("gpt2")
    m.run_with_cache(torch.zeros((BATCH, 5)).long())
go()
""",
        both("gpt2", 6, 5),
    ),
    Case(
        "changed_in_loop",
        TOP
        + """
n = 1
model = HookedTransformer.from_pretrained("gpt2")
for _ in range(1000):
    n += 1
model.run_with_cache(torch.zeros((n, 5)).long())
""",
        both("gpt2", UNKNOWN, 5),
    ),
    Case(
        "while_unknown",
        TOP
        + """
n = 1
model = HookedTransformer.from_pretrained("gpt2")
while input():
    n *= 2
model.run_with_cache(torch.zeros((n, 5)).long())
""",
        both("gpt2", UNKNOWN, 5),
    ),
    Case("huge_power", TOP + "n = 2 ** 10 ** 9\n" + run('"gpt2"', "n", 5), both("gpt2", UNKNOWN, 5)),
    Case("huge_string", TOP + 's = "a" * 10 ** 12\n' + run('"gpt2"', "len(s)", 5), both("gpt2", UNKNOWN, 5)),
    Case(
        "try_except",
        TOP
        + """
try:
    import google.colab
    bs = 4
except ImportError:
    bs = 16
"""
        + run('"gpt2"', "bs", 5),
        both("gpt2", Unknown(16), 5),
    ),
    Case(
        "elif_chain",
        TOP
        + """
kind = "b"
if kind == "a":
    name = "gpt2"
elif kind == "b":
    name = "pythia-70m"
else:
    raise ValueError(kind)
"""
        + run("name", 1, 5),
        both("pythia-70m", 1, 5),
    ),
    Case(
        "match_statement",
        TOP
        + """
match "big":
    case "small":
        name = "pythia-70m"
    case _:
        name = "gpt2"
"""
        + run("name", 1, 5),
        both("gpt2", 1, 5),
    ),
    Case(
        "dataloader",
        TOP
        + """
from torch.utils.data import DataLoader
model = HookedTransformer.from_pretrained("gpt2")
for batch in DataLoader(get_data(), batch_size=16, shuffle=True):
    model.run_with_cache(batch["tokens"].to("cuda"))
""",
        both("gpt2", 16, UNKNOWN),
    ),
    Case(
        "dataloader_tokenized",
        TOP
        + """
from torch.utils.data import DataLoader
from transformer_lens.utils import tokenize_and_concatenate
model = HookedTransformer.from_pretrained("gpt2")
data = tokenize_and_concatenate(load_dataset("x", split="train"), model.tokenizer, max_length=128)
for batch in DataLoader(data, batch_size=16):
    model.run_with_cache(batch["tokens"])
""",
        both("gpt2", 16, 128),
    ),
    Case(
        "dataloader_of_a_column",
        TOP
        + """
from torch.utils.data import DataLoader
import datasets
model = HookedTransformer.from_pretrained("gpt2")
data = datasets.load_from_disk("tokens")
for batch in DataLoader(data["tokens"], batch_size=32, shuffle=False):
    model.run_with_cache(batch.to("cuda"))
""",
        both("gpt2", 32, UNKNOWN),
    ),
    Case(
        "dataloader_tensor",
        TOP
        + """
from torch.utils.data import DataLoader, TensorDataset
model = HookedTransformer.from_pretrained("gpt2")
for (tokens,) in DataLoader(TensorDataset(torch.zeros((100, 32))), batch_size=25):
    model.run_with_cache(tokens)
""",
        [load("gpt2"), cache("gpt2", 25, 32, times=4)],
    ),
    Case(
        "sliced_in_loop",
        TOP
        + """
model = HookedTransformer.from_pretrained("gpt2")
tokens = torch.zeros((96, 40)).long()
for i in range(0, len(tokens), 32):
    model.run_with_cache(tokens[i:i + 32])
""",
        [load("gpt2"), cache("gpt2", 32, 40, times=3)],
    ),
    Case(
        "sliced_in_loop_unknown",
        TOP
        + """
model = HookedTransformer.from_pretrained("gpt2")
tokens = torch.load("t.pt")
bs = 24
for i in range(0, tokens.shape[0], bs):
    model.run_with_cache(tokens[i:i + bs])
""",
        both("gpt2", 24, UNKNOWN),
    ),
    Case(
        "yaml_text",
        TOP
        + """
import yaml
cfg = yaml.safe_load(open("nowhere.yaml"))
"""
        + run('cfg["model"]', 2, 4),
        both(UNKNOWN, 2, 4),
    ),
    Case(
        "never_invented",
        TOP + "import mystery\n" + run("mystery.NAME", "mystery.B", "mystery.S"),
        both(UNKNOWN, UNKNOWN, UNKNOWN),
    ),
    Case(
        "part_of_a_text",
        TOP + 'name = "gpt2-xl-1024"\nsizes = "0123456789"\n' + run("name[:4]", "int(sizes[4])", "int(name[-4:])"),
        both("gpt2", 4, 1024),
    ),
    Case(
        "comprehension_keeps_its_variables",
        TOP
        + "batch, seq = 4, 64\nlist_of = [batch for batch in (1, 2)]\nlast = [(longest := seq) for seq in (8, 16)]\n"
        + run('"gpt2"', "batch", "longest + seq"),
        both("gpt2", 4, 80),
    ),
    Case(
        "set_of_names",
        TOP + 'names = set(["gpt2", "gpt2", "gpt2"])\n' + run("list(names)[0]", "len(names)", "64"),
        both("gpt2", 1, 64),
    ),
]
