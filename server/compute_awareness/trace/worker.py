"""Runs one experiment of a library without weights and prints, as JSON, how many bytes were alive when.

A script for the experiment's own Python (3.9 or newer, torch 2.1 or newer), started by `run.py` in a clean folder:
`worker.py JOB.json`. It imports nothing of this package. What it does to be harmless and true:

* Everything runs under `FakeTensorMode` on device "cpu": shapes without contents. A fake "cuda" on a CPU build of torch
  ends the process (c10::Error while autograd runs), so it is never used.
* An audit hook denies the network, other processes, and writing outside the clean folder.
* The libraries' own output goes to stderr; the answer goes to the stdout this process was started with.
* The meter is a `TorchDispatchMode` that holds weak references to storages. A dispatch mode has one effect on what it
  watches: autograd never adds gradients in place under it (`isTensorSubclassLike` of ATen/TensorSubclassLikeUtils.h is
  true for every tensor then, so `can_accumulate_inplace` of torch/csrc/autograd/input_buffer.cpp is not). `Meter` gives
  the sum of such an addition its bytes one operator later, when the tensor it would have been written into is gone.
"""

# Attributes of torch and transformers that some versions lack are looked for first, and some are replaced.
# pyright: reportAttributeAccessIssue=false, reportOptionalCall=false, reportPrivateImportUsage=false
# pyright: reportOptionalMemberAccess=false

from __future__ import annotations

import bisect
import contextlib
import fnmatch
import gc
import json
import os
import sys
import time
import weakref

MARKS = ("<<compute-awareness trace>>", "<<end>>")
OLDEST_TORCH = (2, 1)
UNBOUND = ("backward", "optimizer")  # phases in which a layer's end is not where the forward pass goes on
SHALLOW = 12  # models of up to so many layers are always traced whole
LONGEST_PATTERN = 8


class Refused(Exception):
    """The job cannot be traced; `kind` says which sort of reason, the message why."""

    def __init__(self, kind, message):
        super().__init__(message)
        self.kind = kind


# ---------------------------------------------------------------------------------------------------- confinement


def confine(folder):
    """From here on this process cannot reach the network, start a process, or write outside `folder`."""
    for name in ("TMPDIR", "TEMP", "TMP", "HF_HOME", "XDG_CACHE_HOME", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR",
                 "MPLCONFIGDIR", "NUMBA_CACHE_DIR", "WANDB_DIR"):  # fmt: skip
        os.environ[name] = folder
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY",
                 "DO_NOT_TRACK", "PYTHONDONTWRITEBYTECODE"):  # fmt: skip
        os.environ[name] = "1"
    os.environ["WANDB_MODE"] = "disabled"
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    sys.dont_write_bytecode = True
    inside = os.path.normcase(os.path.realpath(folder)) + os.sep
    null = {os.path.normcase(os.devnull)}
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
    starts = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty",
              "os.startfile", "pty.spawn")  # fmt: skip
    changes = ("os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod",
               "os.chown", "os.utime", "shutil.rmtree", "shutil.move")  # fmt: skip

    def outside(path):
        if not isinstance(path, (str, bytes, os.PathLike)):
            return False
        text = os.path.normcase(os.path.realpath(os.fsdecode(path)))
        return text not in null and not (text + os.sep).startswith(inside)

    def audit(event, args):
        if event.startswith("socket."):
            if event in ("socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo",
                         "socket.gethostbyname", "socket.gethostbyaddr"):  # fmt: skip
                raise PermissionError("the network is denied while tracing")
        elif event == "open":
            path, _, flags = args
            if isinstance(flags, int) and flags & writing and outside(path):
                raise PermissionError("writing is denied while tracing")
        elif event in starts:
            raise PermissionError("starting a process is denied while tracing")
        elif event in changes and any(outside(path) for path in args[:2]):
            raise PermissionError("changing files is denied while tracing")

    sys.addaudithook(audit)


def limit_memory(nbytes):
    """Let this process take at most `nbytes` of memory of its own, where the system can (Linux; macOS does not)."""
    try:
        import resource
    except ImportError:
        return
    for name in ("RLIMIT_DATA", "RLIMIT_CORE"):
        kind = getattr(resource, name, None)
        if kind is not None:
            with contextlib.suppress(ValueError, OSError):
                hard = resource.getrlimit(kind)[1]
                wanted = nbytes if name == "RLIMIT_DATA" else 0
                if hard != resource.RLIM_INFINITY:
                    wanted = min(wanted, hard)
                resource.setrlimit(kind, (wanted, hard))


# ---------------------------------------------------------------------------------------------------------- meter


class Life:
    """One storage: its bytes, the first and the last tick at which it was alive, what it is, where it is kept."""

    __slots__ = ("birth", "death", "kind", "nbytes", "ref", "weight")

    def __init__(self, nbytes, birth, kind):
        self.weight = kind == "parameters"  # or a copy of one
        self.nbytes = nbytes
        self.birth = birth
        self.death = None
        self.kind = kind
        self.ref = None


def make_meter_class():
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    current_node = getattr(torch._C, "_current_autograd_node", None)
    in_backward = getattr(torch._C, "_current_graph_task_id", None)
    sequence_nr = getattr(torch._C._autograd, "_get_sequence_nr", None)
    counting = sibling("worker_work")
    count = counting.make_counter()

    class Meter(TorchDispatchMode):
        """Writes down when each storage came and went. Time is counted in operators."""

        knows_backward = bool(current_node and in_backward and sequence_nr)

        def __init__(self):
            super().__init__()
            self.tick = 0
            self.lives = []
            self.alive = {}
            self.sections = [(0, "start")]
            self.bounds = []
            self.phase = "start"
            self.part = "start"  # whose operations are counted
            self.ledger = counting.Ledger(count) if count else None
            self.answer = None  # what code that asks for the contents of a tensor is told; None = it is refused
            self.last_op = None

        def see(self, tensor, kind=None, birth=None):
            if not isinstance(tensor, torch.Tensor) or tensor.layout != torch.strided:
                return
            storage = tensor.untyped_storage()
            key, nbytes = storage._cdata, storage.nbytes()
            life = self.alive.get(key)
            if life is not None:
                if life.nbytes != nbytes:  # resized in place: another storage from here on
                    life.death = self.tick - 1
                    del self.alive[key]
                    kind = kind or life.kind
                else:
                    if kind is not None and life.kind is None:
                        life.kind = kind
                    return
            life = Life(nbytes, self.tick if birth is None else birth, kind)

            def gone(_, self=self, life=life, key=key):
                if life.death is None:
                    life.death = self.tick
                if self.alive.get(key) is life:
                    del self.alive[key]

            life.ref = weakref.ref(storage, gone)
            self.alive[key] = life
            self.lives.append(life)

        def mark(self, tensors, kind):
            for tensor in tensors:
                self.see(tensor, kind)

        def enter(self, phase, part=None):
            """A new phase of the run; returns to the place before the first layer. Its work is that of `part`."""
            self.phase = phase
            self.part = part or phase
            self.at("before")

        def at(self, place):
            label = self.phase + ":" + place
            if self.sections[-1][1] != label:
                self.sections.append((self.tick + 1, label))

        def layer(self, place):
            """The model's forward reaches a layer (or its end); autograd's nodes from here on belong to it."""
            self.at(place)
            if sequence_nr is not None:
                self.bounds.append((sequence_nr(), place))

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            adding = False
            if self.phase == "backward" and self.knows_backward and in_backward() != -1:
                node = current_node()
                if node is None:
                    adding = func is torch.ops.aten.add.Tensor
                elif self.bounds and "AccumulateGrad" not in node.name():
                    index = bisect.bisect_right(self.bounds, (node._sequence_nr(), "~")) - 1
                    self.at(self.bounds[index][1] if index >= 0 else "before")
            if self.answer is not None and func is torch.ops.aten._local_scalar_dense.default:
                return self.answer(args[0])
            self.last_op = func
            out = func(*args, **(kwargs or {}))
            self.tick += 1
            for leaf in tree_leaves(out):
                self.see(leaf, birth=self.tick + 1 if adding else None)
            if self.ledger is not None:
                self.ledger.write(self.part, func, args, kwargs or {}, out, self.life_of)
            return out

        def life_of(self, tensor):
            return self.alive.get(tensor.untyped_storage()._cdata)

        def peaks(self, since):
            """For each section that began at tick `since` or later: the bytes alive at its worst tick, by kind."""
            last = self.tick
            change = [0] * (last + 3)
            for life in self.lives:
                death = last if life.death is None else life.death
                if death >= life.birth and life.birth <= last:
                    change[life.birth] += life.nbytes
                    change[death + 1] -= life.nbytes
            now, totals = 0, []
            for step in change[: last + 1]:
                now += step
                totals.append(now)
            worst = {}
            for index, (begin, label) in enumerate(self.sections):
                end = self.sections[index + 1][0] if index + 1 < len(self.sections) else last + 1
                for tick in range(max(begin, since), min(end, last + 1)):
                    if label not in worst or totals[tick] > totals[worst[label]]:
                        worst[label] = tick
            return {label: self.composition(tick) for label, tick in worst.items()}

        def composition(self, tick):
            found = {}
            for life in self.lives:
                if life.birth <= tick and (life.death is None or life.death >= tick):
                    kind = life.kind or "other"
                    found[kind] = found.get(kind, 0) + life.nbytes
            return found

    return Meter


# --------------------------------------------------------------------------------------------------------- models


def torch_dtype(name):
    import torch

    found = getattr(torch, str(name), None)
    if not isinstance(found, torch.dtype):
        raise Refused("bad_job", f"unknown dtype {name!r}")
    return found


DEPTH_FIELDS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers", "num_decoder_layers", "encoder_layers",
                "decoder_layers")  # fmt: skip


def cut(config, depth, full):
    """`config` (a dict) with `depth` layers instead of `full`; lists with one entry per layer are cut too."""
    short = {}
    for key, value in config.items():
        if key in DEPTH_FIELDS and value == full:
            short[key] = depth
        elif isinstance(value, list) and len(value) == full:
            short[key] = value[:depth]
        elif key == "attention_types" and isinstance(value, list):  # GPT-Neo: [[kinds, repeats], ...]
            kinds = [kind for group, times in value for _ in range(times) for kind in group]
            short[key] = [[[kind], 1] for kind in kinds[:depth]]
        else:
            short[key] = value
    return short


def declared_depth(config):
    for key in DEPTH_FIELDS:
        value = config.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None


class Transformers:
    """Models of Hugging Face transformers, by their config."""

    name = "transformers"

    def __init__(self, job):
        import transformers

        self.job = job
        self.lib = transformers
        transformers.logging.set_verbosity_error()
        self._undo_tracing_branches()
        given = dict(job["config"])
        model_type = given.get("model_type")
        if not isinstance(model_type, str):
            raise Refused("bad_config", "the config has no model_type")
        if given.get("quantization_config"):
            raise Refused("not_traceable", "quantised weights cannot be built without contents")
        if "auto_map" in given and model_type not in transformers.CONFIG_MAPPING:
            raise Refused(
                "unknown_model", f"model_type {model_type!r} runs code of its repository, which is not run here"
            )
        try:
            config_class = transformers.CONFIG_MAPPING[model_type]
        except KeyError:
            raise Refused(
                "unknown_model", f"transformers {transformers.__version__} has no model_type {model_type!r}"
            ) from None
        given.pop("model_type")
        given.pop("auto_map", None)
        self._class = config_class
        try:
            whole = config_class.from_dict(given)
        except Exception as error:
            raise Refused("bad_config", f"the config of {model_type!r} was refused: {said(error)}") from None
        self.n_layers = getattr(whole, "num_hidden_layers", None)
        # What the class filled in (layer_types, ...) counts too, so that it is cut with the rest.
        lists = {k: v for k, v in whole.to_dict().items() if isinstance(v, list) and len(v) == self.n_layers}
        self.given = {**lists, **given}
        self.encoder_decoder = bool(getattr(whole, "is_encoder_decoder", False))
        if self.encoder_decoder or declared_depth(self.given) != self.n_layers:
            self.n_layers = None
        self.model_class = self._pick(whole)

    def _undo_tracing_branches(self):
        """Take the branches that a run with contents takes: transformers asks whether it is being traced.

        Without this the causal mask is built even where a real run leaves it to the kernel.
        """
        masks = sys.modules.get("transformers.masking_utils")
        if masks is None:
            with contextlib.suppress(ImportError):
                import transformers.masking_utils as masks
        if masks is None:
            return
        if hasattr(masks, "is_tracing"):
            masks.is_tracing = lambda tensor=None: False
        if hasattr(masks, "find_packed_sequence_indices"):
            masks.find_packed_sequence_indices = lambda position_ids: None
        with contextlib.suppress(ImportError):
            import torch
            import transformers.integrations.moe as experts

            # torch's shape function of grouped_mm takes bfloat16 only, its kernels other dtypes too; transformers'
            # stand-in makes and keeps the same tensors.
            if hasattr(experts, "_can_use_grouped_mm"):
                experts._can_use_grouped_mm = lambda input, weight, offs: weight.dtype == torch.bfloat16

    def _pick(self, config):
        """The class that `architectures` names, else the causal model of the config's type, else its base."""
        named = (getattr(config, "architectures", None) or [None])[0]
        if isinstance(named, str) and named.isidentifier():
            found = getattr(self.lib, named, None)
            if isinstance(found, type) and issubclass(found, self.lib.PreTrainedModel):
                return found
        for auto in (self.lib.AutoModelForCausalLM, self.lib.AutoModelForMaskedLM, self.lib.AutoModel):
            if type(config) in auto._model_mapping:
                return auto._model_mapping[type(config)]
        raise Refused("unknown_model", f"transformers has no model for {type(config).__name__}")

    def build(self, depth):
        given = self.given if depth is None else cut(self.given, depth, self.n_layers)
        config = self._class.from_dict(given)
        if self.encoder_decoder:
            for key in ("decoder_start_token_id", "pad_token_id"):
                if getattr(config, key, None) is None:
                    setattr(config, key, 0)
        asked = {}
        if self.job.get("attention"):
            asked["attn_implementation"] = self.job["attention"]
        major = int(self.lib.__version__.split(".")[0])
        asked["dtype" if major >= 5 else "torch_dtype"] = torch_dtype(self.job["dtype"])
        with no_init():
            model = self.model_class._from_config(config, **asked)
        if hasattr(model, "tie_weights"):
            model.tie_weights()  # part of the initialisation that is left out
        if getattr(model, "main_input_name", "input_ids") != "input_ids":
            raise Refused("not_traceable", f"{type(model).__name__} takes {model.main_input_name}, not token ids")
        return model

    def attention_of(self, model):
        return getattr(model.config, "_attn_implementation", None)

    def inputs(self, shape):
        import torch

        ids = torch.zeros(shape, dtype=torch.long)
        return {"input_ids": ids, "decoder_input_ids": ids} if self.encoder_decoder else {"input_ids": ids}

    def options(self):
        wanted = {}
        if self.job.get("kv_cache") is not None:
            wanted["use_cache"] = bool(self.job["kv_cache"])
        for key in ("output_hidden_states", "output_attentions"):
            if self.job.get(key):
                wanted[key] = True
        return wanted

    def forward(self, model, inputs):
        return model(**inputs, **self.options())

    def loss(self, model, inputs):
        labels = inputs["decoder_input_ids" if self.encoder_decoder else "input_ids"]
        given = {"input_ids": inputs["input_ids"], "labels": labels}
        out = model(**given, **self.options())
        loss = getattr(out, "loss", None)
        if loss is None:
            raise Refused("not_traceable", f"{type(model).__name__} computes no loss from labels")
        return loss, out

    def mark(self, meter, out):
        """What the output object holds, by kind."""
        import torch
        from torch.utils._pytree import tree_leaves

        kinds = {
            "logits": "logits", "prediction_logits": "logits", "hidden_states": "cache", "attentions": "cache",
            "encoder_hidden_states": "cache", "decoder_hidden_states": "cache", "encoder_attentions": "cache",
            "decoder_attentions": "cache", "cross_attentions": "cache",
        }  # fmt: skip
        for field, value in out.items() if hasattr(out, "items") else ():
            if field in ("past_key_values", "cache_params"):
                meter.mark(tensors_within(value), "kv_cache")
            elif field in kinds:
                meter.mark([leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor)], kinds[field])


class TransformerLens:
    """HookedTransformer, by the numbers of its HookedTransformerConfig."""

    name = "transformer_lens"
    encoder_decoder = False

    def __init__(self, job):
        import transformer_lens

        self.job = job
        self.lib = transformer_lens
        found = None
        with contextlib.suppress(ImportError):  # what 4.0 raises for the names that it removed
            found = getattr(transformer_lens, "HookedTransformer", None)
        if found is None:
            raise Refused(
                "unknown_model",
                "this TransformerLens has no HookedTransformer (4.0 removed it): ask for library transformer_bridge",
            )
        self.n_layers = job["config"].get("n_layers")

    def build(self, depth):
        given = dict(self.job["config"])
        if depth is not None:
            given = cut(given, depth, self.n_layers)
        given.update(dtype=torch_dtype(self.job["dtype"]), device="cpu", init_weights=False)
        config = self.lib.HookedTransformerConfig(**given)
        model = self.lib.HookedTransformer(config, tokenizer=None, move_to_device=False)
        set_switches(model, self.job)
        return model

    def attention_of(self, model):
        return "eager"

    def inputs(self, shape):
        import torch

        return {"input": torch.zeros(shape, dtype=torch.long)}

    def forward(self, model, inputs):
        if self.job["task"] != "activation_cache":
            return model(inputs["input"], return_type="logits")
        stop = self.job.get("stop_at_layer")
        return model.run_with_cache(
            inputs["input"], names_filter=self.selects(model), stop_at_layer=stop, return_type="logits"
        )

    def selects(self, model):
        globs, layers = self.job.get("names_filter"), self.job.get("layers")
        if globs is None and layers is None:
            return None
        n = model.cfg.n_layers
        blocks = None if layers is None else {f"blocks.{i % n}." for i in layers}

        def selected(name):
            fits = globs is None or any(fnmatch.fnmatchcase(name, pattern) for pattern in globs)
            return fits and (blocks is None or any(name.startswith(block) for block in blocks))

        return selected

    def loss(self, model, inputs):
        loss = model(inputs["input"], return_type="loss")
        return loss, None

    def mark(self, meter, out):
        import torch

        if isinstance(out, tuple):
            logits, cache = out
            meter.mark(cache.values(), "cache")
            out = logits
        if isinstance(out, torch.Tensor):
            # With stop_at_layer it is the residual stream that is returned.
            meter.mark([out], "logits" if self.job.get("stop_at_layer") is None else "cache")


def set_switches(model, job):
    for flag in ("use_attn_result", "use_split_qkv_input", "use_hook_mlp_in", "use_attn_in"):
        if job.get(flag):
            getattr(model, "set_" + flag)(True)


class Bridge(TransformerLens):
    """TransformerBridge around a transformers model that is built by its config, as boot_transformers loads it."""

    name = "transformer_bridge"

    def __init__(self, job):
        import torch
        import transformer_lens.model_bridge

        self.job = job
        self.lib = transformer_lens.model_bridge
        self.inner = Transformers({**job, "attention": "eager"})
        self.n_layers = self.inner.n_layers
        if self.inner.encoder_decoder:
            raise Refused("not_traceable", "encoder-decoder models are not traced in a TransformerBridge")
        # Fake tensors have no addresses: what shares a storage is told by the storage.
        torch.Tensor.data_ptr = lambda tensor: tensor.untyped_storage()._cdata

    def build(self, depth):  # pyright: ignore[reportIncompatibleMethodOverride]
        model = self.inner.build(depth)
        model.config.architectures = [type(model).__name__]
        model.config.output_attentions = True  # what boot_transformers asks of the config that it loads
        bridge = self.lib.TransformerBridge.boot_transformers(
            "traced", hf_model=model, device="cpu", dtype=torch_dtype(self.job["dtype"]), tokenizer=small_tokenizer()
        )
        if self.job.get("compatibility_mode"):
            bridge.enable_compatibility_mode(no_processing=bool(self.job.get("no_processing")))
        set_switches(bridge, self.job)
        return bridge

    def forward(self, model, inputs):
        if self.job["task"] != "activation_cache":
            return model(inputs["input"], return_type="logits")
        stop = {} if self.job.get("stop_at_layer") is None else {"stop_at_layer": self.job["stop_at_layer"]}
        return model.run_with_cache(inputs["input"], names_filter=self.selects(model), **stop)


def small_tokenizer():
    """A tokenizer of three words: TransformerBridge wants one, and none can be fetched here."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(WordLevel({"a": 0, "b": 1, "<e>": 2}, unk_token="<e>"))
    return PreTrainedTokenizerFast(
        tokenizer_object=words, eos_token="<e>", pad_token="<e>", unk_token="<e>", name_or_path="none"
    )


def everything_in(model):
    """(parameters, buffers): those of a bridge that replaces `parameters` and wraps a model without registering it."""
    import torch

    modules = [model]
    inner = getattr(model, "original_model", None)
    if isinstance(inner, torch.nn.Module):
        modules.append(inner)
    parameters = [p for module in modules for p in torch.nn.Module.parameters(module)]
    return parameters, [b for module in modules for b in torch.nn.Module.buffers(module)]


def tensors_within(value, depth=6):
    """Every tensor reachable from a cache object by attributes, lists and dicts."""
    import torch

    found, seen, todo = [], set(), [(value, depth)]
    while todo:
        item, left = todo.pop()
        if id(item) in seen or left < 0:
            continue
        seen.add(id(item))
        if isinstance(item, torch.Tensor):
            found.append(item)
        elif isinstance(item, (list, tuple)):
            todo += [(part, left - 1) for part in item]
        elif isinstance(item, dict):
            todo += [(part, left - 1) for part in item.values()]
        elif hasattr(item, "__dict__") and not isinstance(item, type):
            todo += [(part, left - 1) for part in vars(item).values()]
    return found


@contextlib.contextmanager
def no_init():
    """Weights without contents need no initial values; without this building takes longer than running."""
    manager = None
    for name in ("transformers.initialization", "transformers.modeling_utils"):
        with contextlib.suppress(Exception):
            __import__(name)
            manager = manager or getattr(sys.modules[name], "no_init_weights", None)
    with manager() if manager else contextlib.nullcontext():
        yield


# ------------------------------------------------------------------------------------------------- layers, depths


def layer_list(model, n_layers):
    """The model's one list of `n_layers` layers; None where there is none, or where several could be meant."""
    import torch

    if not n_layers:
        return None
    found = []
    for name, module in model.named_modules():
        inner = any(name.startswith(outer + ".") for outer, _ in found)
        if isinstance(module, torch.nn.ModuleList) and len(module) == n_layers and not inner:
            found.append((name, module))
    return found[0][1] if len(found) == 1 else None


def signature(layer):
    """What distinguishes one layer from another: classes, shapes and plain settings, its number left out."""
    parts = []
    for name, module in layer.named_modules():
        plain = sorted(
            (key, repr(value))
            for key, value in vars(module).items()
            if isinstance(value, (bool, int, float, str))
            and "idx" not in key
            and key not in ("layer_id", "name", "training")
        )
        own = [(k, tuple(p.shape), str(p.dtype)) for k, p in module._parameters.items() if p is not None]
        own += [(k, tuple(b.shape), str(b.dtype)) for k, b in module._buffers.items() if b is not None]
        parts.append((name, type(module).__name__, tuple(plain), tuple(own)))
    return tuple(parts)


def pattern(signatures):
    """(layers before the pattern, its length), the shortest that explains all layers; None if none is short."""
    for length in range(1, LONGEST_PATTERN + 1):
        for first in range(LONGEST_PATTERN + 1):
            body = signatures[first:]
            if len(body) >= 4 * length and all(body[i] == body[i - length] for i in range(length, len(body))):
                return first, length
    return None


def places(n, first, length):
    """The name of each layer's place: from the front, from the back, or in the middle."""
    names = []
    for i in range(n):
        if i < first + length:
            names.append(f"layer+{i}")
        elif i >= n - length:
            names.append(f"layer-{n - i}")
        else:
            names.append("middle")
    return names


# ----------------------------------------------------------------------------------------------------------- runs


def watch_layers(layers, names, meter):
    """The meter is told when the model reaches a layer, and its end; returns what takes the hooks off again."""
    handles = []
    for layer, place in zip(layers, names):  # noqa: B905 (Python 3.9 has no strict)
        handles.append(layer.register_forward_pre_hook(lambda *_, place=place: meter.layer(place)))
        handles.append(
            layer.register_forward_hook(lambda *_: meter.layer("after") if meter.phase not in UNBOUND else None)
        )
    return handles


def make_optimizer(job, parameters):
    import torch

    kind = job.get("optimizer") or "adamw"
    # On CUDA torch chooses foreach; on the CPU, where this runs, it has to be asked for.
    classes = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}
    if kind in classes:
        return classes[kind](parameters, lr=1e-4, foreach=True)
    if kind == "sgd":
        return torch.optim.SGD(parameters, lr=1e-4, foreach=True)
    if kind == "sgd_momentum":
        return torch.optim.SGD(parameters, lr=1e-4, momentum=0.9, foreach=True)
    raise Refused("not_traceable", f"optimizer {kind!r} is not one of adamw, adam, sgd, sgd_momentum")


def optimizer_tensors(optimizer):
    return tensors_within(list(optimizer.state.values()))


def settle_steps():
    """Adam reads its step count with `.item()`; it decides no allocation and has no contents here."""
    import torch

    for name in ("adam", "adamw", "optimizer"):
        module = sys.modules.get("torch.optim." + name)
        if module is not None and hasattr(module, "_get_value"):
            module._get_value = lambda x: 1.0 if isinstance(x, torch.Tensor) else x


class Stage:
    """A model that is built and what watches it; a task may ask for several meters, one after the other."""

    def __init__(self, library, job, depth, shape_of_layers, meter_class):
        self.library, self.job, self.meter_class = library, job, meter_class
        self.model = library.build(depth)
        self.model.train(job["task"] == "training")
        self.n = library.n_layers if depth is None else depth
        self.layers = layer_list(self.model, self.n)
        self.shape_of_layers = shape_of_layers or (0, 1)
        self.handles = []
        gc.collect()

    tensors_within = staticmethod(tensors_within)

    @staticmethod
    def refuse(kind, message):
        raise Refused(kind, message)

    def meter(self, batch_size, seq_len):
        """(a new meter, the inputs) with the model's own tensors marked."""
        for handle in self.handles:
            handle.remove()
        meter = self.meter_class()
        parameters, buffers = everything_in(self.model)
        meter.mark(parameters, "parameters")
        meter.mark(buffers, "buffers")
        del parameters, buffers
        if self.layers is not None:
            self.handles = watch_layers(self.layers, places(self.n, *self.shape_of_layers), meter)
        inputs = self.library.inputs((batch_size, seq_len))
        meter.mark(inputs.values(), "inputs")
        return meter, inputs


def run_pass(stage):
    """One forward pass."""
    import torch

    job, library = stage.job, stage.library
    meter, inputs = stage.meter(job["batch_size"], job["seq_len"])
    with meter:
        meter.enter("forward")
        with torch.enable_grad() if job.get("with_gradients") else torch.no_grad():
            out = library.forward(stage.model, inputs)
        library.mark(meter, out)
    gc.collect()
    return [(meter, 0)]


def run_training(stage):
    """Two optimizer steps; the second is the steady one: the optimizer's state stands from its beginning."""
    job, library, model = stage.job, stage.library, stage.model
    if job.get("gradient_checkpointing"):
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    meter, inputs = stage.meter(job["batch_size"], job["seq_len"])
    since = 0
    with meter:
        optimizer = make_optimizer(job, [p for p in model.parameters() if p.requires_grad])
        for step in (1, 2):
            since = meter.tick + 1
            meter.bounds.clear()
            meter.enter("forward", f"forward {step}")
            loss, out = library.loss(model, inputs)
            library.mark(meter, out)
            meter.enter("backward", f"backward {step}")
            meter.at("after")
            loss.backward()
            meter.mark([p.grad for p in model.parameters() if p.grad is not None], "gradients")
            meter.enter("optimizer")
            optimizer.step()
            if step == 1:
                meter.mark(optimizer_tensors(optimizer), "optimizer_state")
            optimizer.zero_grad()
    gc.collect()
    return [(meter, since)]


def task_of(name):
    """The function that runs a task on a `Stage` and returns its meters, each with the tick it counts from."""
    if name in ("generation", "patching"):
        return getattr(sibling("worker_tasks"), "run_" + name)
    return run_training if name == "training" else run_pass


def sibling(name):
    """The module in the file `name`.py beside this one, which is no package."""
    import importlib.util

    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), name + ".py")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def trace(library, job, depth, shape_of_layers, meter_class):
    """One trace at `depth` layers (None: as the config says)."""
    stage = Stage(library, job, depth, shape_of_layers, meter_class)
    runs = task_of(job["task"])(stage)
    sections = {}
    for meter, since in runs:
        for label, kinds in meter.peaks(since).items():
            if label not in sections or sum(kinds.values()) > sum(sections[label].values()):
                sections[label] = kinds
    last = runs[-1][0]
    work = {}
    for meter, _ in runs:
        if meter.ledger is not None:
            work.update(meter.ledger.work())
    shared = {p.untyped_storage()._cdata: p.numel() for p in everything_in(stage.model)[0]}
    return {
        "n_layers": stage.n,
        "sections": sections,
        "retained": last.composition(last.tick),
        "parameters": sum(shared.values()),
        "operators": last.tick,
        "work": work,
        "class": type(stage.model).__name__,
        "attention": library.attention_of(stage.model),
    }


LIBRARIES = {"transformers": Transformers, "transformer_lens": TransformerLens, "transformer_bridge": Bridge}


def depths_for(library, job, fake):
    """(depths to trace, pattern of the layers); (None,) where the model must be traced whole."""
    n = library.n_layers
    if not n or n <= SHALLOW or job.get("whole") or job.get("layers") is not None:
        return (None,), None
    if job.get("stop_at_layer") is not None or job.get("names_filter") is not None:
        # What a filter keeps of which layer is not linear in the depth.
        return (None,), None
    if job.get("method") in ("eap", "eap_ig"):  # edges: their number grows with the square of the depth
        return (None,), None
    if (job["task"] in ("training", "patching") or job.get("with_gradients")) and not make_meter_class().knows_backward:
        return (None,), None
    with fake():
        whole = library.build(None)
    layers = layer_list(whole, n)
    if layers is None:
        return (None,), None
    signatures = [signature(layer) for layer in layers]
    found = pattern(signatures)
    if found is None:
        return (None,), None
    first, length = found
    rest = first + (n - first) % length
    depths = tuple(rest + length * times for times in (2, 3, 4))
    if depths[-1] * 2 >= n:
        return (None,), None
    with fake():
        short = layer_list(library.build(depths[-1]), depths[-1])
    if short is None or [signature(layer) for layer in short] != signatures[: depths[-1]]:
        return (None,), None
    return depths, found


def work(job):
    started = time.perf_counter()
    for name in ("library", "task", "config", "dtype", "batch_size", "seq_len"):
        if name not in job:
            raise Refused("bad_job", f"{name!r} is missing")
    try:
        import torch
    except ImportError as error:
        raise Refused("missing_library", f"torch cannot be imported: {said(error)}") from None
    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if version < OLDEST_TORCH:
        raise Refused("old_torch", f"torch {torch.__version__} is older than 2.1, which tracing needs")
    from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode

    if job["library"] not in LIBRARIES:
        raise Refused("bad_job", "library {!r} is not traced; traced: {}".format(job["library"], ", ".join(LIBRARIES)))
    try:
        library = LIBRARIES[job["library"]](job)
    except ImportError as error:
        raise Refused("missing_library", "{} cannot be imported: {}".format(job["library"], said(error))) from None
    settle_steps()
    meter_class = make_meter_class()
    imported = time.perf_counter()
    try:
        depths, shape_of_layers = depths_for(library, job, FakeTensorMode)
        traces = []
        for depth in depths:
            with FakeTensorMode():
                traces.append(trace(library, job, depth, shape_of_layers, meter_class))
            gc.collect()
    except (DataDependentOutputException, DynamicOutputShapeException) as error:
        raise Refused(
            "not_traceable", f"its code decides by the contents of a tensor ({said(error)}), which a trace has not"
        ) from None
    return {
        "n_layers": library.n_layers,
        "traces": traces,
        "pattern": shape_of_layers,
        "versions": versions(("torch", "transformers", "transformer-lens", "sae-lens", "nnsight")),
        "python": ".".join(map(str, sys.version_info[:3])),
        "seconds": {
            "imports": round(imported - started, 3),
            "traces": round(time.perf_counter() - imported, 3),
        },
    }


def versions(names):
    from importlib import metadata

    found = {}
    for name in names:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def said(error):
    text = " ".join((f"{type(error).__name__}: {error}").split())
    return text if len(text) <= 300 else text[:297] + "..."


def main(argv):
    # The folder of this script, and where a caller put one, the working folder: nothing there is meant.
    here = os.path.realpath(os.path.dirname(os.path.abspath(argv[0])))
    sys.path[:] = [entry for entry in sys.path if entry and os.path.realpath(entry) != here]
    answer = os.dup(1)
    os.dup2(2, 1)
    with open(argv[1], encoding="utf-8") as file:
        job = json.load(file)
    limit_memory(int(job.get("memory_limit") or 8 << 30))
    confine(here)
    try:
        result = work(job)
    except Refused as refusal:
        result = {"error": {"kind": refusal.kind, "message": str(refusal)}}
    except MemoryError:
        result = {"error": {"kind": "memory", "message": "the trace itself ran out of its memory limit"}}
    except BaseException as error:
        if os.environ.get("COMPUTE_AWARENESS_TRACE_DEBUG"):
            import traceback

            traceback.print_exc()
        result = {"error": {"kind": "failed", "message": said(error)}}
    text = MARKS[0] + json.dumps(result) + MARKS[1] + "\n"
    data = text.encode("utf-8")
    while data:
        data = data[os.write(answer, data) :]
    # Not a return: libraries loaded with torch can hang or crash when Python winds down.
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv)
