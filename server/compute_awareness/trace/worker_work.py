"""Counts the operations of a trace, run by `worker.py` in the experiment's Python; imports nothing of this package.

Operations are those of `torch.utils.flop_counter.FlopCounterMode`: matrix products and convolutions, two for each
multiply-add. What that counter leaves out is counted here as the same products: the CPU's fused attention, which is
traced in place of CUDA's, and grouped products of experts.
"""

# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

FIGURES = ("flops", "moved", "activations", "kernels")


def bytes_of(tensor, rows=None):
    """Bytes of the numbers in a tensor; of experts' weights those that `rows` rows can meet at the most."""
    size = tensor.numel() * tensor.element_size()
    if rows is not None and tensor.dim() == 3:
        size = size // tensor.shape[0] * min(rows, tensor.shape[0])
    return size


def _attention(q, k, v):
    """Scores, and their product with the values; heads that share keys have them all the same."""
    (batch, heads, rows, inner), keys, outer = q.shape, k.shape[-2], v.shape[-1]
    return 2 * batch * heads * rows * keys * inner, 2 * batch * heads * rows * keys * outer


def _fused(args):
    return sum(_attention(*args[:3]))


def _fused_backward(args):
    """The scores once more, and the gradients of two products."""
    scores, values = _attention(*args[1:4])
    return 3 * scores + 2 * values


def _grouped(args):
    """Each row with the matrix of its group, by sorted rows; or the rows of a group with each other (a gradient)."""
    left, right = args[:2]
    if left.dim() == 2:
        return 2 * left.numel() * right.shape[-1]
    return 2 * left.shape[-2] * right.numel()


def make_counter():
    """A function of (operator, its arguments, its result): the operations of a product, None of what is none.

    None where torch is older than 2.2, whose counter has no table of formulas.
    """
    import torch
    from torch.utils import flop_counter

    registry = getattr(flop_counter, "flop_registry", None)
    if registry is None:
        return None
    aten = torch.ops.aten
    own = {getattr(aten, "_grouped_mm", None): _grouped}
    for name in ("flash_attention", "efficient_attention", "cudnn_attention", "flash_attention_for_cpu"):
        own[getattr(aten, "_scaled_dot_product_" + name, None)] = _fused
        own[getattr(aten, "_scaled_dot_product_" + name + "_backward", None)] = _fused_backward

    def count(func, args, kwargs, out):
        packet = func.overloadpacket
        if packet in own:
            return own[packet](args)
        if packet in registry:
            return registry[packet](*args, **kwargs, out_val=out)
        if func.namespace == "transformers" and "grouped_mm" in func.name():
            return _grouped(args) * (2 if func.name().endswith("backward") else 1)
        return None

    return count


class Ledger:
    """What the operators of each part of a run did."""

    def __init__(self, count):
        import torch
        from torch.utils._pytree import tree_leaves

        self.count, self.leaves, self.tensor = count, tree_leaves, torch.Tensor
        self.products = []
        self.kernels = {}
        aten = torch.ops.aten
        self.copies = (aten.clone, aten._to_copy)
        self.no_kernel = (aten.empty, aten.detach)

    def write(self, part, func, args, kwargs, out, life_of):
        """One operator. `life_of`: what the meter keeps of a tensor's storage."""
        if func.namespace == "prim":  # asks a tensor without contents for its device
            return
        packet = func.overloadpacket
        if packet in self.copies:
            copied, copy = life_of(args[0]), life_of(out)
            if copied is not None and copied.weight and copy is not None:
                copy.weight = True  # made to multiply with it
        if not getattr(func, "is_view", False) and packet not in self.no_kernel:
            self.kernels[part] = self.kernels.get(part, 0) + 1
        flops = self.count(func, args, kwargs, out)
        if flops is not None:
            rows = args[0].shape[0] if "grouped_mm" in func.name() else None
            leaves = [t for t in self.leaves((args, kwargs, out)) if isinstance(t, self.tensor)]
            self.products.append((part, flops, [(life_of(t), bytes_of(t, rows)) for t in leaves]))

    def work(self):
        """Operations, bytes that products read and write, those of them that are no weights, and kernels; by part."""
        found = {part: dict.fromkeys(FIGURES, 0) for part in self.kernels}
        for part, number in self.kernels.items():
            found[part]["kernels"] = number
        for part, flops, operands in self.products:
            row = found[part]
            row["flops"] += flops
            for life, size in operands:
                row["moved"] += size
                if life is None or not (life.weight or life.kind == "gradients"):
                    row["activations"] += size
        return found
