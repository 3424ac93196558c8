"""The prompts of the server: one per Markdown file."""

from __future__ import annotations

from mcp.server.mcpserver.prompts import Prompt
from mcp.server.mcpserver.prompts.base import PromptArgument

from ..prompt_files import PromptFile, prompt_files
from .strict import StrictPrompt


def prompts() -> list[Prompt]:
    """Every prompt file as an MCP prompt, in the order of their names."""
    return [_prompt(file) for file in prompt_files().values()]


def _prompt(file: PromptFile) -> Prompt:
    def fill_in(**values: str) -> str:
        return file.render(values)

    return StrictPrompt(
        name=file.name,
        title=file.title,
        description=file.description,
        arguments=[PromptArgument(name=a.name, description=a.description, required=a.required) for a in file.arguments],
        fn=fill_in,
        context_kwarg=None,
    )
