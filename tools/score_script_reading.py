"""Score the reader on labelled scripts: `python tools/score_script_reading.py LABELS.jsonl FOLDER [--verbose]`.

LABELS.jsonl: a line per script with `id`, `path` and `workloads` as a person read them. FOLDER holds each script's
repository under its `id`: FOLDER/1/train.py. Counted are the workloads that were found, the stated values that are
right, and values that were stated where the label says that the text does not give them. Of the last those are told
apart that stand in another file of the project: a label of one file does not know them, the reader follows imports.
"""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compute_awareness.errors import InputError
from compute_awareness.models.catalogue import find
from compute_awareness.script_reading.events import Event
from compute_awareness.script_reading.reading import read_file
from compute_awareness.script_reading.values import Items, Known, bound
from compute_awareness.script_reading.workloads import plain

KINDS = {
    "load_model": ("load",), "run_with_cache": ("activation_cache",), "generate": ("generation",),
    "activation_harvest": ("activation_cache", "inference", "sae_training"),
    "forward": ("inference", "activation_cache"), "sae_train": ("sae_training",), "eap": ("patching",),
    "evaluate_graph": ("inference",), "eval": ("inference", "activation_cache"), "attribute": ("attribution",),
    "activation_patching": ("patching",), "attribution_patching": ("patching", "activation_cache"),
    "load_sae": ("load_sae",), "encode": ("sae_inference",), "training": ("training",), "train": ("training",),
    "finetune": ("training",), "crosscoder_train": ("sae_training",), "run_with_hooks": ("inference",),
    "trace": ("activation_cache", "inference"), "probe": ("activation_cache", "inference"),
    "load_transcoder": ("load_sae",), "sae_forward": ("sae_inference",), "steer": ("generation", "inference"),
}  # fmt: skip
FIELDS = {
    "batch": "batch_size", "batch_size": "batch_size", "seq": "seq_len", "max_new_tokens": "new_tokens",
    "dtype": "dtype",
    "d_in": "d_in", "d_sae": "d_sae", "context_size": "context_size", "ig_steps": "ig_steps",
    "store_batch_size_prompts": "store_batch_size_prompts", "n_batches_in_buffer": "n_batches_in_buffer",
    "train_batch_size_tokens": "train_batch_size_tokens", "total_tokens": "training_tokens", "hook": "hook_name",
    "batch_tokens": "train_batch_size_tokens", "stop_at_layer": "stop_at_layer", "n_ctxs": "n_ctxs", "k": "k",
    "output_hidden_states": "output_hidden_states", "max_feature_nodes": "max_feature_nodes",
    "max_n_logits": "max_n_logits", "grad": "with_gradients", "arch": "architecture", "ctx_len": "ctx_len",
    "quantization": "quantization", "device": "device",
}  # fmt: skip


@dataclass
class Score:
    workloads: int = 0
    found: int = 0
    values: int = 0
    right: int = 0
    invented: int = 0
    elsewhere: int = 0
    """Of them, those whose call lies in another file than the labelled one."""
    lines: list[str] = field(default_factory=list)


def score_script(label: dict[str, Any], path: Path, root: Path, score: Score) -> None:
    """Add one script to the score."""
    try:
        events = list(read_file(path, root=root).events)
    except InputError as error:
        events = []
        score.lines.append(f"{label['id']}: {error}")
    free = list(events)
    for workload in label["workloads"]:
        score.workloads += 1
        event = match(workload, free, events)
        if event is None:
            score.lines.append(f"{label['id']} NOT FOUND {workload['task']} {workload.get('model')}")
            continue
        score.found += 1
        if event in free:
            free.remove(event)
        before = score.invented
        compare(label["id"], workload, event, score)
        if event.file != str(path) and score.invented > before:
            score.elsewhere += score.invented - before
            score.lines.append(f"{label['id']} the last {score.invented - before} from {event.file}, line {event.line}")


def match(workload: dict[str, Any], free: list[Event], every: list[Event]) -> Event | None:
    """The call that the label means: of its kind, with its model, else of its kind."""
    kinds = KINDS.get(workload["task"], (workload["task"],))
    for pool in (free, every):
        fitting = [event for kind in kinds for event in pool if event.kind == kind]
        named = [event for event in fitting if same_model(workload, event)]
        if named:
            return max(named, key=lambda event: agreement(workload, event))
    if workload["task"] == "load_model":  # a training runner loads its model itself
        return next((event for event in every if event.kind == "sae_training" and same_model(workload, event)), None)
    fitting = [event for kind in kinds for event in free if event.kind == kind]
    return None if specific(workload.get("model")) or not fitting else fitting[0]


def specific(name: Any) -> bool:
    """Whether a label's model is one name, not `each` or `both`."""
    return (
        isinstance(name, str)
        and name not in ("each", "both", "sae", "crosscoder", "model")
        and " " not in name
        and not name.endswith(".pt")
    )


def same_model(workload: dict[str, Any], event: Event) -> bool:
    wanted = {str(workload.get(key)) for key in ("model", "alias") if workload.get(key)}
    given = plain(event.fields.get("model"))
    if not specific(workload.get("model")):
        return True
    if not isinstance(given, str):
        return False
    if given in wanted:
        return True
    spec = find(given)
    return spec is not None and any((other := find(name)) is not None and other.name == spec.name for name in wanted)


def agreement(workload: dict[str, Any], event: Event) -> int:
    trial = Score()
    compare(0, workload, event, trial)
    return trial.right * 2 - trial.values


def compare(number: int, workload: dict[str, Any], event: Event, score: Score) -> None:
    """Each value of the label with what the reader says."""
    given = dict(workload)
    cache = workload.get("cache")
    if isinstance(cache, dict) and "names_filter" in cache:
        given["names_filter"] = cache["names_filter"]
    for name, wanted in given.items():
        ours = FIELDS.get(name, "names_filter" if name == "names_filter" else None)
        if ours is None:
            continue
        if ours not in event.fields:
            if ours == "dtype" and event.kind == "sae_training" and workload["task"] == "load_model":
                ours = "model_dtype"
            if ours not in event.fields:
                if ours == "d_sae" and "expansion_factor" in event.fields and "d_in" in event.fields:
                    factor, width = plain(event.fields["expansion_factor"]), plain(event.fields["d_in"])
                    judged(number, name, wanted, factor * width if factor and width else None, None, score)
                elif ours == "stop_at_layer":
                    judged(number, name, wanted, None, None, score)
                continue
        value = event.fields[ours]
        judged(number, name, wanted, plain(value) if isinstance(value, Known | Items) else ..., bound(value), score)


def judged(number: int, name: str, wanted: Any, said: Any, most: int | None, score: Score) -> None:
    """Count one value; `said` is `...` where the reader says that it is not known."""
    text = str(wanted).lower()
    if isinstance(wanted, str) and ("unknown" in text or ("not given" in text and name != "dtype")):
        if said is not ...:
            score.invented += 1
            score.lines.append(f"{number} INVENTED {name}: {said}, the label says {wanted!r}")
        return
    if isinstance(wanted, list) and name == "max_new_tokens":
        right = said in wanted
    elif isinstance(wanted, str) and text.startswith(("<", "~", "about")):
        figures = [int(figure.replace(",", "")) for figure in re.findall(r"\d[\d,]*", text)]
        right = said is ... or said in figures or (bool(figures) and most == figures[0])
    elif isinstance(wanted, str) and text.startswith(("true", "false")):
        right = str(said).lower() == text.split()[0]
    elif isinstance(wanted, str) and text.endswith("in code)"):
        return  # an expression, which is not worked out in the label
    elif name == "dtype":
        right = said is not ... and (
            str(said) in text or (said == "auto" and ("unspecified" in text or "auto" in text))
        )
    elif name == "device":
        if "auto" in text or "default" in text:
            return
        right = said is ... or str(said).split(":")[0] in text
    elif name == "names_filter":
        right = said is wanted is None or (isinstance(said, list) and wanted is not None and agree(said, wanted))
    elif isinstance(wanted, str) and re.search(r"\d", text) and name not in ("hook", "arch"):
        figures = [int(figure.replace(",", "")) for figure in re.findall(r"\d[\d,]*", text)]
        right = said in figures
    elif name == "arch":
        right = said is not ... and str(said) in text
    else:
        right = said == wanted
    score.values += 1
    score.right += right
    if not right:
        score.lines.append(f"{number} WRONG {name}: {said if said is not ... else 'not known'}, label {wanted!r}")


def agree(said: list[str], wanted: Any) -> bool:
    """A filter of the label is a name, or words about several."""
    names = [wanted] if isinstance(wanted, str) else wanted
    words = " ".join(map(str, names))
    return all(name in words or name.rpartition(".")[2].removeprefix("hook_") in words for name in said)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--verbose", action="store_true")
    args = parser.parse_args()
    score = Score()
    for line in args.labels.read_text(encoding="utf-8").splitlines():
        label = json.loads(line)
        path = args.folder / str(label["id"]) / label["path"]
        if path.suffix in (".py", ".ipynb") and path.is_file():
            score_script(label, path, args.folder / str(label["id"]), score)
        else:
            print(f"{label['id']}: left out, {path} is not there or is no script")
    if args.verbose:
        print("\n".join(score.lines))
    print(f"workloads found: {score.found} of {score.workloads} ({score.found / max(score.workloads, 1):.0%})")
    print(f"values right: {score.right} of {score.values} ({score.right / max(score.values, 1):.0%})")
    print(
        f"values stated that the label says are unknown: {score.invented}, {score.elsewhere} of them read in an "
        "imported file"
    )


if __name__ == "__main__":
    main()
