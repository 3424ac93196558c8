"""The standard library and small helpers: dataclasses, functools, os, pathlib, itertools, tqdm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..builtins_read import call_builtin
from ..values import (
    Args,
    Bound,
    Class,
    Dict,
    Function,
    Instance,
    Items,
    Known,
    Lib,
    Partial,
    Source,
    Thing,
    Unknown,
    known,
)
from .registry import function

if TYPE_CHECKING:
    from ..reader import Reader


class Super(Thing):
    """`super()` inside a method."""

    def __init__(self, home: Any, owner: Any) -> None:
        self.home, self.owner = home, owner

    def attribute(self, name: str, reader: Reader) -> Any:
        from ..classes import bind, class_attribute

        for base in self.home.bases if isinstance(self.home, Class) else ():
            found = class_attribute(base, name) if isinstance(base, Class) else None
            if isinstance(found, Function):
                return bind(found, self.owner)
        return Bound(self, name)

    def method(self, name: str, args: Args, reader: Reader) -> Any:
        found = self.attribute(name, reader)
        return reader.call(found, args) if isinstance(found, Function) else Known(None)


@function("super")
def _super(reader: Reader, args: Args, path: str) -> Any:
    frame = reader.frame
    owner = frame.owner if frame.owner is not None else args.get(1)
    return Super(frame.home or (owner.of if isinstance(owner, Instance) else None), owner)


@function("dataclasses.field", "field", "Field", "pydantic.Field")
def _field(reader: Reader, args: Args, path: str) -> Any:
    factory = args.get(None, "default_factory")
    if factory is not None:
        return Dict({"default_factory": factory})
    return args.get(0, "default", default=Unknown("a field without a default"))


@function("dataclasses.dataclass", "dataclass", "dataclasses.dataclass_json")
def _dataclass(reader: Reader, args: Args, path: str) -> Any:
    return Dict({"decorator": "dataclass"})


@function("dataclasses.replace")
def _replace(reader: Reader, args: Args, path: str) -> Any:
    old = args.get(0)
    if not isinstance(old, Instance):
        return Unknown("replace() of what is not known")
    return Instance(old.of, old.attributes | args.keywords, old.more)


@function("dataclasses.asdict", "asdict", "copy.copy", "copy.deepcopy", "deepcopy")
def _same(reader: Reader, args: Args, path: str) -> Any:
    value = args.get(0)
    if isinstance(value, Instance):
        return (
            Dict(dict(value.attributes)) if "asdict" in path else Instance(value.of, dict(value.attributes), value.more)
        )
    if isinstance(value, Dict):
        return Dict(dict(value.items), value.more, value.made)
    return Items(value.kind, list(value.items), value.more, value.count) if isinstance(value, Items) else value


@function("functools.partial", "partial")
def _partial(reader: Reader, args: Args, path: str) -> Any:
    return Partial(args.get(0), Args(args.positional[1:], args.keywords, args.node, args.more))


@function(
    "types.SimpleNamespace", "SimpleNamespace", "easydict.EasyDict", "EasyDict", "argparse.Namespace", "Namespace"
)
def _namespace(reader: Reader, args: Args, path: str) -> Any:
    first = args.get(0)
    held = dict(first.items) if isinstance(first, Dict) else {}
    return Instance(None, held | args.keywords, args.more or (first is not None and not isinstance(first, Dict)))


@function("collections.defaultdict", "defaultdict")
def _defaultdict(reader: Reader, args: Args, path: str) -> Any:
    return Dict({}, False, args.get(0))


@function("collections.OrderedDict", "OrderedDict")
def _ordered(reader: Reader, args: Args, path: str) -> Any:
    return call_builtin("dict", args, reader)


@function("os.environ.get", "os.getenv", "environ.get", "getenv")
def _environment(reader: Reader, args: Args, path: str) -> Any:
    default = args.get(1, "default", default=Known(None))
    if isinstance(default, Known) and default.value is not None:
        return Known(default.value, Source("default", args.line, "where the environment does not set it"))
    return Unknown("an environment variable", line=args.line)


@function("tqdm", "tqdm.tqdm", "tqdm.notebook.tqdm", "tqdm.auto.tqdm", "trange", "tqdm.trange", "track", "asyncio.run",
          "typing.cast", "cast", "list.copy", "itertools.cycle", "iter", "itertools.chain.from_iterable", 
          "torch.compile", "accelerator.prepare")  # fmt: skip
def _through(reader: Reader, args: Args, path: str) -> Any:
    """What wraps a value without changing it."""
    if path.endswith("trange"):
        return call_builtin("range", args, reader)
    if path.endswith("cast"):
        return args.get(1)
    return args.get(0, "iterable", "obj", default=Unknown("a progress bar"))


@function("itertools.product", "product")
def _product(reader: Reader, args: Args, path: str) -> Any:
    rows: list[list[Any]] = [[]]
    for value in args.positional:
        items = reader.items_of(value)
        if items.more or len(rows) * len(items.items) > 400 or args.keywords:
            return Items("list", [], True)
        rows = [[*row, item] for row in rows for item in items.items]
    return Items("list", [Items("tuple", row) for row in rows])


@function("itertools.islice", "islice")
def _islice(reader: Reader, args: Args, path: str) -> Any:
    items = reader.items_of(args.get(0))
    if len(args.positional) == 2 and isinstance(known(args.get(1)), int):
        stop = known(args.get(1))
        length = items.length()
        count = stop if length is None else min(stop, length)
        return Items("list", items.items[:stop], items.more and len(items.items) < stop, count)
    return Items("list", items.items[:1], True)


@function("os.path.join")
def _join(reader: Reader, args: Args, path: str) -> Any:
    plain = [known(value) for value in args.positional]
    if all(isinstance(one, str) for one in plain) and sum(map(len, plain)) < 4000:
        return Known("/".join(plain), Source("computed", args.line))
    return Unknown("a path", line=args.line)


@function("enum.auto", "auto")
def _auto(reader: Reader, args: Args, path: str) -> Any:
    return Unknown("auto()")


@function("get_ipython")
def _ipython(reader: Reader, args: Args, path: str) -> Any:
    notebook = reader.frames[0].module.script.notebook
    return Lib("ipython") if notebook else Known(None, Source("assumed", args.line, "run as a script"))


@function("sys.exit", "exit", "quit")
def _exit(reader: Reader, args: Args, path: str) -> Any:
    return Known(None)
