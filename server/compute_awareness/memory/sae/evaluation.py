"""SAELens' evaluation in the middle of training: three times full-vocabulary logits, then features of a whole batch.

Read off sae_lens 6.54.12: `LLMSaeEvaluator` (llm_sae_training_runner.py), `get_recons_loss` and
`get_sparsity_and_variance_metrics` (evals.py), `_run_and_log_evals` (training/sae_trainer.py); the loss of
transformer_lens 3.9.0 (utilities/lm_utils.py). The runner evaluates only where `log_to_wandb` is on (its default),
every wandb_log_frequency * eval_every_n_wandb_logs = 10 * 100 steps, and asks for cross-entropy, not KL.
"""

from __future__ import annotations

from dataclasses import replace

from ... import hook_names
from ..hooked.run import Run
from ..hooked.transformer import forward
from ..tape import Tape, Tensor
from .frame import Frame
from .inference import Use, encode_then_decode, reconstruct
from .splice import spliced_forward
from .step import FLOAT, INDEX


def first_evaluation(training_tokens: int, batch: int, every_steps: int) -> int | None:
    """The step (from 1) after which SAELens first evaluates; None where the run is shorter than that."""
    return every_steps if -(-training_tokens // batch) >= every_steps else None


def evaluation(run: Run, hook_name: str, use: Use, *, cpu_kernels: bool = False) -> Tape:
    """One round, above weights, SAE, optimizer and store.

    Args:
        run: the model's call on eval_batch_size_prompts (else store_batch_size_prompts) prompts, the whole model.
        hook_name: the SAE's hook.
        use: the SAE on those tokens, `training` true.
        cpu_kernels: also what only torch's CPU kernels take: sums of bools are cast to int64 first.
    """
    tape = Tape()
    _reconstruction(tape, run, hook_name, use, cpu_kernels)
    _sparsity(tape, run, hook_name, use, cpu_kernels)
    if use.width != FLOAT:  # log_histograms: W_dec.float().norm(dim=1)
        tape.touch(FLOAT * use.d_sae * use.d_in)
    return tape


def _reconstruction(tape: Tape, run: Run, hook_name: str, use: Use, cpu_kernels: bool) -> None:
    """get_recons_loss: clean, reconstructed and zero-ablated; the logits of all three stay until it returns."""
    rows = use.rows
    tokens = tape.new(INDEX * rows)
    mask = tape.new(rows)
    hooked = rows * use.d_in * run.width

    def with_sae(tape: Tape, source: Tensor, _: Tensor) -> Tensor:
        acts, out = reconstruct(tape, use, source, cpu_kernels=cpu_kernels)
        tape.drop(acts)
        if use.width != run.width:
            cast = tape.new(hooked)
            tape.drop(out)
            out = cast
        chosen = tape.new(hooked)  # torch.where(mask, reconstruction, activations)
        tape.drop(out)
        return chosen

    calls = [
        forward(run).tape,
        spliced_forward(run, hook_name, with_sae),
        spliced_forward(run, hook_name, lambda tape, *_: tape.new(hooked)),
    ]
    left: list[Tensor] = []
    for call in calls:
        tape.append(call)
        tape.drop(tape.adopt(INDEX * rows, "temporaries"))  # the call's tokens are the ones above
        logits = tape.adopt(run.width * rows * run.spec.d_vocab, "logits")
        # log_softmax, gathered and let go, while the model's frame still holds the normed residual stream
        tape.touch(logits.bytes + run.width * rows * (run.spec.d_model + 2))
        left.append(logits)
    tape.drop(*left, tokens, mask)


def _sparsity(tape: Tape, run: Run, hook_name: str, use: Use, cpu_kernels: bool) -> None:
    """get_sparsity_and_variance_metrics: features of the whole batch and a masked copy of them, batch after batch.

    The loop's variables keep those of the batch before until they are assigned again; the second batch is played too.
    """
    layer = hook_names.layer_of(hook_name)
    stopped = replace(run, selects=hook_names.only(hook_name), stop_at_layer=None if layer is None else layer + 1)
    call = forward(stopped).tape
    left = [
        (name, size - (INDEX * use.rows if name == "temporaries" else 0)) for name, size in call.by_component.items()
    ]
    totals = tape.new(2 * FLOAT * use.d_sae)
    frame = Frame(tape)
    assign = frame.assign
    for _ in range(2):
        assign("tokens", tape.new(INDEX * use.rows))
        assign("mask", tape.new(use.rows))
        tape.append(call)
        tape.drop(tape.adopt(INDEX * use.rows, "temporaries"))
        assign("call", *(tape.adopt(size, name) for name, size in left))
        source = tape.adopt(0, "temporaries")
        out = encode_then_decode(tape, use, source, lambda acts: assign("acts", acts), cpu_kernels=cpu_kernels)
        assign("out", out)
        for name in ("in", "masked_acts", "masked_out"):  # now views of the new ones
            assign(name)
        given, wide = use.d_in * run.width, use.d_in * max(run.width, use.width)
        for name, size in (("in", given), ("masked_acts", use.d_sae * use.width), ("masked_out", use.d_in * use.width)):
            row_numbers = tape.new(INDEX * use.rows)
            assign(name, tape.new(use.rows * size))
            tape.drop(row_numbers)
        active = tape.new(use.features)
        tape.touch(INDEX * use.features if cpu_kernels else 0)
        tape.drop(active)
        tape.touch(use.features * use.width)  # abs()
        difference = tape.new(use.rows * wide)
        tape.touch(use.rows * wide)
        tape.drop(difference)
        assign("normed", tape.new(use.rows * given), tape.new(use.rows * use.d_in * use.width))
        tape.touch(use.rows * wide)
    frame.leave()
    tape.drop(totals)
