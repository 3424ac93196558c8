"""The profile's files: one for the user, one for a project. Read without trust, written whole or not at all."""

from __future__ import annotations

import datetime
import os
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import InputError
from ..files import only_writer, replace
from .profile import Profile, machine_name, profile_from, unknown_machine

if TYPE_CHECKING:
    from tomlkit import TOMLDocument

Scope = Literal["user", "project"]

FORMAT = 1
VARIABLE = "COMPUTE_AWARENESS_PROFILE"
"""Names another file in place of the user's; empty = no profile at all."""

PROJECT_FILE = ".compute-awareness.toml"
_LARGEST = 256 * 1024
_HEAD = "What compute-awareness may assume about your machines. Edit it freely; `compute-awareness profile` shows it."


def user_file(environ: Mapping[str, str]) -> Path | None:
    """The user's file; None where the variable switches the profile off."""
    named = environ.get(VARIABLE)
    if named is not None:
        return Path(named).expanduser() if named else None
    import platformdirs

    return platformdirs.user_config_path("compute-awareness", appauthor=False) / "profile.toml"


def project_file(cwd: Path) -> Path:
    """The project's file: beside the nearest `.git` or `pyproject.toml` above `cwd`, else in `cwd`."""
    for folder in (cwd, *cwd.parents):
        if (folder / ".git").exists() or (folder / "pyproject.toml").is_file():
            return folder / PROJECT_FILE
    return cwd / PROJECT_FILE


def can_keep_for_project(environ: Mapping[str, str] | None = None, cwd: Path | None = None) -> bool:
    """Whether an answer kept for the project would be found again: there is a project, and the profile is on."""
    file = project_file(_folder(cwd))
    marked = file.is_file() or any((file.parent / mark).exists() for mark in (".git", "pyproject.toml"))
    return marked and user_file(os.environ if environ is None else environ) is not None


def read_profile(environ: Mapping[str, str] | None = None, cwd: Path | None = None) -> Profile:
    """What the files hold, the project's answers before the user's. Never raises: what cannot be used is told under
    `problems` and left as it is."""
    variables = os.environ if environ is None else environ
    user = user_file(variables)
    if user is None:
        return Profile()
    merged = Profile()
    for path in (project_file(_folder(cwd)), user):
        try:
            one = profile_from(_decoded(path))
        except FileNotFoundError:
            continue
        except InputError as error:
            merged.problems.append(f"{path}: {error}")
            continue
        merged.files.append(str(path))
        known = {name.lower() for name in merged.machines}
        merged.machines |= {name: machine for name, machine in one.machines.items() if name.lower() not in known}
        merged.default = merged.default or one.default
        merged.budget = merged.budget or one.budget
    return merged


def set_machine(
    name: str,
    fields: Mapping[str, Any],
    scope: Scope = "user",
    *,
    default: bool = False,
    today: datetime.date | None = None,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Path:
    """Keep a machine, with today's date; fields not given stay as they are. The file that was written.

    Raises:
        InputError: a bad name or value, a file that cannot be read or written; nothing is changed then.
    """
    name = machine_name(name)

    def change(document: TOMLDocument) -> None:
        machines = _table(document, "machines")
        same = next((known for known in machines if known.lower() == name.lower()), name)
        row = _table(machines, same)
        for field, value in {**fields, "saved": today or datetime.date.today()}.items():
            if value is not None:
                row[field] = value
        if default:
            document["default"] = same

    return _rewrite(_file(scope, environ, cwd), change)


def set_budget(
    max_usd: float | None,
    max_hours: float | None,
    scope: Scope = "user",
    *,
    today: datetime.date | None = None,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Path:
    """Keep what a run may cost or take without a question. The file that was written. Errors as `set_machine`."""

    def change(document: TOMLDocument) -> None:
        row = _table(document, "budget")
        for field, value in {"max_usd": max_usd, "max_hours": max_hours}.items():
            if value is not None:
                row[field] = value
        row["saved"] = today or datetime.date.today()

    return _rewrite(_file(scope, environ, cwd), change)


def forget(
    name: str,
    scope: Scope = "user",
    *,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Path:
    """Take a machine, or `budget`, out of the file. Raises InputError where it is not in it."""
    path = _file(scope, environ, cwd)

    def change(document: TOMLDocument) -> None:
        if name.lower() == "budget":
            if "budget" not in document:
                raise InputError(f"{path} holds no budget")
            del document["budget"]
            return
        machines = document.get("machines", {})
        same = next((known for known in machines if known.lower() == name.strip().lower()), None)
        if same is None:
            raise unknown_machine(name, profile_from(document.unwrap()))
        del machines[same]
        if str(document.get("default", "")).lower() == same.lower():
            del document["default"]

    return _rewrite(path, change)


def _rewrite(path: Path, change: Callable[[TOMLDocument], None]) -> Path:
    """Read, change, check, replace, while no other process of ours does; the user's comments stay."""
    import tomlkit

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with only_writer(path):
            try:
                _decoded(path)
                document = tomlkit.parse(path.read_text(encoding="utf-8"))
            except FileNotFoundError:
                document = tomlkit.document()
                document.add(tomlkit.comment(_HEAD))
                document["format"] = FORMAT
            except InputError as error:
                raise InputError(f"{path} is left as it is: {error}") from None
            change(document)
            profile_from(document.unwrap())
            replace(path, tomlkit.dumps(document))
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from None
    return path


def _decoded(path: Path) -> dict[str, Any]:
    """The file's TOML.

    Raises:
        FileNotFoundError: it is not there.
        InputError: unreadable, too large, not TOML, or of a newer format.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(_LARGEST + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or error})") from None
    if len(raw) > _LARGEST:
        raise InputError(f"is larger than {_LARGEST // 1024} KiB, which no profile is")
    try:
        data = tomllib.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"is not valid TOML ({str(error)[:120]})") from None
    version = data.get("format", FORMAT)
    if version != FORMAT:
        raise InputError(f"has format {version!r}, this version reads {FORMAT}: upgrade compute-awareness")
    return data


def _table(parent: Any, name: str) -> Any:
    import tomlkit

    if name not in parent:
        parent[name] = tomlkit.table()
    return parent[name]


def _file(scope: Scope, environ: Mapping[str, str] | None, cwd: Path | None) -> Path:
    if scope == "project":
        return project_file(_folder(cwd))
    path = user_file(os.environ if environ is None else environ)
    if path is None:
        raise InputError(f"{VARIABLE} is empty, which switches the profile off; unset it to keep answers")
    return path


def _folder(cwd: Path | None) -> Path:
    if cwd is not None:
        return cwd
    try:
        return Path.cwd()
    except OSError:
        return Path.home()
