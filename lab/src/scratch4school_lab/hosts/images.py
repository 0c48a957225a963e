"""The two images of a lab, made of Debian packages. Their names follow from their content; an existing one is kept."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from ..checkout import ROOT
from ..shell import docker, run
from . import certificates, plan

# The packages of an ordinary Debian server. Docker is not among them, because a role installs it.
SERVER_PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "openssh-server", "sudo", "python3", "iproute2", "iptables", "procps"),
    *("ca-certificates", "netbase", "less"),
)
# The identity provider has a smaller root file system. Both are bootstrapped at the same time, so sharing one would
# save only disk.
IDP_SYSTEM = "trixie"
IDP_PACKAGES = ("ca-certificates", "python3-venv")
EXTRA_AUTHORITIES = Path("/usr/local/share/ca-certificates")
PROXY_VARIABLES = ("http_proxy", "https_proxy", "no_proxy")
# Each site has its own mirror, so the repository names none; the default is mmdebstrap's.
MIRROR = os.environ.get("SCRATCH4SCHOOL_DEBIAN_MIRROR", "")


def exists(image: str) -> bool:
    return docker("image", "inspect", "--format", "{{.Id}}", image, why="", check=False).returncode == 0


def fingerprint(*parts: str) -> str:
    """Twelve hexadecimal digits of a digest of the parts, in their order."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{len(part)}:{part}".encode())
    return digest.hexdigest()[:12]


def fingerprint_folder(folder: Path, *parts: str) -> str:
    """The fingerprint of all files below a folder (path, mode, content) and of further parts."""
    listed = []
    for path in sorted(item for item in folder.rglob("*") if item.is_file()):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        listed.append(f"{path.relative_to(folder)} {path.stat().st_mode & 0o777:o} {content}")
    return fingerprint(*listed, *parts)


def rootfs(system: str, packages: tuple[str, ...]) -> str:
    """The image with a Debian system's packages only; it is bootstrapped when it is missing."""
    image = f"scratch4school-lab-rootfs:{system}-{fingerprint(system, MIRROR, *packages)}"
    if not exists(image):
        with tempfile.TemporaryDirectory(prefix="scratch4school-lab-") as folder:
            archive = Path(folder, "rootfs.tar")
            options = ("--variant=minbase", f"--include={','.join(packages)}")
            run(
                *("mmdebstrap", *options, system, str(archive), *filter(None, [MIRROR])),
                why=f"Debian {system} could not be bootstrapped from its packages",
            )
            docker("import", str(archive), image, why=f"The bootstrapped {system} could not be imported")
    return image


def proxy_settings() -> dict[str, str]:
    """The proxy variables of this machine; a lab host needs the same ones to reach the package mirrors."""
    found = {name: os.environ.get(name) or os.environ.get(name.upper(), "") for name in PROXY_VARIABLES}
    return {name: value for name, value in found.items() if value}


def gather_context(context: Path, recipe: Path) -> None:
    """Copy an image's recipe to a build context, and add this machine's certificate authorities and proxies."""
    shutil.copytree(recipe, context, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    authorities = context / "ca-certificates"
    authorities.mkdir()
    for certificate in sorted(EXTRA_AUTHORITIES.rglob("*.crt")):
        shutil.copy(certificate, authorities)
    settings = proxy_settings()
    (context / "environment").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    lines = [f'Acquire::{name[:-6]}::Proxy "{settings[name]}";\n' for name in PROXY_VARIABLES[:2] if name in settings]
    (context / "apt-proxy.conf").write_text("".join(lines))


def build(name: str, system: str, packages: tuple[str, ...], extra_files: dict[str, Path]) -> tuple[str, bool]:
    """Build `docker/NAME` on a Debian system with certain packages, unless that image exists.

    `extra_files` are copied beside the recipe: name there, file here. Returns the image and whether it was built.
    """
    with tempfile.TemporaryDirectory(prefix="scratch4school-lab-") as folder:
        context = Path(folder)
        gather_context(context, ROOT / "docker" / name)
        for target, source in extra_files.items():
            shutil.copyfile(source, context / target)
        image = f"scratch4school-{name}:{system}-{fingerprint_folder(context, system, MIRROR, *packages)}"
        if exists(image):
            return image, False
        arguments = [
            f"ROOTFS={rootfs(system, packages)}",
            *(f"{key}={value}" for key, value in proxy_settings().items()),
        ]
        if "PIP_INDEX_URL" in os.environ:
            arguments.append("PIP_INDEX_URL")
        options = [option for argument in arguments for option in ("--build-arg", argument)]
        docker("build", *options, "--tag", image, folder, why=f"The image {name} could not be built")
    return image, True


def build_host(system: str) -> tuple[str, bool]:
    """The image of a host on a Debian system, with this lab's key and authority, and whether it was built."""
    extra_files = {
        "authorized_keys": plan.SSH_KEY.with_suffix(".pub"),
        "ca-certificates/scratch4school-lab.crt": certificates.CA_CERTIFICATE,
    }
    return build("lab-host", system, SERVER_PACKAGES, extra_files)


def build_idp() -> tuple[str, bool]:
    """The image of the identity provider, which is the same for all labs, and whether it was built."""
    return build("lab-idp", IDP_SYSTEM, IDP_PACKAGES, {})


def remove_all() -> int:
    """Remove every image of any lab; returns how many there were."""
    listed = docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", why="The images could not be listed")
    ours = [image for image in listed.stdout.split() if image.startswith("scratch4school-lab-")]
    if ours:
        docker("image", "rm", "--force", *ours, why="The lab's images could not be removed")
    return len(ours)
