"""A question to the user as a flat form of the protocol (form-mode elicitation)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from mcp.server.mcpserver import Context
from pydantic import BaseModel, Field, WithJsonSchema, create_model

if TYPE_CHECKING:
    from ..asking.question import FormField, Question

REMEMBER = "remember"


def can_ask(ctx: Context[Any, Any]) -> bool:
    """Whether the client shows forms to its user, and can be reached to do so.

    Before 2026-07-28 the question is a request of the server's own, for which a stateless connection has no way back.
    """
    capabilities = ctx.client_capabilities
    elicitation = capabilities.elicitation if capabilities else None
    if elicitation is None or (elicitation.form is None and elicitation.url is not None):
        return False
    return is_stateless(ctx) or ctx.session.can_send_request


def is_stateless(ctx: Context[Any, Any]) -> bool:
    """Whether a question goes out as the call's result, and its answer comes with a second call (2026-07-28)."""
    return (ctx.protocol_version or "") >= "2026-07-28"  # revisions are dates


def form_of(question: Question, *, may_keep: bool) -> type[BaseModel]:
    """The form's model: a field for what is open, each of them optional, and `remember` with `may_keep`.

    The model takes whatever was filled in: `settle` checks it, so that a bad value is one clear line in either era.
    """
    schemas: dict[str, dict[str, Any]] = {}
    for field in question.fields:
        schemas |= _schemas(field)
    if may_keep and any(name != "choice" for name in schemas):
        schemas[REMEMBER] = {
            "type": "boolean", "title": "Remember this for this project", "default": False,
            "description": "Keeps the answer in .compute-awareness.toml beside the code, so that it is not asked again",
        }  # fmt: skip
    fields: dict[str, Any] = {
        name: (Annotated[Any, WithJsonSchema(schema)], Field(default=schema.get("default")))
        for name, schema in schemas.items()
    }
    return create_model("ComputeQuestion", **fields)


def message_of(question: Question) -> str:
    """What stands above the form, with what happens where it stays empty."""
    return f"{question.message}\n\nWithout an answer: {question.default}"


def _schemas(field: FormField) -> dict[str, dict[str, Any]]:
    """The form's fields for one thing asked: a card not in the table needs its memory; a limit is hours or money."""
    if field.name == "gpu":
        named = {
            "type": "string", "title": field.label, "maxLength": 80,
            "description": "For example RTX 4090, A100 80GB, 2xH100, M2 Max 64GB; none = no GPU; empty = not known",
        }  # fmt: skip
        memory = {
            "type": "number", "title": "Its memory, GB", "minimum": 1, "maximum": 2048,
            "description": "Enough where the name is not known, e.g. 24",
        }  # fmt: skip
        return {"gpu": named, "memory_gb": memory}
    if field.name == "time_budget":
        hours = {
            "type": "number", "title": "Hours it may take", "minimum": 0, "maximum": 8760, "description": field.label,
        }  # fmt: skip
        usd = {
            "type": "number", "title": "USD it may cost", "minimum": 0, "maximum": 1_000_000,
            "description": "Empty = no limit",
        }  # fmt: skip
        return {"max_hours": hours, "max_usd": usd}
    schema: dict[str, Any] = {"type": "string", "title": field.label}
    return {field.name: schema | ({"enum": field.options} if field.options else {})}
