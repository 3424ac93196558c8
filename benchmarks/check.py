"""A cold `compute-awareness check` of a 300-line script against `python -c "import ast"` and a cold estimate together.

    python benchmarks/check.py [--rounds 15]

Each run is a new process of the same Python. The estimate is that of the script's cache, so that both do the same
arithmetic; what is left is the reading. Aim: at most 1.5 times the two together.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

from timing import interleave, report

from cli import wall

HEAD = """\
import argparse
import torch
from dataclasses import dataclass
from transformer_lens import HookedTransformer, utils

torch.set_grad_enabled(False)

@dataclass
class Config:
    model: str = "pythia-2.8b"
    batch: int = 4
    seq: int = 1024
    layers: tuple = (3, 4)
"""
HELPER = """
def helper_{n}(values, scale={n}, names=None):
    \"\"\"What experiments are full of: loops, dicts, f-strings.\"\"\"
    kept = {{}}
    for index, value in enumerate(values):
        label = f"layer {{index}} of {{len(values)}}"
        kept[label] = [value * scale + offset for offset in range(8)]
        if names is not None and label in names:
            kept[label].append(scale ** 2 // 3)
    return kept

"""
TABLE = """table_{n} = helper_{n}([i * {n} for i in range(12)], names=["layer 3 of 12"])
"""
TAIL = """
def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch", type=int, default=Config.batch)
    args = parser.parse_args()
    cfg = Config(batch=args.batch)
    model = HookedTransformer.from_pretrained(cfg.model)
    hooks = [utils.get_act_name("resid_post", layer) for layer in cfg.layers]
    tokens = torch.randint(0, model.cfg.d_vocab, (cfg.batch, cfg.seq))
    for step in range(20):
        _, cache = model.run_with_cache(tokens, names_filter=hooks)
        print(step, cache[hooks[0]].mean().item())

if __name__ == "__main__":
    main()
"""
BASE = 'python -c "import ast"'
ESTIMATE = "compute-awareness estimate --json"
CHECK = "compute-awareness check --json"
FLAGS = ["--task", "activation_cache", "--model", "pythia-2.8b", "--batch-size", "4", "--names-filter", "*resid_post"]
AIM = 1.5


def script() -> str:
    """Some 300 lines: most functions of a script are defined, a few of them run at its top."""
    helpers = "".join(HELPER.format(n=n) + ("" if n % 5 else TABLE.format(n=n)) for n in range(1, 24))
    return HEAD + helpers + TAIL


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "script.py"
        path.write_text(script(), encoding="utf-8")
        program = [sys.executable, "-m", "compute_awareness"]
        commands = {
            BASE: [sys.executable, "-c", "import ast"],
            ESTIMATE: [*program, "estimate", *FLAGS, "--json"],
            CHECK: [*program, "check", str(path), "--gpu", "A100-80GB", "--json"],
        }
        seconds = interleave({name: lambda c=command: wall(c) for name, command in commands.items()}, rounds)
    together = [a + b for a, b in zip(seconds[BASE], seconds[ESTIMATE], strict=True)]
    seconds = {f"{BASE} + estimate": together, **seconds}
    print(f"{len(script().splitlines())} lines", file=sys.stderr)
    report("check of a 300-line script", seconds, f"{BASE} + estimate", {CHECK: AIM})
    ratio = statistics.median(seconds[CHECK]) / statistics.median(together)
    print(f"{ratio:.2f} times the two together (aim {AIM})", file=sys.stderr)


if __name__ == "__main__":
    main()
