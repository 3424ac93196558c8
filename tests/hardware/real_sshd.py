"""Real sshd processes on loopback, each with its own keys, configuration and port, all in one temporary folder."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

REQUIRED = "COMPUTE_AWARENESS_REAL_SERVERS"
"""Set to 1 where a missing server must fail the tests, as in CI."""


def missing() -> str | None:
    """Why there can be no real sshd here, in words; None where there can."""
    if os.name != "posix":
        return "sshd is started as a program of its own, which this system does not do"
    for name, package in (("sshd", "openssh-server"), ("ssh", "openssh-client"), ("ssh-keygen", "openssh-client")):
        if program(name) is None:
            return f"no {name} on this machine: apt-get install {package}"
    return None


def program(name: str) -> str | None:
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"]))


@dataclass
class Lab:
    """Keys and a client configuration, to which servers are added."""

    folder: Path
    servers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name in ("user", "stranger", "host"):
            keygen = [
                str(program("ssh-keygen")),
                "-q",
                "-t",
                "ed25519",
                "-N",
                "",
                "-C",
                name,
                "-f",
                str(self.key(name)),
            ]
            subprocess.run(keygen, check=True)
        shutil.copy(self.key("user").with_suffix(".pub"), self.folder / "authorized_keys")
        self.known_hosts.touch()
        self.config.touch()

    @property
    def config(self) -> Path:
        return self.folder / "config"

    @property
    def known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    def key(self, name: str) -> Path:
        return self.folder / f"key_{name}"

    def start(self, alias: str, *lines: str, known: bool = True, client: tuple[str, ...] = ()) -> int:
        """A server with further lines of sshd_config and, for its alias, of ssh_config. Its port."""
        port = free_port()
        config = self.folder / f"sshd_{alias}"
        config.write_text(
            "\n".join(
                [
                    *lines,
                    f"Port {port}",
                    "ListenAddress 127.0.0.1",
                    f"HostKey {self.key('host')}",
                    f"PidFile {self.folder}/{alias}.pid",
                    f"AuthorizedKeysFile {self.folder}/authorized_keys",
                    "StrictModes no",
                    "UsePAM no",
                    "PasswordAuthentication no",
                    "KbdInteractiveAuthentication no",
                    "PermitRootLogin prohibit-password",
                    "MaxStartups 100",
                    "",
                ]
            )
        )
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        command = [str(program("sshd")), "-D", "-f", str(config), "-E", str(self.folder / f"{alias}.log")]
        # In a group of its own, so that nothing that looks at a machine can end it or be ended with it.
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
        self.servers.append(server)
        for _ in range(200):
            assert server.poll() is None, (self.folder / f"{alias}.log").read_text()
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.05)
        self.add(alias, port, *client)
        if known:
            self.know(port)
        return port

    def add(self, alias: str, port: int, *lines: str) -> None:
        """An alias of the client's configuration."""
        defaults = [
            "HostName 127.0.0.1",
            f"Port {port}",
            f"IdentityFile {self.key('user')}",
            "IdentitiesOnly yes",
            "IdentityAgent none",
            f"UserKnownHostsFile {self.known_hosts}",
            "GlobalKnownHostsFile /dev/null",
        ]
        text = "\n    ".join([f"Host {alias}", *lines, *defaults])
        with self.config.open("a") as file:
            file.write(text + "\n")

    def know(self, port: int, key: str = "host") -> None:
        kind, blob = self.key(key).with_suffix(".pub").read_text().split()[:2]
        with self.known_hosts.open("a") as file:
            file.write(f"[127.0.0.1]:{port} {kind} {blob}\n")

    def stop(self) -> None:
        for server in self.servers:
            server.terminate()
        for server in self.servers:
            server.wait(10)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
