"""Options of a command line and their defaults: argparse, click, typer, fire."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any

from ..operations import truthy
from ..values import Args, Bound, Dict, Function, Instance, Items, Known, Lib, Source, Thing, Unknown, known
from .registry import function

if TYPE_CHECKING:
    from ..reader import Reader


def as_option(value: Any, name: str, line: int) -> Any:
    """The default of an option: what a caller of the script may set otherwise."""
    if isinstance(value, Known):
        return Known(value.value, Source("default", value.source.line or line, f"default of {name}"))
    return value


class Parser(Thing):
    """An ArgumentParser."""

    label = "parser"

    def __init__(self) -> None:
        self.options: dict[str, Any] = {}
        self.more = False
        self.flags: dict[str, str] = {}
        self.kinds: dict[str, str] = {}
        self.switches: dict[str, bool] = {}
        self.many: set[str] = set()

    def method(self, name: str, args: Args, reader: Reader) -> Any:
        match name:
            case "add_argument":
                self._add(args)
                return Known(None)
            case "add_argument_group" | "add_mutually_exclusive_group" | "add_subparsers" | "add_parser":
                return self
            case "set_defaults":
                for key, value in args.keywords.items():
                    self.options[key] = as_option(value, key, args.line)
                return Known(None)
            case "parse_args" | "parse_intermixed_args":
                return Instance(None, self.options | self._given(reader.arguments), self.more)
            case "parse_known_args":
                held = self.options | self._given(reader.arguments)
                return Items("tuple", [Instance(None, held, self.more), Items("list", [], True)])
            case "parse_args_into_dataclasses":
                return Items("tuple", list(self.options.get("<classes>", [])))
        return Known(None)

    def _given(self, words: list[str]) -> dict[str, Any]:
        """The options that the caller says the script is started with; what is not understood stays as it is."""
        found: dict[str, Any] = {}
        waiting = list(words)
        positional = [name for flag, name in self.flags.items() if not flag.startswith("-")]
        while waiting:
            word = waiting.pop(0)
            flag, equals, value = word.partition("=") if word.startswith("-") else ("", "", word)
            name = self.flags.get(flag) if flag else (positional.pop(0) if positional else None)
            if name is None:
                continue
            if name in self.switches:
                found[name] = Known(self.switches[name], Source("literal", 0, "as given"))
                continue
            values = [value] if equals or not flag else []
            while not equals and flag and waiting and not waiting[0].startswith("--"):
                values.append(waiting.pop(0))
                if name not in self.many:
                    break
            plain = [_converted(text, self.kinds.get(name, "str")) for text in values]
            if plain:
                found[name] = Items("list", plain) if name in self.many else plain[0]
        return found

    def _add(self, args: Args) -> None:
        flags = [known(value) for value in args.positional]
        if not flags or not all(isinstance(flag, str) and flag for flag in flags):
            self.more = True
            return
        long = next((flag for flag in flags if flag.startswith("--")), flags[0])
        target = known(args.get(None, "dest"))
        name = target if isinstance(target, str) else long.lstrip("-").replace("-", "_")
        self.options[name] = self._value(args, long)
        self.flags.update({flag: name for flag in flags if isinstance(flag, str)})
        kind, action = args.get(None, "type"), known(args.get(None, "action"))
        if isinstance(kind, Lib):
            self.kinds[name] = kind.path
        if action in ("store_true", "store_false"):
            self.switches[name] = action == "store_true"
        if known(args.get(None, "nargs")) in ("*", "+") or isinstance(known(args.get(None, "nargs")), int):
            self.many.add(name)

    def _value(self, args: Args, flag: str) -> Any:
        action = known(args.get(None, "action"))
        default = args.get(None, "default")
        if default is not None:
            kind = args.get(None, "type")
            plain = known(default)
            if isinstance(kind, Lib) and kind.path in ("int", "float") and isinstance(plain, str):
                try:
                    default = Known(int(plain) if kind.path == "int" else float(plain), default.source)
                except ValueError:
                    default = Unknown("a default that is no number")
            return as_option(default, flag, args.line)
        if action == "store_true":
            return as_option(Known(False), flag, args.line)
        if action == "store_false":
            return as_option(Known(True), flag, args.line)
        if truthy(args.get(None, "required", default=Known(False))) or (
            not flag.startswith("-") and known(args.get(None, "nargs")) not in ("?", "*")
        ):
            return Unknown(f"{flag} must be given", line=args.line)
        return as_option(Known(None), flag, args.line)


def _converted(text: str, kind: str) -> Any:
    """A word of a command line as the option's type has it."""
    source = Source("literal", 0, "as given")
    try:
        return Known({"int": int, "float": float}.get(kind, str)(text), source)
    except ValueError:
        return Unknown(f"{text[:40]!r} is no {kind}")


@function("argparse.ArgumentParser", "ArgumentParser", "configargparse.ArgumentParser", "ArgParser")
def _parser(reader: Reader, args: Args, path: str) -> Any:
    return Parser()


@function("HfArgumentParser", "simple_parsing.ArgumentParser")
def _hf_parser(reader: Reader, args: Args, path: str) -> Any:
    parser = Parser()
    classes = reader.items_of(args.get(0)) if isinstance(args.get(0), Items) else Items("tuple", [args.get(0)])
    parser.options["<classes>"] = [reader.call(one, Args()) for one in classes.items]
    return parser


@function("simple_parsing.parse", "tyro.cli", "pyrallis.parse", "draccus.parse", "jsonargparse.CLI")
def _typed(reader: Reader, args: Args, path: str) -> Any:
    """A dataclass, or a function, filled from the command line."""
    return reader.call(args.get(0, "config_class"), Args())


@function("fire.Fire", "Fire", "typer.run", "tyro.extras.subcommand_cli_from_dict", "defopt.run", "plac.call")
def _fire(reader: Reader, args: Args, path: str) -> Any:
    """A function started with what its arguments have by default; of a class every public method."""
    target = args.get(0, "component")
    if isinstance(target, Function):
        return start(reader, target)
    if isinstance(target, Dict):
        for one in target.items.values():
            start(reader, one)
        return Known(None)
    if target is None:
        return Known(None)
    made = reader.call(target, Args())
    if isinstance(made, Instance) and made.of is not None:
        for name in [n for n, v in made.of.attributes.items() if isinstance(v, Function) and not n.startswith("_")]:
            start(reader, reader.attribute(made, name))
    return Known(None)


class Application(Thing):
    """A typer.Typer, or a click group."""

    label = "application"

    def __init__(self) -> None:
        self.commands: list[Any] = []

    def method(self, name: str, args: Args, reader: Reader) -> Any:
        if name in ("command", "callback"):
            return Dict({"command": self, "decorator": "command"})
        return Known(None)

    def call(self, args: Args, reader: Reader) -> Any:
        for command in self.commands:
            start(reader, command)
        return Known(None)


@function("typer.Typer", "Typer", "cyclopts.App")
def _application(reader: Reader, args: Args, path: str) -> Any:
    return Application()


@function("typer.Option", "typer.Argument", "Option", "Argument")
def _typer_option(reader: Reader, args: Args, path: str) -> Any:
    default = args.get(0, "default")
    if default is None or known(default) is Ellipsis:
        return Unknown("an option that must be given", line=args.line)
    return as_option(default, "an option", args.line)


@function("click.option", "click.argument", "option", "argument")
def _click_option(reader: Reader, args: Args, path: str) -> Any:
    flags = [known(value) for value in args.positional]
    plain = [flag for flag in flags if isinstance(flag, str)]
    if not plain:
        return Dict({"decorator": "option"})
    bare = [flag for flag in plain if not flag.startswith("-")]
    long = next((flag for flag in plain if flag.startswith("--")), plain[0])
    name = (bare[0] if bare else long.split("/")[0].lstrip("-")).replace("-", "_").lower()
    default = args.get(None, "default")
    if default is not None:
        value = as_option(default, long, args.line)
    elif truthy(args.get(None, "is_flag", default=Known(False))) or "/" in long:
        value = as_option(Known(False), long, args.line)
    elif truthy(args.get(None, "required", default=Known(False))) or path.endswith("argument"):
        value = Unknown(f"{long} must be given", line=args.line)
    else:
        value = as_option(Known(None), long, args.line)
    return Dict({"decorator": "option", "option": name, "value": value})


@function("click.command", "click.group", "hydra.main")
def _click_command(reader: Reader, args: Args, path: str) -> Any:
    return Dict({"decorator": "command"})


def decorated(reader: Reader, made: Function, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
    """What its decorators make of a function: options give its arguments, an application starts it."""
    for decorator in made.decorators:
        if isinstance(decorator, Dict):
            if "option" in decorator.items:
                made.defaults[decorator.items["option"]] = decorator.items["value"]
            application = decorator.items.get("command")
            if isinstance(application, Application):
                application.commands.append(made)
        elif isinstance(decorator, Bound) and isinstance(decorator.owner, Application):
            decorator.owner.commands.append(made)


def start(reader: Reader, target: Any) -> Any:
    """Call a command with its defaults."""
    return reader.call(target, Args()) if isinstance(target, Function) else Known(None)
