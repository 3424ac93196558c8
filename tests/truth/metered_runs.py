"""Experiments as people write them, run from the code that the advice gives, with the real libraries.

Only what would download is stood in for: names of published models stand for small ones with random weights. Their
loaders' calls are held against the real signatures.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import tempfile
from collections.abc import Callable, Iterator
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import torch
from autocast_lists import CudaList
from builders import held_tensors, hf_model, hooked_transformer, quiet, torch_dtype
from meters import Card, OverBudget, distinct_bytes, profiler_peak
from offloading import ram_beside_the_card

from compute_awareness.advice.code import parts
from compute_awareness.models.spec import ModelSpec
from compute_awareness.workload import AnyWorkload, SaeInference, SaeTraining, Training

ONCE = ("load", "sae", "setup", "adapters", "checkpointing", "optimizer", "config")
"""Parts of the code that are run before the card is metered: what they leave is there from the start."""


class Loads:
    """A class whose `from_pretrained`s would download. Keyword arguments must be parameters of the real ones."""

    def __init__(self, real: Any, make: Callable[..., Any]) -> None:
        self._real, self._make = real, make

    def __getattr__(self, name: str) -> Callable[..., Any]:
        signature = inspect.signature(getattr(self._real, name))
        known = {*signature.parameters, *inspect.signature(self._real.from_pretrained).parameters}

        def load(*args: Any, **kwargs: Any) -> Any:
            bound = signature.bind(*args, **kwargs)
            unknown = [word for word in kwargs if word not in known]
            assert not unknown, f"{self._real.__name__}.{name} has no {unknown}"
            bound.arguments.update(bound.arguments.pop("kwargs", {}))
            return self._make(name, **bound.arguments)

        return load


@lru_cache(maxsize=8)
def _saved(spec: str, attention: str) -> str:
    """A folder with a small transformers model, for the real from_pretrained."""
    folder = tempfile.mkdtemp(prefix="small-model-")
    model = hf_model(ModelSpec.model_validate_json(spec), "cpu", "float32", attention)
    for name, value in vars(model.config).items():  # the CPU keeps float noise where CUDA keeps a bool mask
        if isinstance(value, float) and ("drop" in name):
            setattr(model.config, name, 0.0)
    with quiet():
        model.save_pretrained(folder)
    return folder


def _tokenizer() -> Any:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(WordLevel({"a": 0, "<e>": 1}, unk_token="<e>"))
    return PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<e>", pad_token="<e>", unk_token="<e>")


class Experiment:
    """What is in scope where the code of a workload is run. `device` stands for the card: "cpu", or "meta"."""

    def __init__(self, whole: AnyWorkload, workload: AnyWorkload, spec: ModelSpec | None, device: str = "cpu") -> None:
        self.whole, self.workload, self.spec, self.device = whole, workload, spec, device
        self.scope: dict[str, Any] = {"torch": torch, "lr": 1e-3, "effects": 0.0, "release": "r", "sae_id": "s"}
        self.scope["sae_ids"] = [str(n) for n in range(getattr(whole, "n_saes", 1))]
        self.scope |= self._inputs() | self._libraries()

    def _inputs(self) -> dict[str, Any]:
        """What the experiment has at hand: all of its inputs, however it is run."""
        w: Any = self.whole
        if isinstance(w, SaeTraining):
            return {}
        if w.model is None:
            return {"activations": torch.randn(w.batch_size, w.seq_len, w.d_in)}
        ids = torch.ones(w.batch_size, w.seq_len, dtype=torch.long, device=self.device)
        return {"tokens": ids, "input_ids": ids, "clean": ids, "corrupted": ids}

    def _libraries(self) -> dict[str, Any]:
        from sae_lens import SAE, HookedSAETransformer
        from transformer_lens import HookedTransformer

        return {
            "HookedTransformer": Loads(HookedTransformer, self._hooked),
            "HookedSAETransformer": Loads(HookedSAETransformer, self._hooked),
            "TransformerBridge": SimpleNamespace(boot_transformers=self._bridge),
            "AutoModelForCausalLM": SimpleNamespace(from_pretrained=self._transformers),
            "SAE": Loads(SAE, self._sae),
            "LanguageModelSAERunnerConfig": self._runner_config,
            "effects_of": self._patched_effects,
        }

    def _hooked(self, loader: str, **given: Any) -> Any:
        assert self.spec is not None
        dtype = given["dtype"]
        folded = loader == "from_pretrained"
        model = hooked_transformer(self.spec, self.device, dtype, folded=folded)
        model.tokenizer = _tokenizer()
        for switch in ("use_attn_result", "use_split_qkv_input", "use_hook_mlp_in", "use_attn_in"):
            if getattr(self.workload, switch, False):
                getattr(model, f"set_{switch}")(True)
        if isinstance(self.workload, SaeInference):
            from sae_lens import HookedSAETransformer

            with quiet(), torch.device(self.device):
                with_saes = HookedSAETransformer(model.cfg)
            with_saes.load_state_dict(model.state_dict())
            return with_saes.to(torch_dtype(dtype))
        return model

    def _bridge(self, name: str, *, dtype: torch.dtype, device: str) -> Any:
        from transformer_lens.model_bridge import TransformerBridge

        assert self.spec is not None
        model = hf_model(self.spec, "cpu", dtype, "eager")
        model.config.output_attentions = True  # what boot_transformers asks of the config that it loads
        with quiet():
            return TransformerBridge.boot_transformers(
                self.spec.hf_id or name, hf_model=model, device=device, dtype=dtype, tokenizer=_tokenizer()
            )

    def _transformers(self, name: str, **given: Any) -> Any:
        """The real from_pretrained, of a folder; on meta the same class without weights."""
        from transformers import AutoModelForCausalLM

        assert self.spec is not None
        attention = given.get("attn_implementation", "sdpa")
        if self.device == "meta":
            return hf_model(self.spec, "meta", given["dtype"], attention)
        with quiet():
            return AutoModelForCausalLM.from_pretrained(_saved(self.spec.model_dump_json(), attention), **given)

    def _sae(self, loader: str, release: str, sae_id: str, device: str, dtype: str) -> Any:
        import sae_lens

        w = self.workload
        assert isinstance(w, SaeInference) and w.architecture == "standard" and w.d_sae
        width = w.d_in or (self.spec.d_model if self.spec else 0)
        config = sae_lens.StandardSAEConfig(d_in=width, d_sae=w.d_sae, dtype=dtype, device=device)
        sae = sae_lens.StandardSAE(config)
        sae.cfg.metadata.hook_name = w.hook_name
        return sae

    def _runner_config(self, *yours: Any, **given: Any) -> Any:
        """SAELens' own configuration: what the experiment has already, and what the code says."""
        from sae_lens import LanguageModelSAERunnerConfig, LoggingConfig, StandardTrainingSAEConfig

        assert yours == (...,)
        w, spec = self.whole, self.spec
        assert isinstance(w, SaeTraining) and spec is not None and w.d_sae
        base = {
            "sae": StandardTrainingSAEConfig(d_in=spec.d_model, d_sae=w.d_sae),
            "model_name": "gpt2", "hook_name": w.hook_name, "dataset_path": "", "is_dataset_tokenized": True,
            "streaming": False, "device": "cpu", "training_tokens": 4 * w.train_batch_size_tokens,
            "context_size": w.context_size, "train_batch_size_tokens": w.train_batch_size_tokens,
            "n_batches_in_buffer": w.n_batches_in_buffer, "store_batch_size_prompts": w.store_batch_size_prompts,
            "n_checkpoints": 0, "checkpoint_path": None, "output_path": None, "verbose": False,
            "logger": LoggingConfig(log_to_wandb=False), "model_from_pretrained_kwargs": {"dtype": w.model_dtype},
        }  # fmt: skip
        self.scope["config"] = config = LanguageModelSAERunnerConfig(**(base | given))
        return config

    def _train_sae(self) -> None:
        """SAELens' own runner, as `LanguageModelSAETrainingRunner(cfg).run()` is."""
        from datasets import Dataset
        from sae_lens import LanguageModelSAETrainingRunner

        config, spec = self.scope["config"], self.spec
        assert spec is not None
        rows = torch.randint(0, spec.d_vocab, (512, config.context_size)).tolist()
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()), quiet():
            LanguageModelSAETrainingRunner(
                config, override_dataset=Dataset.from_dict({"input_ids": rows}), override_model=self.scope["model"]
            ).run()

    def _patched_effects(self, clean: torch.Tensor, corrupted: torch.Tensor) -> Any:
        """Attribution or activation patching of everything that `keep` names."""
        model, keep, w = self.scope["model"], self.scope["keep"], self.workload
        with torch.no_grad():
            _, cache = model.run_with_cache(clean, names_filter=keep)
        if getattr(w, "method", "") == "activation_patching":
            total = 0.0
            for name in list(cache)[:3]:
                with torch.no_grad():
                    put = [(name, lambda value, hook, name=name: cache[name])]
                    logits = model.run_with_hooks(corrupted, fwd_hooks=put)  # the last ones are there until then
                    total += logits[:, -1, 0].mean().item()
            return total
        activations: dict[str, torch.Tensor] = {}
        gradients: dict[str, torch.Tensor] = {}
        fires = set(cache)  # hooks that are switched off cannot be hooked at all
        model.add_hook(fires.__contains__, lambda x, hook: activations.__setitem__(hook.name, x.detach()), "fwd")
        model.add_hook(fires.__contains__, lambda x, hook: gradients.__setitem__(hook.name, x.detach()), "bwd")
        model(corrupted)[:, -1, 0].mean().backward()
        model.reset_hooks()
        return sum(((cache[n] - activations[n]) * gradients[n]).sum().item() for n in gradients)

    def held(self) -> list[torch.Tensor]:
        """What is on the card before the run."""
        tensors: list[torch.Tensor] = []
        for name in ("model", "sae"):
            module = self.scope.get(name)
            if module is not None:
                tensors += [*torch.nn.Module.parameters(module), *torch.nn.Module.buffers(module)]
                tensors += held_tensors(getattr(module, "original_model", torch.nn.Module()))
        for sae in self.scope.get("saes", []):
            tensors += held_tensors(sae)
        if "optimizer" in self.scope:
            tensors += [part for state in self.scope["optimizer"].state.values() for part in state.values()]
        return tensors


def program(workload: AnyWorkload, whole: AnyWorkload, by_layer: bool = False) -> dict[str, str]:
    """The code that the advice gives for the workload, by part."""
    return parts(workload, whole, by_layer=by_layer, device="cuda")


@contextlib.contextmanager
def _settled(experiment: Experiment, code: dict[str, str]) -> Iterator[str]:
    """Runs what is run once; gives the rest."""

    def run(text: str) -> None:
        exec(compile(text.replace('"cuda"', f'"{experiment.device}"'), "<advice>", "exec"), experiment.scope)

    for part in ONCE:
        if code.get(part):
            run(code[part])
    yield "\n".join(text for part, text in code.items() if part not in ONCE and text)


def by_record(workload: AnyWorkload) -> bool:
    """Whether the allocator's record is the meter: where something runs backward, or works in kernels' scratch."""
    attributes = getattr(workload, "method", "") == "attribution_patching"
    return attributes or isinstance(workload, SaeTraining | SaeInference | Training)


def run(experiment: Experiment, code: dict[str, str], budget: int) -> int:
    """Loads, then runs on a card with `budget` bytes for tensors; its peak in bytes.

    The operator that passes the budget raises, but for two kinds of run, where the allocator's own record is held
    against the budget at the end: a backward pass is higher by a gradient under the other meter, which keeps autograd
    from taking gradients over; and SAEs work in scratch that no operator returns.

    Raises:
        OverBudget: it needs more.
    """
    scope, workload = experiment.scope, experiment.workload
    trains_sae = isinstance(workload, SaeTraining)
    offloads = getattr(workload, "offload", None) == "cpu" or getattr(workload, "max_memory", None)
    beside = ram_beside_the_card() if offloads else contextlib.nullcontext()
    with quiet(), beside, _settled(experiment, code) as rest:
        if trains_sae:
            config = scope.get("config") or experiment._runner_config(...)
            kwargs = config.model_from_pretrained_kwargs
            scope["model"] = experiment._hooked("from_pretrained_no_processing", dtype=kwargs["dtype"])
        if "optimizer" in scope:
            scope["model"].train()
            for group in scope["optimizer"].param_groups:
                group["foreach"] = True  # as torch chooses on CUDA
        compiled = compile(rest.replace('"cuda"', f'"{experiment.device}"'), "<advice>", "exec")

        def once() -> None:
            listed = CudaList() if getattr(workload, "autocast", None) else contextlib.nullcontext()
            with listed:
                if trains_sae:
                    experiment._train_sae()
                else:
                    exec(compiled, scope)

        if not by_record(workload):
            inputs = [value for value in scope.values() if isinstance(value, torch.Tensor)]
            with (card := Card(budget, experiment.held(), experiment.device, inputs)):
                once()
            return card.peak
        if "optimizer" in scope:
            once()
            scope.pop("loss")  # makes the optimizer's state, which the second step finds
        peak = distinct_bytes(experiment.held()) + profiler_peak(once, products_scratch=False).bytes
    if peak > budget:
        raise OverBudget(f"{peak:,} bytes of tensors on a card for {budget:,}")
    return peak
