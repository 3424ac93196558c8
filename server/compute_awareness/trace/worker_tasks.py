"""Generation and patching, run by `worker.py` in the experiment's Python; imports nothing of this package.

Generated text decides when to stop, and a patching's metric is read as a number: both ask for the contents of tensors,
which a trace has not. They are told what holds in the runs that are estimated: no sequence ends early, no prompt is
padded, probabilities are valid, and a metric may be any number.
"""

# pyright: reportAttributeAccessIssue=false, reportOptionalMemberAccess=false

from __future__ import annotations

import functools
import gc
import sys
import types

STEPS = 5
"""New tokens that are really made. More are traced as the last of a longer prompt's."""
_TRUE_IN = ("masking_utils.py", "modeling_attn_mask_utils.py", "distributions")


def _asked_by():
    """The files of the frames that ask for a tensor's contents, the innermost first, torch's own left out."""
    frame, files = sys._getframe(3), []
    while frame is not None and len(files) < 8:
        file = frame.f_code.co_filename.replace("\\", "/")
        if "/torch/" not in file or "distributions" in file:
            files.append(file)
        frame = frame.f_back
    return files


def _answer(meter, finished):
    """What is said to code that asks: whether all tokens are made, that nothing is padded, or the number 0."""
    import torch

    def answer(tensor):
        if tensor.dtype != torch.bool:
            return 0.0 if tensor.dtype.is_floating_point else 0
        files = _asked_by()
        if any(part in file for file in files for part in _TRUE_IN):
            return True
        if files[0].endswith("generation/utils.py") and meter.last_op is torch.ops.aten.all.default:
            return True  # `(attention_mask == 1).all()`: the mask is left out
        return finished()

    return answer


# ----------------------------------------------------------------------------------------------------- generation


def run_generation(stage):
    """`generate`: the prompt's pass, the steps after it, and the last ones."""
    job = stage.job
    new, total = job["new_tokens"], job["seq_len"] + job["new_tokens"]
    caching = job.get("kv_cache", True)
    if new <= STEPS:
        return [_generate(stage, job["seq_len"], new)]
    # Without a cache every step runs the whole sequence again, so the last are the worst. Buffers grow with the
    # sequence and stay, so the shorter call comes first.
    first = [_generate(stage, job["seq_len"], STEPS)] if caching else []
    return [*first, _generate(stage, total - STEPS, STEPS, "last", 4)]


def _generate(stage, seq_len, new, name="next", counts_from=1):
    """(the meter, the tick at which step `counts_from` begins) of one call of generate.

    The work of each step is kept by its number in the whole run; the first step of a call that stands for its end has
    a longer prompt than any, and is no step of it where keys are kept.
    """
    import torch

    job, library, model = stage.job, stage.library, stage.model
    meter, inputs = stage.meter(job["batch_size"], seq_len)
    began = []

    def begins(*_):
        gc.collect()
        began.append(meter.tick + 1)
        number = seq_len - job["seq_len"] + len(began)
        part = "longer prompt" if len(began) == 1 and number > 1 and job.get("kv_cache", True) else f"step {number}"
        meter.enter("prompt" if len(began) == 1 else "second" if len(began) == 2 else name, part)

    def ends(_, given, out):
        kept = getattr(out, "past_key_values", None)
        if kept is not None:
            meter.mark(stage.tensors_within(kept), "kv_cache")
        logits = getattr(out, "logits", out)
        if isinstance(logits, torch.Tensor):
            meter.mark([logits], "logits")

    meter.answer = _answer(meter, lambda: len(began) >= new)
    whole = getattr(model, "original_model", model)
    undo = [_before_each_forward(model, begins), whole.register_forward_hook(ends).remove]
    try:
        with meter, torch.no_grad():
            meter.enter("prompt")
            out = _CALLS[library.name](model, next(iter(inputs.values())), new, caching=job.get("kv_cache", True))
        assert len(began) == new, f"{len(began)} steps instead of {new}"
        del out
    finally:
        for off in undo:
            off()
    return meter, began[counts_from - 1] if counts_from > 1 else 0


def _before_each_forward(model, hook):
    """Call `hook` at each step, however generate calls the model; returns what undoes it."""
    real = model.forward

    @functools.wraps(real)
    def forward(*args, **kwargs):
        hook()
        return real(*args, **kwargs)

    object.__setattr__(model, "forward", forward)
    return lambda: object.__delattr__(model, "forward")


def _of_transformers(model, ids, new, caching):
    config = model.generation_config
    config.eos_token_id, config.pad_token_id, config.bos_token_id = model.config.vocab_size, None, None
    return model.generate(ids, max_new_tokens=new, do_sample=False, use_cache=caching)


def _of_hooked(model, ids, new, caching):
    import torch

    model.tokenizer = types.SimpleNamespace(padding_side="right", pad_token_id=0, bos_token_id=0, eos_token_id=10**6)
    # Its forward asks for `type(input) == torch.Tensor`, which a tensor without contents is not.
    sys.modules[type(model).__module__].type = lambda x: torch.Tensor if isinstance(x, torch.Tensor) else type(x)
    generate = type(model).generate
    # inference_mode would hide what operators do inside; no_grad is on already.
    generate = getattr(generate, "__wrapped__", generate)
    return generate(model, ids, max_new_tokens=new, use_past_kv_cache=caching, verbose=False)


def _of_bridge(model, ids, new, caching):
    generate = type(model).generate
    generate = getattr(generate, "__wrapped__", generate)
    return generate(model, ids, max_new_tokens=new, use_past_kv_cache=caching, verbose=False)


_CALLS = {"transformers": _of_transformers, "transformer_lens": _of_hooked, "transformer_bridge": _of_bridge}


# ------------------------------------------------------------------------------------------------------- patching


def run_patching(stage):
    """The clean cache, then patched passes or the pass with gradients, as people write them with TransformerLens."""
    method = stage.job["method"]
    stage.model.requires_grad_(bool(stage.job.get("parameter_gradients", True)))
    meter, inputs = stage.meter(stage.job["batch_size"], stage.job["seq_len"])
    meter.answer = _answer(meter, lambda: False)
    run = {"activation_patching": _activation_patching, "attribution_patching": _attribution_patching}[method]
    with meter:
        run(stage, meter, inputs["input"])
    gc.collect()
    return [(meter, 0)]


def _clean(stage, meter, clean):
    """`clean_logits, clean_cache = model.run_with_cache(clean)` without gradients, marked."""
    import torch

    meter.enter("clean")
    with torch.no_grad():
        logits, cache = stage.model.run_with_cache(clean, names_filter=stage.library.selects(stage.model))
    if not len(cache):
        stage.refuse("bad_job", "names_filter: it keeps no hook that fires")
    meter.mark([logits], "logits")
    meter.mark(cache.values(), "cache")
    return logits, cache


def _activation_patching(stage, meter, clean):
    """transformer_lens.patching.generic_activation_patch under torch.no_grad(), two patches of the sweep."""
    import torch

    corrupted = clean.clone()
    clean_logits, cache = _clean(stage, meter, clean)
    name = next(iter(cache.keys()))
    kept = cache[name]

    def patch(activation, hook):
        activation[:, 0] = kept[:, 0]
        return activation

    results = torch.zeros(stage.job.get("patches") or 1)
    for number in range(min(2, len(results))):
        meter.enter("patched", f"patched {number + 1}")
        with torch.no_grad():
            logits = stage.model.run_with_hooks(corrupted, fwd_hooks=[(name, patch)])
            meter.mark([logits], "logits")
            results[number] = logits[0, -1, 0].item()
    del clean_logits


def _attribution_patching(stage, meter, clean):
    """Activations and gradients of the corrupted run are kept by hooks; then (clean - corrupted) * gradient."""
    import torch

    model = stage.model
    corrupted, answers = clean.clone(), torch.zeros(len(clean), 1, dtype=torch.long)
    clean_logits, cache = _clean(stage, meter, clean)
    names = list(cache.keys())
    activations, gradients = {}, {}

    def keep(into, name):
        def hooked(tensor, hook):
            into[name] = tensor.detach()
            meter.mark([into[name]], "cache")

        return hooked

    forward_hooks = [(name, keep(activations, name)) for name in names]
    if not next(iter(model.parameters())).requires_grad:
        forward_hooks = [("hook_embed", lambda embed, hook: embed.requires_grad_()), *forward_hooks]
    backward_hooks = [(name, keep(gradients, name)) for name in names]
    meter.enter("forward")
    with model.hooks(fwd_hooks=forward_hooks, bwd_hooks=backward_hooks):
        value = model(corrupted)[:, -1, :].gather(-1, answers).mean()
        meter.enter("backward")
        meter.at("after")
        value.backward()
    meter.mark([p.grad for p in model.parameters() if p.grad is not None], "gradients")
    meter.enter("scores")
    scores = {
        name: ((cache[name] - activations[name]) * gradients[name]).sum() for name in gradients if name in activations
    }
    if not scores:
        stage.refuse("bad_job", "names_filter: it keeps no hook that fires")
    del clean_logits
