"""Whether the libraries of the experiment's Python fit each other."""

from __future__ import annotations

import re

from .compute import Compute
from .finding import Finding


def library_findings(compute: Compute) -> list[Finding]:
    version = compute.python.libraries.get("transformer-lens", "") if compute.python else ""
    if not version or [int(part) for part in re.findall(r"\d+", version)][:1] < [4]:
        return []
    return [Finding(
        id="no_hooked_transformer", severity="warning",
        message=f"TransformerLens {version} is installed: HookedTransformer was removed in 4.0",
        cure="Write the experiment for TransformerBridge, or install 'transformer-lens<4'.",
    )]  # fmt: skip
