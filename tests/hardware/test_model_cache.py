"""Which models are already on the disk."""

from __future__ import annotations

from pathlib import Path

from compute_awareness.hardware.compute import Compute, Environment, Host
from compute_awareness.hardware.model_cache import in_cache


def machine(folder: Path | str, seen_from: str = "this machine") -> Compute:
    return Compute(
        host=Host(os="Linux", cpus=1, ram_total_bytes=1, ram_available_bytes=1, disk_path=str(folder)),
        environment=Environment(primary="local", layers=[], clear=True),
        seen_from=seen_from,
    )


def test_weights_in_the_cache_are_found_by_their_repository(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--EleutherAI--pythia-2.8b" / "snapshots" / "2a259cd"
    snapshot.mkdir(parents=True)
    here = machine(tmp_path)
    assert not in_cache("EleutherAI/pythia-2.8b", here)
    (snapshot / "config.json").write_text("{}", encoding="utf-8")
    assert not in_cache("EleutherAI/pythia-2.8b", here)
    (snapshot / "model.safetensors").write_bytes(b"")
    assert in_cache("EleutherAI/pythia-2.8b", here)
    assert not in_cache("EleutherAI/pythia-1b", here)
    (snapshot / "model.safetensors").rename(snapshot / "pytorch_model.bin")
    assert in_cache("EleutherAI/pythia-2.8b", here)


def test_another_machines_disk_is_not_looked_at(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--gpt2" / "snapshots" / "1"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").write_bytes(b"")
    assert in_cache("gpt2", machine(tmp_path))
    assert not in_cache("gpt2", machine(tmp_path, "gpu-box"))
    assert not in_cache("gpt2", machine(""))
