"""`names_filter` of TransformerLens as globs: a name, a list of names, or a function that is read."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any

from ..operations import truthy
from ..values import Args, Choice, Function, Items, Known, Source, Unknown, is_none, known

if TYPE_CHECKING:
    from ..reader import Reader

_MOST_HOOKS = 2500


def names_filter(value: Any, model: Any, reader: Reader) -> Any:
    """Known(None) for every hook, Known(list of globs), or Unknown."""
    if is_none(value):
        return Known(None, Source("library_default", 0, "every hook"))
    if isinstance(value, Known) and isinstance(value.value, str):
        return Known([value.value], value.source)
    if isinstance(value, Items):
        names = [known(item) for item in value.items]
        if value.more or not all(isinstance(name, str) for name in names):
            return Unknown("the list of hooks is not known")
        return Known(list(dict.fromkeys(names)), Source("computed"))
    if isinstance(value, Function):
        return _of_function(value, model, reader)
    if isinstance(value, Choice):
        return Unknown("one filter or another")
    return Unknown("the filter is not known")


def _of_function(value: Function, model: Any, reader: Reader) -> Any:
    globs = _globs(value, reader)
    if globs is not None:
        return Known(globs, Source("computed", value.node.lineno))
    names = hook_names(model)
    if names is None:
        return Unknown("which hooks the filter keeps")
    kept: list[str] = []
    for name in names:
        truth = truthy(reader.call(value, Args((Known(name),))))
        if truth is None:
            return Unknown("which hooks the filter keeps")
        if truth:
            kept.append(name)
    return Known(kept, Source("computed", value.node.lineno))


def hook_names(model: Any) -> list[str] | None:
    """Every hook that fires in a forward pass of the model; None where it is not known."""
    from ...memory.hooked.transformer import Run, forward

    spec = model.spec() if model is not None else None
    if spec is None or spec.n_layers > 100:
        return None
    names = list(forward(Run(spec=spec, batch_size=1, seq_len=2, width=4)).hook_names)
    return names if len(names) <= _MOST_HOOKS else None


def _globs(value: Function, reader: Reader) -> list[str] | None:
    """Globs of `lambda name: name.endswith("resid_post") or "mlp" in name` and the like; None for anything else."""
    node = value.node
    argument = node.args.args[-1].arg if node.args.args else None
    body: ast.expr | None = None
    if isinstance(node, ast.Lambda):
        body = node.body
    elif len(node.body) == 1 and isinstance(node.body[0], ast.Return):
        body = node.body[0].value
    if body is None or argument is None or len(node.args.args) > 1 + (value.owner is not None):
        return None
    return _of_test(body, argument, value, reader)


def _of_test(test: ast.expr, argument: str, value: Function, reader: Reader) -> list[str] | None:
    def worth(node: ast.expr) -> Any:
        """A part of the test that does not depend on the name."""
        if any(isinstance(part, ast.Name) and part.id == argument for part in ast.walk(node)):
            return Unknown()
        spare = ast.Lambda(ast.arguments([], [], None, [], [], None, []), node)
        return reader.call(Function(ast.copy_location(spare, node), value.module, value.closure, {}), Args())

    match test:
        case ast.Constant(value=True):
            return ["*"]
        case ast.BoolOp(op=ast.Or()):
            found = [_of_test(part, argument, value, reader) for part in test.values]
            return None if None in found else [glob for globs in found for glob in globs or []]
        case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="endswith" | "startswith" as how), args=[part]):
            if name != argument:
                return None
            held = worth(part)
            ends = [known(item) for item in held.items] if isinstance(held, Items) else [known(held)]
            if not all(isinstance(end, str) for end in ends) or any(set(end) & set("*?[") for end in ends):
                return None
            return [f"*{end}" if how == "endswith" else f"{end}*" for end in ends]
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            return _of_comparison(left, op, right, argument, worth)
        case ast.Call(func=ast.Name(id="any"), args=[ast.GeneratorExp() as each]):
            return _of_any(each, argument, value, reader, worth)
    return None


def _of_comparison(left: ast.expr, op: ast.cmpop, right: ast.expr, argument: str, worth: Any) -> list[str] | None:
    def named(node: ast.expr) -> bool:
        return isinstance(node, ast.Name) and node.id == argument

    if isinstance(op, ast.Eq) and (named(left) or named(right)):
        plain = known(worth(right if named(left) else left))
        return [plain] if isinstance(plain, str) else None
    if isinstance(op, ast.In) and named(right):
        plain = known(worth(left))
        return [f"*{plain}*"] if isinstance(plain, str) and not set(plain) & set("*?[") else None
    if isinstance(op, ast.In) and named(left):
        held = worth(right)
        names = [known(item) for item in held.items] if isinstance(held, Items) and not held.more else []
        return [str(name) for name in names] if names and all(isinstance(name, str) for name in names) else None
    return None


def _of_any(each: ast.GeneratorExp, argument: str, value: Function, reader: Reader, worth: Any) -> list[str] | None:
    """`any(part in name for part in parts)` and `any(name.endswith(e) for e in ends)`."""
    if len(each.generators) != 1 or each.generators[0].ifs or not isinstance(each.generators[0].target, ast.Name):
        return None
    held = worth(each.generators[0].iter)
    parts = [known(item) for item in held.items] if isinstance(held, Items) and not held.more else []
    if not parts or not all(isinstance(part, str) for part in parts):
        return None
    variable = each.generators[0].target.id
    match each.elt:
        case ast.Compare(left=ast.Name(id=left), ops=[ast.In()], comparators=[ast.Name(id=right)]):
            return [f"*{part}*" for part in parts] if (left, right) == (variable, argument) else None
        case ast.Call(func=ast.Attribute(value=ast.Name(id=owner), attr="endswith"), args=[ast.Name(id=end)]):
            return [f"*{part}" for part in parts] if (owner, end) == (argument, variable) else None
    return None
