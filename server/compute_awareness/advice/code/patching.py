"""Code of patching: what of it decides memory. The metric and the sweep are the experiment's own."""

from __future__ import annotations

from textwrap import indent

from ...models.resolve import resolve
from ...workload import AnyWorkload, Patching
from .common import load
from .filters import hook_test, needs_fnmatch


def parts(workload: Patching, whole: AnyWorkload, by_layer: bool, device: str) -> dict[str, str]:
    assert isinstance(whole, Patching)
    setup = ""
    if not workload.parameter_gradients:
        setup = (
            "model.requires_grad_(False)\n"
            'model.add_hook("hook_embed", lambda embed, hook: embed.requires_grad_(), is_permanent=True)'
            "  # backward starts here"
        )
    spec = resolve(workload.model)
    test = hook_test(workload.names_filter, None if by_layer else workload.layers, spec)
    if by_layer:
        test = 'name.startswith(f"blocks.{layer}.")' + (f" and {test}" if test else "")
    hooks = f"keep = lambda name: {test or True}  # names_filter of every run_with_cache, and of every add_hook"
    clean, corrupted = "clean", "corrupted"
    if workload.seq_len < whole.seq_len:
        clean, corrupted = f"clean[:, :{workload.seq_len}]", f"corrupted[:, :{workload.seq_len}]"
    if workload.batch_size < whole.batch_size:
        size = workload.batch_size
        run = (
            f"for pair in zip({clean}.split({size}), {corrupted}.split({size})):\n"
            "    effects += effects_of(*pair)  # your patching of one batch, weighed by its prompts"
        )
    else:
        run = f"effects += effects_of({clean}, {corrupted})  # your patching"
    again = by_layer or workload.batch_size < whole.batch_size
    if again and workload.parameter_gradients and workload.method != "activation_patching":
        inner = "    " * (workload.batch_size < whole.batch_size)
        run += f"\n{inner}model.zero_grad()  # the weights' gradients would stay through the next pass"
    if by_layer:
        hooks, run = "", f"for layer in range({spec.n_layers}):\n{indent(f'{hooks}{chr(10)}{run}', '    ')}"
    imports = needs_fnmatch(test)
    return {"load": load(workload, device), "setup": setup, "hooks": imports + hooks, "run": run}
