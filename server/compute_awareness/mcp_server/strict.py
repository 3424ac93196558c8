"""What the SDK leaves lenient: unknown arguments, many-line validation errors, unknown names."""

from __future__ import annotations

import inspect
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from mcp import MCPError
from mcp.server.mcpserver import Resolve
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.prompts import Prompt
from mcp.server.mcpserver.tools import Tool
from mcp.server.mcpserver.utilities.func_metadata import ArgModelBase, FuncMetadata
from mcp.types import INVALID_PARAMS, CallToolResult, ToolAnnotations
from pydantic import PrivateAttr, ValidationError

from ..errors import InputError, nearest
from .kept import Kept, key_of
from .looking import in_call

SCHEMAS = Path(__file__).with_name("tool_schemas.json")
"""What the tools' schemas publish. Written by `tools/build_tool_schemas.py` from the functions themselves, which takes
pydantic longer than all else that a start does beside importing the SDK."""


@dataclass
class Signature:
    """What a tool's arguments and results are made from.

    `extra_parameters` replace the function's own `**fields` in the published signature, and those of its resolvers;
    the parameters in `hidden` are accepted, but not listed.
    """

    fn: Callable[..., Awaitable[CallToolResult]]
    extra_parameters: Callable[[], Iterable[inspect.Parameter]] = tuple
    hidden: Callable[[], Iterable[str]] = tuple

    @cached_property
    def tool(self) -> Tool:
        """As the SDK makes it of the function, with the models that check arguments and results."""
        spelled_out = _spelled_out(self.fn, list(self.extra_parameters()))
        return Tool.from_function(spelled_out, name=self.fn.__name__, description=" ", structured_output=True)

    def schemas(self) -> dict[str, Any]:
        """What is published of it: the SDK's without generated titles and `default: null`, which cost tokens and say
        nothing, and without what is in the results' fields."""
        hidden, given = set(self.hidden()), self.tool.parameters
        required = given.get("required")
        results = (self.tool.fn_metadata.output_schema or {})["properties"]
        return {
            "parameters": {
                "type": "object",
                "properties": {
                    name: _published(prop) for name, prop in given.get("properties", {}).items() if name not in hidden
                },
                **({"required": required} if required else {}),
                "additionalProperties": False,
            },
            "results": {
                "type": "object",
                "properties": {name: {"type": _type(prop)} for name, prop in results.items()},
                "required": ["summary"],
            },
        }


class StrictTool(Tool):
    """A tool whose every anticipated failure is one line for the caller, without prefix or traceback.

    Made with what is listed of it alone; the models of its arguments and results are built by its first call.
    """

    _signature: Signature = PrivateAttr()
    _whole: bool = PrivateAttr(default=False)
    _kept: Kept = PrivateAttr(default_factory=Kept)

    @property
    def signature(self) -> Signature:
        """What it was made from."""
        return self._signature

    def _make_whole(self) -> None:
        whole, results = self._signature.tool, self.fn_metadata.output_schema
        self.fn, self.fn_metadata, self.context_kwarg = whole.fn, whole.fn_metadata, whole.context_kwarg
        self.resolved_params, self.resolver_plans = whole.resolved_params, whole.resolver_plans
        self.fn_metadata.output_schema = results
        self._whole = True

    async def run(self, arguments: dict[str, Any], context: Any, convert_result: bool = False) -> Any:
        """Raises ToolError with one line for bad arguments and for InputError; crashes stay the SDK's."""
        key = key_of(arguments)
        before = self._kept.get(key)
        if before is not None:
            return before
        if not self._whole:
            self._make_whole()
        accepted = self.fn_metadata.arg_model.model_fields
        for name in arguments:
            if name not in accepted:
                raise ToolError(_unknown_argument(name, accepted, arguments.get("task")))
        try:
            with in_call(context) as call:
                result = await super().run(arguments, context, convert_result=convert_result)
        except ToolError as error:
            cause = error.__cause__
            if isinstance(cause, ValidationError) and cause.title == self.fn_metadata.arg_model.__name__:
                raise ToolError(self._bad_argument(cause)) from None
            if isinstance(cause, InputError):
                raise ToolError(str(cause)) from None
            raise
        if call.kept:
            self._kept.put(key, result)
        return result

    def _bad_argument(self, error: ValidationError) -> str:
        from ..workload import explain

        first = error.errors(include_url=False)[0]
        line = explain(error, self.fn_metadata.arg_model)
        accepted = self.parameters["properties"].get(first["loc"][0], {}).get("enum")
        return f"{line}; one of: {', '.join(accepted)}" if first["type"] == "missing" and accepted else line


def make_tool(
    signature: Signature,
    *,
    title: str,
    opens_network: bool,
    may_write: bool = False,
    meta: dict[str, Any] | None = None,
    kind: type[StrictTool] = StrictTool,
) -> StrictTool:
    """A tool from an async function; its docstring is the description. Unknown arguments are refused.

    It is annotated as one that only reads, unless `may_write`: then as one that may add to what is there.
    """
    name = signature.fn.__name__
    published = _schemas().get(name, {"parameters": {}, "results": {}})
    tool = kind(
        fn=signature.fn,
        name=name,
        title=title,
        description=" ".join(inspect.cleandoc(signature.fn.__doc__ or "").split()),
        parameters=published["parameters"],
        fn_metadata=FuncMetadata(arg_model=ArgModelBase, output_schema=published["results"]),
        is_async=True,
        context_kwarg=None,
        annotations=ToolAnnotations(
            read_only_hint=not may_write, destructive_hint=False if may_write else None, open_world_hint=opens_network
        ),
        meta=meta,
    )
    tool._signature = signature
    return tool


@cache
def _schemas() -> dict[str, Any]:
    return json.loads(SCHEMAS.read_text("utf-8"))


def _spelled_out(fn: Callable[..., Awaitable[Any]], fields: list[inspect.Parameter]) -> Callable[..., Awaitable[Any]]:
    """`fn` with `fields` in place of its own `**fields`, in the signature and the hints that the SDK reads."""
    signature = inspect.signature(fn, eval_str=True)
    own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    # Keyword-only throughout, so that a required one may follow an optional one.
    own = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=_resolved(p.annotation, fields)) for p in own]
    taken = fields if len(own) < len(signature.parameters) else []

    async def call(**arguments: Any) -> Any:
        return await fn(**arguments)

    call.__name__, call.__qualname__, call.__module__ = fn.__name__, fn.__qualname__, fn.__module__
    call.__signature__ = signature.replace(parameters=[*taken, *own])  # pyright: ignore[reportFunctionMemberAccess]
    call.__annotations__ = {p.name: p.annotation for p in [*taken, *own]} | {"return": signature.return_annotation}
    return call


def _resolved(annotation: Any, fields: list[inspect.Parameter]) -> Any:
    """The annotation of a parameter that a resolver fills, with that resolver spelled out too; any other as it is."""
    if get_origin(annotation) is not Annotated:
        return annotation
    kind, *marks = get_args(annotation)
    marks = [Resolve(_spelled_out(m.fn, fields)) if isinstance(m, Resolve) else m for m in marks]
    return Annotated[kind, *marks]


class StrictPrompt(Prompt):
    """A prompt that answers bad arguments with -32602, as the specification says."""

    async def render(self, arguments: dict[str, Any] | None, context: Any) -> Any:
        """Raises MCPError (INVALID_PARAMS) naming what is missing or unknown."""
        known = {argument.name: argument.required for argument in self.arguments or []}
        given = arguments or {}
        unknown = [name for name in given if name not in known]
        missing = [n for n, required in known.items() if required and not str(given.get(n, "")).strip()]
        if unknown:
            accepted = ", ".join(known) or "none"
            hint = _nearest_hint(unknown[0], known)
            raise MCPError(
                INVALID_PARAMS, f"prompt {self.name}: unknown argument {unknown[0][:80]!r}{hint}; accepted: {accepted}"
            )
        if missing:
            raise MCPError(INVALID_PARAMS, f"prompt {self.name}: argument {missing[0]!r} is missing")
        return await super().render(arguments, context)


def known_names(tools: list[str], prompts: list[str]) -> Any:
    """Middleware: an unknown tool or prompt is a protocol error (-32602) in every protocol era."""
    known: Mapping[str, tuple[str, list[str]]] = {"tools/call": ("tool", tools), "prompts/get": ("prompt", prompts)}

    async def middleware(ctx: Any, call_next: Callable[[Any], Awaitable[Any]]) -> Any:
        kind, names = known.get(ctx.method, ("", []))
        if kind:
            name = (ctx.params or {}).get("name")
            if name not in names:
                shown = str(name)[:80]
                hint = _nearest_hint(shown, names)
                raise MCPError(INVALID_PARAMS, f"unknown {kind} {shown!r}{hint}; one of: {', '.join(names)}")
        return await call_next(ctx)

    return middleware


def _nearest_hint(name: str, known: Iterable[str]) -> str:
    close = nearest(name, known, 1)
    return f" (nearest: {close[0]})" if close else ""


def _unknown_argument(name: str, accepted: Mapping[str, Any], task: Any) -> str:
    """Names the fields of the task at hand only, where the task is known: all of them would be a long list."""
    from ..workload import TASKS

    of_other_tasks: set[str] = set()
    if isinstance(task, str) and task in TASKS:
        everywhere = {field for kind in TASKS.values() for field in kind.model_fields}
        of_other_tasks = everywhere - set(TASKS[task].model_fields)
    listed = [field for field in accepted if field not in of_other_tasks]
    return f"unknown argument {name[:80]!r}{_nearest_hint(name, listed)}; accepted: {', '.join(listed) or 'none'}"


def _published(schema: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key not in ("title", "default")}


def _type(schema: dict[str, Any]) -> str | list[str]:
    return schema["type"] if "type" in schema else [arm["type"] for arm in schema["anyOf"]]
