"""On which filesystem a folder lies, and what that means for what is kept there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, NamedTuple, Optional

Kind = Optional[Literal["disk", "network", "memory", "overlay"]]

_NETWORK = (
    "nfs", "nfs3", "nfs4", "cifs", "smb3", "smbfs", "lustre", "ceph", "gpfs", "beegfs", "glusterfs", "afs", "pvfs2",
    "wekafs", "panfs", "orangefs",
)  # fmt: skip
_FUSE_NETWORK = (
    "sshfs", "s3fs", "gcsfuse", "glusterfs", "juicefs", "rclone", "mountpoint-s3", "blobfuse", "blobfuse2", "goofys",
)  # fmt: skip
_DISK = (
    "ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "bcachefs", "reiserfs", "jfs", "ntfs", "ntfs3", "vfat",
    "exfat",
)  # fmt: skip


class Mount(NamedTuple):
    """One line of /proc/mounts, with its octal escapes undone."""

    source: str
    point: str
    filesystem: str

    @property
    def kind(self) -> Kind:
        """None for what may be anything (a folder of the host in a virtual machine or sandbox: 9p, virtiofs)."""
        name, _, part = self.filesystem.partition(".")
        if name in ("overlay", "aufs") or part == "fuse-overlayfs":
            return "overlay"
        if name in ("tmpfs", "ramfs"):
            return "memory"
        if name in _NETWORK or (name == "fuse" and part in _FUSE_NETWORK):
            return "network"
        return "disk" if name in _DISK else None


def read_mounts(root: Path = Path("/")) -> list[Mount]:
    """The mounts of this process, in their order; none where the system has no /proc."""
    try:
        text = (root / "proc/self/mounts").read_text(errors="replace")
    except OSError:
        return []
    return parse_mounts(text)


def parse_mounts(text: str) -> list[Mount]:
    mounts = []
    for line in text.split("\n"):
        words = line.split(" ")
        if len(words) >= 4 and words[1].startswith("/"):
            source, point, filesystem = (_unescaped(word) for word in words[:3])
            mounts.append(Mount(source, point, filesystem))
    return mounts


def mount_of(path: Path, mounts: list[Mount]) -> Mount | None:
    """The mount that `path` (absolute, without links) lies on: the deepest above it, and the last of those."""
    found = None
    wanted = path.as_posix().rstrip("/") + "/"
    for mount in mounts:
        if wanted.startswith(mount.point.rstrip("/") + "/") and (found is None or len(mount.point) >= len(found.point)):
            found = mount
    return found


def _unescaped(word: str) -> str:
    return re.sub(r"\\([0-3][0-7]{2})", lambda hit: chr(int(hit[1], 8)), word)
