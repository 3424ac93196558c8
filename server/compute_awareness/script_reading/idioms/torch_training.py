"""torch: optimizers, `backward()`, and with them training loops."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..values import Args, Bound, Choice, Dict, Instance, Items, Known, Source, Thing, Unknown, number
from .models import Model, Parameter, Parameters
from .own_sae import TRAINED, stepped
from .registry import function, method

if TYPE_CHECKING:
    from ..reader import Reader

_OPTIMIZERS = {
    "AdamW": "adamw", "Adam": "adam", "SGD": "sgd", "AdamW8bit": "adamw_8bit", "Adam8bit": "adamw_8bit",
    "PagedAdamW8bit": "adamw_8bit", "NAdam": "adam", "RAdam": "adam",
}  # fmt: skip


class Optimizer(Thing):
    """An optimizer and what it trains."""

    label = "optimizer"

    def __init__(self, kind: str, of: list[Any], line: int) -> None:
        self.kind, self.of, self.line = kind, of, line

    def held(self) -> Iterable[Any]:
        return self.of

    def method(self, name: str, args: Args, reader: Reader) -> Any:
        if name == "step":
            stepped(reader, self, args)
        return Known(None)


def _subjects(value: Any, reader: Reader, depth: int = 0) -> list[Any]:
    """The models whose parameters these are."""
    if isinstance(value, Parameters):
        return [value.of]
    if isinstance(value, Bound) and value.name == "parameters":
        return [value.owner]
    if isinstance(value, Choice):
        return [subject for option in value.options for subject in _subjects(option, reader, depth + 1)]
    if isinstance(value, Items) and depth < 3:
        found = [subject for item in value.items[:20] for subject in _subjects(item, reader, depth + 1)]
        return [one for at, one in enumerate(found) if not any(one is earlier for earlier in found[:at])]
    if isinstance(value, Parameter):
        return [value.of]
    if isinstance(value, Dict) and "params" in value.items:
        return _subjects(value.items["params"], reader, depth + 1)
    return []


def _optimizer(kind: str) -> Any:
    def made(reader: Reader, args: Args, path: str) -> Any:
        of = _subjects(args.get(0, "params"), reader)
        name = kind
        momentum = args.get(None, "momentum")
        if kind == "sgd" and momentum is not None and number(momentum) != 0:
            name = "sgd_momentum"
        optimizer = Optimizer(name, of, args.line)
        for subject in of:
            if isinstance(subject, Instance):
                subject.attributes[TRAINED] = Known(True)
            if isinstance(subject, Model):
                subject.trained = True
                subject.fields["optimizer"] = Known(name, Source("literal", args.line))
        return optimizer

    return made


for _name, _kind in _OPTIMIZERS.items():
    function(f"torch.optim.{_name}", f"optim.{_name}", f"bnb.optim.{_name}", f"bitsandbytes.optim.{_name}", _name)(
        _optimizer(_kind)
    )


def backward(value: Any, reader: Reader, args: Args) -> Any:
    """`loss.backward()`: the pass that it goes through was no mere forward pass."""
    event = getattr(value, "event", None)
    if event is None:
        event = next(
            (one for one in reversed(reader.events) if one.kind == "inference" and one.subject is not None), None
        )
    if event is not None:
        turn_to_training(event)
    return Known(None)


def turn_to_training(event: Any) -> None:
    """A forward pass whose loss goes backward: a training step where an optimizer has the model's parameters."""
    model = event.subject
    if event.kind != "inference" or not isinstance(model, Model):
        return
    if model.trained:
        event.kind = "training"
        event.fields |= {"optimizer": model.fields.get("optimizer", Unknown("the optimizer"))}
        event.fields.setdefault("trainable", Known("all", Source("computed")))
        event.fields.pop("with_gradients", None)
    else:
        event.fields["backward"] = Known(True)


@method("backward")
def _backward(reader: Reader, owner: Any, args: Args) -> Any:
    if isinstance(owner, Unknown):  # accelerator.backward(loss), or a loss that was computed somehow
        return backward(args.get(0), reader, args)
    return None


@function("accelerator.backward", "torch.autograd.backward")
def _through(reader: Reader, args: Args, path: str) -> Any:
    return backward(args.get(0), reader, args)


@function("get_linear_schedule_with_warmup", "get_cosine_schedule_with_warmup", "get_scheduler")
def _schedule(reader: Reader, args: Args, path: str) -> Any:
    return Instance(None, {}, True)
