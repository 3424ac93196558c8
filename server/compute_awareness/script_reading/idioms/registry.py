"""Where the idioms register what they know."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..reader import Reader
    from ..values import Args

FunctionHandler = Callable[["Reader", "Args", str], Any]
MethodHandler = Callable[["Reader", Any, "Args"], Any]
FUNCTIONS: dict[str, FunctionHandler] = {}
METHODS: dict[str, MethodHandler] = {}
CLASS_METHODS: dict[str, dict[str, FunctionHandler]] = {}
"""Class methods by their name and the end of the class's: `from_pretrained` of all that ends in `ForCausalLM`."""
LIBRARY_NAMES: set[str] = {"torch", "np", "nn", "F", "os", "sys", "tqdm", "utils", "functools", "math"}
"""Names that mean the library's where a script does not say where it has them from (`from helpers import *`)."""


def function(*paths: str) -> Callable[[FunctionHandler], FunctionHandler]:
    """Register a function by the end of its dotted path."""

    def register(handler: FunctionHandler) -> FunctionHandler:
        for path in paths:
            FUNCTIONS[path] = handler
            head = path.split(".")[0]
            if head[:1].isupper():
                LIBRARY_NAMES.add(head)
        return handler

    return register


def class_method(name: str, *endings: str) -> Callable[[FunctionHandler], FunctionHandler]:
    """Register a class method of all classes whose names end so."""

    def register(handler: FunctionHandler) -> FunctionHandler:
        CLASS_METHODS.setdefault(name, {}).update(dict.fromkeys(endings, handler))
        return handler

    return register


def method(*names: str) -> Callable[[MethodHandler], MethodHandler]:
    """Register what a method of this name does, called on an object that is not known."""

    def register(handler: MethodHandler) -> MethodHandler:
        METHODS.update(dict.fromkeys(names, handler))
        return handler

    return register


def function_of(path: str) -> FunctionHandler | None:
    """The handler of the longest end of the path that is registered."""
    rest = path
    owner, _, name = path.rpartition(".")
    while rest:
        if rest in FUNCTIONS:
            return FUNCTIONS[rest]
        _, _, rest = rest.partition(".")
    for ending, handler in CLASS_METHODS.get(name, {}).items():
        if owner.endswith(ending):
            return handler
    return None


def method_of(name: str) -> MethodHandler | None:
    return METHODS.get(name)
