"""Code of a training step."""

from __future__ import annotations

from textwrap import indent

from ...memory.huggingface.outputs import layout
from ...models.resolve import resolve
from ...workload import AnyWorkload, Training
from .common import in_batches, load

_OPTIMIZERS = {
    "adamw": "torch.optim.AdamW({})", "adam": "torch.optim.Adam({})", "sgd": "torch.optim.SGD({})",
    "sgd_momentum": "torch.optim.SGD({}, momentum=0.9)", "adamw_8bit": "bitsandbytes.optim.AdamW8bit({})",
}  # fmt: skip


def parts(workload: Training, whole: AnyWorkload, device: str) -> dict[str, str]:
    adapters, checkpointing = "", ""
    if workload.trainable == "lora":
        targets = f", target_modules={workload.lora_targets!r}" if workload.lora_targets else ""
        adapters = (
            "from peft import LoraConfig, get_peft_model\n"
            f"model = get_peft_model(model, LoraConfig(r={workload.lora_rank}{targets}))"
        )
    # After the adapters: peft makes the embeddings want gradients too in a model that it finds checkpointed.
    if workload.gradient_checkpointing:
        checkpointing = 'model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})'
    make = _OPTIMIZERS[workload.optimizer].format("model.parameters(), lr=lr")
    optimizer = f"optimizer = {make}"
    if workload.optimizer == "adamw_8bit":
        optimizer = f"import bitsandbytes\n{optimizer}"
    return {
        "load": load(workload, device),
        "adapters": adapters,
        "checkpointing": checkpointing,
        "distributed": _distributed(workload),
        "optimizer": optimizer,
        "run": _step(workload, whole, device),
    }


def _distributed(workload: Training) -> str:
    """One process for each card, its copy of the model wrapped."""
    if workload.n_devices == 1:
        return ""
    if workload.parallel == "fsdp":
        return (
            f"# torchrun --nproc_per_node={workload.n_devices} train.py\n"
            'rank = int(os.environ["LOCAL_RANK"])\n'
            "torch.cuda.set_device(rank)\n"
            'torch.distributed.init_process_group("nccl")\n'
            "from torch.distributed.fsdp import fully_shard\n"
            f'for block in model.get_submodule("{layout(resolve(workload.model)).layers}"):\n'
            "    fully_shard(block)\n"
            "fully_shard(model)  # each block goes to the card as it is sharded"
        )
    views = ", gradient_as_bucket_view=True" if workload.gradient_as_bucket_view else ""
    return (
        f"# torchrun --nproc_per_node={workload.n_devices} train.py\n"
        'rank = int(os.environ["LOCAL_RANK"])\n'
        "torch.cuda.set_device(rank)\n"
        'torch.distributed.init_process_group("nccl")\n'
        f"model = torch.nn.parallel.DistributedDataParallel(model.to(rank), device_ids=[rank]{views})"
    )


def _step(workload: Training, whole: AnyWorkload, device: str) -> str:
    """One step of the optimizer: the whole batch, in as many passes as it takes."""
    assert isinstance(whole, Training)
    inputs = "input_ids" if workload.library == "transformers" else "tokens"
    if workload.n_devices > 1:  # each process takes its share of the batch that was asked for
        share = -(-whole.batch_size * whole.n_devices // workload.n_devices)
        inputs, whole = f"{inputs}.chunk({workload.n_devices})[rank]", whole.model_copy(update={"batch_size": share})
    # The passes that were asked for are the experiment's own loop; those that a smaller batch adds are ours.
    added = -(-whole.batch_size // workload.batch_size)
    call = "model(batch, labels=batch, use_cache=False).loss"
    if workload.library != "transformers":
        call = 'model(batch, return_type="loss")'
    forward = f"loss = {call}" + (f" / {added}" if added > 1 else "")
    if workload.autocast:
        forward = f'with torch.autocast("{device}", dtype=torch.{workload.autocast}):\n{indent(forward, "    ")}'
    body = in_batches(workload, whole, inputs, f"{forward}\nloss.backward()")
    return f"{body}\noptimizer.step()\noptimizer.zero_grad()"
