"""An SAE class in another file of the project: what is said of it without its checkpoint is what torch makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from compute_awareness.script_reading.reading import read_file
from compute_awareness.script_reading.values import Known, Unknown

MODULE = """\
import torch
from torch import nn

class TinySAE(nn.Module):
    def __init__(self, d_in, d_hidden, dtype):
        super().__init__()
        self.dtype = dtype
        self.W = nn.Parameter(torch.zeros((d_in, d_hidden)))
        {cast}

    def encode(self, x):
        return x @ self.W

def load_sae(path, dtype=torch.bfloat16):
    sae = TinySAE(48, 48 * 4, dtype)
    sae.load_state_dict(torch.load(path, weights_only=True){how})
    return sae
"""
SCRIPT = """\
import torch
from tiny import load_sae
sae = load_sae('sae.pt'{given})
sae{after}.encode(torch.zeros(2, 48))
"""


@pytest.mark.parametrize(
    ("cast", "how", "given", "after", "wanted"),
    [
        ("self.to(dtype)", "", "", "", "bfloat16"),
        ("self.to('cpu', dtype)", "", "", "", "bfloat16"),
        ("self.to(dtype)", "", ", torch.float16", "", "float16"),
        ("pass", "", "", "", "float32"),  # that it is called dtype says nothing
        ("pass", "", "", ".half()", "float16"),
        ("self.to(dtype)", ", assign=True", "", "", None),
        ("self.to(dtype)", ", assign=True", "", ".to(torch.float32)", "float32"),
        ("self.to(dtype)", "", ", unknown", "", None),
    ],
)
def test_dtype_and_sizes(
    cast: str, how: str, given: str, after: str, wanted: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, script = MODULE.format(cast=cast, how=how), SCRIPT.format(given=given, after=after)
    (tmp_path / "tiny.py").write_text(module, encoding="utf-8")
    (tmp_path / "script.py").write_text(script, encoding="utf-8")
    [encoding] = [event for event in read_file(tmp_path / "script.py").events if event.kind == "sae_inference"]
    said = {name: encoding.fields[name] for name in ("d_in", "d_sae", "dtype")}
    assert [said[name].value for name in ("d_in", "d_sae")] == [48, 192]
    if wanted is None:
        assert isinstance(said["dtype"], Unknown)
    else:
        assert isinstance(said["dtype"], Known) and said["dtype"].value == wanted
    # The same with torch, and with a checkpoint of a dtype that nothing in the text speaks of.
    monkeypatch.chdir(tmp_path)
    torch.save({"W": torch.zeros((48, 192), dtype=torch.float64)}, "sae.pt")
    names: dict[str, Any] = {}
    exec(module, names)
    sae = names["load_sae"]("sae.pt", **({"dtype": torch.float16} if "float16" in given else {}))
    if after:
        sae = eval(f"sae{after}", {"sae": sae, "torch": torch})
    assert tuple(sae.W.shape) == (48, 192)
    if "unknown" not in given:
        assert str(sae.W.dtype) == f"torch.{wanted or 'float64'}"
