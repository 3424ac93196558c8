"""The profile, for a person."""

from __future__ import annotations

import datetime

from ..asking.profile import Profile, age
from .show import bullets, heading, say, screen, table


def show_profile(profile: Profile) -> None:
    to = screen()
    today = datetime.date.today()
    if not profile.machines and profile.budget is None:
        say(to, "Nothing is kept. Example: compute-awareness profile set gpu-box --gpu 'RTX 4090' --default")
    if profile.machines:
        heading(to, "Machines")
        chosen = profile.default_machine()
        rows = [
            (
                name + (" (default)" if chosen and chosen[0] == name else ""),
                machine.gpu or "?",
                ", ".join(part for part in (machine.where, machine.host) if part),
                f"{machine.max_hours:g} h" if machine.max_hours else "",
                f"{machine.usd_per_hour:g}" if machine.usd_per_hour is not None else "",
                age(machine.saved, today),
            )
            for name, machine in profile.machines.items()
        ]
        table(to, ("machine", "GPU", "where", "longest", "USD/h", ""), rows)
    if profile.budget is not None:
        budget = profile.budget
        parts = [
            f"{budget.max_usd:g} USD" if budget.max_usd is not None else "",
            f"{budget.max_hours:g} h" if budget.max_hours is not None else "",
        ]
        heading(to, "Without a question, a run may take")
        say(to, f"  {' and '.join(part for part in parts if part)} ({age(budget.saved, today)})")
    if profile.files:
        heading(to, "Kept in")
        bullets(to, profile.files)
    if profile.problems:
        heading(to, "Files that could not be used")
        bullets(to, profile.problems, "!", "bold yellow")
