"""Whether a user's jobs may run in a SLURM partition, and the limits that accounting sets."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .report import Access, ClusterUser, Limit
from .slurm_text import gpus_in_tres, listed, number, seconds

_ASSOC = ("Account", "Partition", "QOS", "DefaultQOS", "MaxJobs", "MaxSubmit", "MaxWall", "MaxTRES", "GrpTRES")
_QOS = ("Name", "MaxWall", "MaxTRES", "MaxTRESPU", "MaxJobsPU", "MaxSubmitPU")


def access_to(
    about: Mapping[str, str], user: ClusterUser | None, uid: int | None, groups: list[str] | None
) -> tuple[Access, str, str | None]:
    """("yes" | "no" | "unknown", what that rests on, account to name) from a line of `scontrol show partition`.

    "no" only where it is certain. Root may use a partition whatever AllowGroups and AllowQos say (slurm.conf(5)),
    and without AccountingStorageEnforce=associations no account is refused (22.05.8 and later, tried out).
    """
    if not about:
        return "unknown", "scontrol did not describe it", None
    state = about.get("State", "")
    if state != "UP":
        return "no" if state else "unknown", f"its state is {state or 'not told'}", None
    if about.get("RootOnly") == "YES" and uid != 0:
        return "no", "only root may start jobs here", None
    if about.get("DisableRootJobs") == "YES" and uid == 0:
        return "no", "root may start no job here", None
    allowed = _restriction(about.get("AllowGroups"))
    if allowed and uid != 0:
        if groups is None:
            return "unknown", f"only for the groups {_few(allowed)}; yours could not be read", None
        if not set(allowed) & set(groups):
            return "no", f"only for the groups {_few(allowed)}", None
    if about.get("ReqResv") == "YES":
        return "unknown", "jobs here need a reservation (--reservation)", None
    return _by_account(about, user, uid)


def _by_account(about: Mapping[str, str], user: ClusterUser | None, uid: int | None) -> tuple[Access, str, str | None]:
    allowed, denied = _restriction(about.get("AllowAccounts")), _restriction(about.get("DenyAccounts"))
    qos = _restriction(about.get("AllowQos"))
    if not allowed and not denied and not (qos and uid != 0):
        return "yes", "open to all accounts", None
    if user is not None and user.enforced is False:
        return "yes", "accounts are not enforced on this cluster", None
    if (allowed or denied) and (user is None or user.accounts is None):
        which = f"only for the accounts {_few(allowed)}" if allowed else f"not for the accounts {_few(denied)}"
        return "unknown", f"{which}; yours could not be read", None
    account = None
    if user is not None and (allowed or denied):
        mine = user.accounts or []
        # AllowAccounts and DenyAccounts together: only the first holds (slurm.conf(5)).
        usable = [name for name in mine if (name in allowed if allowed else name not in denied)]
        if not usable:
            which = f"only for the accounts {_few(allowed)}" if allowed else "not for your accounts"
            return "no", which, None
        account = None if user.default_account in usable else usable[0]
    if qos and uid != 0:
        if user is None or not user.qos:
            return "unknown", f"only with the QoS {_few(qos)}; yours could not be read", account
        if not set(qos) & set(user.qos):
            return "no", f"only with the QoS {_few(qos)}", account
        return "yes", f"with the QoS {_few([name for name in qos if name in user.qos])}", account
    return "yes", "your account is allowed", account


def _restriction(value: str | None) -> list[str]:
    return [] if value == "ALL" else listed(value)


def _few(names: list[str]) -> str:
    return ", ".join(names[:5]) + ("…" if len(names) > 5 else "")


def limits_of(user: ClusterUser, cluster: str, partition_qos: list[str], ask: Callable[..., str]) -> None:
    """Fill accounts, QoS and limits from `sacctmgr -nP show`; `ask(program, *args)` gives its text.

    `partition_qos` are those that partitions impose, whose limits are read too.
    """
    where = ("where", f"user={user.name}", *((f"cluster={cluster}",) if cluster else ()))
    text = ask("sacctmgr", "-nP", "show", "assoc", *where, f"format={','.join(_ASSOC)}")
    rows = parse_bars(text, len(_ASSOC))
    if not rows:
        return
    default = ask("sacctmgr", "-nP", "show", "user", str(user.name), "format=DefaultAccount").strip()
    user.accounts = list(dict.fromkeys(row[0] for row in rows if row[0]))
    user.default_account = default if default in user.accounts else None
    user.qos = list(dict.fromkeys(name for row in rows for name in listed(row[2])))
    for row in rows:
        source = f"account {row[0]}" + (f" in partition {row[1]}" if row[1] else "")
        _keep(user, Limit(source, seconds(row[6]), gpus_in_tres(row[7]), gpus_in_tres(row[8]), number(row[4]),
                          number(row[5])))  # fmt: skip
    if names := list(dict.fromkeys([*user.qos, *partition_qos])):
        named = f"name={','.join(names)}"
        text = ask("sacctmgr", "-nP", "show", "qos", "where", named, f"format={','.join(_QOS)}")
        for name, wall, per_job, per_user, jobs, submitted in parse_bars(text, len(_QOS)):
            _keep(user, Limit(f"QoS {name}", seconds(wall), gpus_in_tres(per_job), gpus_in_tres(per_user),
                              number(jobs), number(submitted)))  # fmt: skip


def _keep(user: ClusterUser, limit: Limit) -> None:
    said = (limit.max_wall_s, limit.gpus_per_job, limit.gpus_per_user, limit.running_jobs, limit.submitted_jobs)
    if any(value is not None for value in said):
        user.limits.append(limit)


def parse_bars(text: str, count: int) -> list[list[str]]:
    """Lines of `sacctmgr -nP`, split at the bars; lines with another number of columns are left out."""
    rows = [line.split("|") for line in text.splitlines()]
    return [row for row in rows if len(row) == count]
