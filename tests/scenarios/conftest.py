"""What the scenarios share: a lab host with Scratch4School on it, the playbooks, and people who log in.

A scenario is a whole story on real hosts. `scripts/test scenarios` brings the lab up and runs them all; with the lab up
and deployed (`scripts/demo`), one of them runs by `.venv/bin/pytest tests/scenarios/test_pupil.py`.
"""

from __future__ import annotations

import fcntl
import functools
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
from idp import log_in
from tables import Tables
from xdist.scheduler import LoadScopeScheduling

if TYPE_CHECKING:
    from lesson import Lesson

ROOT = Path(__file__).resolve().parents[2]
TOOLS = Path(sys.executable).parent
LAB = ROOT / "scripts" / "lab"
HOST = "scratch4school-lab-1"
VERIFIED = "Results: 6 passed, 0 failed"
URL = "https://localhost:8443"
CA = str(ROOT / ".lab" / "ca.crt")
PASSWORD = (ROOT / "docker" / "lab-idp" / "password.txt").read_text().strip()
PROJECTS = Path(__file__).with_name("projects")
TABLES = pytest.StashKey[Tables]()
# Since Debian 13 the client is a package of its own.
INSTALL_ENGINE = (
    "sudo apt-get update -q && for names in 'docker.io docker-cli' docker.io; do"
    " sudo apt-get install -qy --no-install-recommends $names && break; done"
)
IMAGES = ("base", "postgres", "pgbouncer", "proxy", "backup", "app")
NEWEST = "sudo docker image ls --format '{{.Repository}}:{{.Tag}}' scratch4school/%s | head -1; "
# Everything that was deployed, but for the engine and its images.
FORGET = """
sudo systemctl stop scratch4school 2>/dev/null
command -v docker >/dev/null && sudo docker ps --all --quiet --filter label=scratch4school | xargs -r sudo docker rm -f
sudo systemctl stop 'scratch4school-*.timer' 2>/dev/null
sudo rm -rf /etc/systemd/system/scratch4school* /usr/local/lib/scratch4school*
sudo rm -rf /etc/scratch4school /var/lib/scratch4school
sudo systemctl daemon-reload
"""
# Stories on hosts beside the first; of these, each brings up its own.
ON_FURTHER_HOSTS = {"test_adoption.py", "test_bookworm.py", "test_sqlite.py"}
FORGET_IMAGES = "command -v docker >/dev/null && sudo docker image prune --all --force >/dev/null || true"


@dataclass(frozen=True)
class Run:
    """How a playbook ended: exit status, everything it said, and its recap by host and word."""

    status: int
    output: str

    @property
    def sentence(self) -> str:
        """All it said on one line, because Ansible folds its messages where it likes."""
        return " ".join(self.output.split())

    def recap(self, host: str = HOST) -> dict[str, int]:
        """What Ansible counted for the host: ok, changed, unreachable, failed, skipped, rescued, ignored."""
        line = re.findall(rf"^{re.escape(host)}\s+: (.*)$", self.output, flags=re.MULTILINE)[-1]
        return {word: int(number) for word, number in (pair.split("=") for pair in line.split())}


@dataclass(frozen=True)
class Place:
    """A lab host: its name, and the address that its pupils type."""

    name: str
    url: str

    @property
    def address(self) -> str:
        """Its own, in the lab's network."""
        return re.findall(rf"^{self.name} .* (10\.[0-9.]+),", lab_status(), flags=re.MULTILINE)[0]


def start(
    playbook: str,
    *arguments: str,
    folder: Path = ROOT,
    inventory: Path = ROOT / "inventories" / "lab",
    limit: str = f"{HOST},localhost",
) -> subprocess.Popen[str]:
    """Start one of the verbs against the lab, as a sysadmin would type it, in a process group of its own."""
    path = playbook if folder == ROOT / "deploy" else f"deploy/{playbook}"
    return subprocess.Popen(
        [str(TOOLS / "ansible-playbook"), "--inventory", str(inventory), "--limit", limit, path, *arguments],
        cwd=folder,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        # All of its words fit, so that it does not wait for whoever waits for something else meanwhile.
        pipesize=1 << 20,
        text=True,
        start_new_session=True,
    )


def play(playbook: str, *arguments: str, **place: Any) -> Run:
    """Run one of the verbs to its end."""
    return finish(start(playbook, *arguments, **place))


def finish(process: subprocess.Popen[str]) -> Run:
    """Let a verb that was started come to its end."""
    output, _ = process.communicate()
    return Run(process.returncode, output)


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    """Ask once a second until the condition holds; fail when it does not within so many seconds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"still not so after {seconds} seconds"
        time.sleep(1)


def lab(*arguments: str) -> str:
    """What scripts/lab prints; it has to succeed."""
    ended = subprocess.run([str(LAB), *arguments], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, f"{arguments}: {ended.stdout}{ended.stderr}"
    return ended.stdout


def lab_status() -> str:
    """What there is; another worker's host may be starting, which its exit status tells."""
    return subprocess.run([str(LAB), "status"], capture_output=True, text=True, check=False).stdout


def listens(port: int, address: str = "127.0.0.1") -> bool:
    """Whether somebody takes connections there."""
    with socket.socket() as door:
        door.settimeout(1)
        return door.connect_ex((address, port)) == 0


def on_host(command: str, host: str = HOST) -> str:
    """What a command prints on a lab host; it has to succeed."""
    return lab("ssh", host, command)


def lab_host(system: str = "trixie", database: str = "postgres") -> Place:
    """The lab's host of that kind, beside the first; a new one where there is none."""
    kind = re.compile(rf"^(\S+) +{system}, {database}, .*(https://\S+)$", flags=re.MULTILINE)
    hosts = lab_status()
    if not kind.search(hosts):
        count = len(re.findall(r"https://localhost:844\d", hosts)) + 1
        lab("up", "--hosts", str(count), "--os", system, "--database", database)
    found = kind.search(lab_status())
    assert found, "the lab did not make the host that was asked for"
    return Place(*found.groups())


def empty_host() -> Place:
    """A host on which there is nothing of ours; a new one where each has something."""
    for name, url in re.findall(r"^(\S+) +trixie, postgres, .*(https://\S+)$", lab_status(), flags=re.MULTILINE):
        # The first host never is, and another worker may be restarting it.
        if name != HOST and not on_host("ls /var/lib/scratch4school 2>/dev/null || true", name):
            return Place(name, url)
    count = len(re.findall(r"https://localhost:844\d", lab_status())) + 1
    lab("up", "--hosts", str(count))
    return Place(*re.findall(r"^(\S+) .*(https://localhost:844\d)$", lab_status(), flags=re.MULTILINE)[-1])


def forget(place: Place, images: bool = False) -> None:
    """Have a host on which there is nothing of ours but, unless told otherwise, images."""
    on_host(FORGET, place.name)
    if images:
        on_host(FORGET_IMAGES, place.name)


def hand_over_images(host: str, images: dict[str, str], but: str = "") -> None:
    """Give a host the images of the first, as a school with a build host would; building them takes minutes.

    SQLite needs no image of PostgreSQL's, and `but` is left out, too.
    """
    on_host(INSTALL_ENGINE, host)
    engine = "" if re.search(rf"^{host} .*, sqlite,", lab_status(), flags=re.MULTILINE) else "postgres pgbouncer"
    names = [name for name in images if name != but and (engine or name not in ("postgres", "pgbouncer"))]
    wanted = " ".join(images[name] for name in names)
    with subprocess.Popen([str(LAB), "ssh", HOST, f"sudo docker save {wanted}"], stdout=subprocess.PIPE) as saving:
        subprocess.run([str(LAB), "ssh", host, "sudo docker load"], stdin=saving.stdout, check=True)
    assert saving.returncode == 0


def serving_slot(place: Place) -> str:
    """The name of the application's container that the proxy points at."""
    return on_host(
        "echo scratch4school-app-$(sudo readlink /var/lib/scratch4school/run/app/current)", place.name
    ).strip()


def serving(host: str = HOST) -> dict[str, str]:
    """Every container of ours on the host: its name and when it was started."""
    lines = on_host(
        "sudo docker ps --quiet --filter label=scratch4school | xargs --no-run-if-empty sudo docker inspect "
        "--format '{{.Name}} {{.State.StartedAt}}'",
        host,
    ).splitlines()
    return dict(line.removeprefix("/").split() for line in lines)


def status(url: str = URL) -> int:
    """What the public status address answers; 0 when nothing answers at all."""
    try:
        return requests.get(f"{url}/backend/api/status", verify=CA, timeout=10).status_code
    except requests.ConnectionError:
        return 0


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where the tables go beside the terminal."""
    parser.addoption("--tables", type=Path, metavar="FILE", help="write what scenarios measured there too, as JSON")


def pytest_configure(config: pytest.Config) -> None:
    """Lay the tables out, still empty."""
    config.stash[TABLES] = Tables()


class OneWorkerPerHost(LoadScopeScheduling):
    """Two workers: one has the first host, the other one all further hosts."""

    def _split_scope(self, nodeid: str) -> str:
        return "further hosts" if Path(nodeid.partition("::")[0]).name in ON_FURTHER_HOSTS else "first host"


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Give xdist our distribution; its own by groups reads names that pytest 9 no longer lets it change."""
    return OneWorkerPerHost(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with Debian 12, which does not wait for the first deploy of the first host."""
    items.sort(key=lambda item: item.path.name != "test_bookworm.py")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Send a worker's tables to the process that prints them."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["tables"] = session.config.stash[TABLES].rows


def pytest_testnodedown(node: Any) -> None:
    """Take a worker's tables in; one that died sent none."""
    for title, rows in getattr(node, "workeroutput", {}).get("tables", {}).items():
        for row in rows:
            node.config.stash[TABLES].add(title, row)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print what was measured, whether all passed or not."""
    tables = config.stash[TABLES]
    for title in tables.titles:
        terminalreporter.section(title)
        for line in tables.lines(title):
            terminalreporter.write_line(line)
    if path := config.getoption("--tables"):
        tables.write(path)


@pytest.fixture(scope="session")
def tables(pytestconfig: pytest.Config) -> Tables:
    """What is printed at the end of the run."""
    return pytestconfig.stash[TABLES]


@pytest.fixture
def lesson(tmp_path: Path) -> Iterator[Callable[..., Lesson]]:
    """Start a lesson on a host; one that a failed test left is stopped."""
    from lesson import lessons  # Which needs this file.

    with lessons(tmp_path) as begin:
        yield begin


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The images of the first host by their names; deploys when nothing answers there yet, once for all workers."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    known = folder / "images.txt"
    with (folder / "first-deploy.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not known.exists():
            if status() != 200:
                run = play("deploy.yml")
                assert run.status == 0, run.output[-4000:]
            known.write_text(on_host("".join(NEWEST % name for name in IMAGES)))
    return dict(zip(IMAGES, known.read_text().split(), strict=True))


@pytest.fixture(scope="session")
def deployed(images: dict[str, str]) -> str:
    """The address of a deployed lab host."""
    return URL


@pytest.fixture(scope="session")
def large(deployed: str) -> Place:
    """The deployed host with PostgreSQL."""
    return Place(HOST, deployed)


@pytest.fixture(scope="session")
def small(images: dict[str, str]) -> Place:
    """A deployed host with SQLite; deploys when nothing answers there yet."""
    place = lab_host(database="sqlite")
    if status(place.url) != 200:
        hand_over_images(place.name, images)
        run = play("deploy.yml", limit=f"{place.name},localhost")
        assert run.status == 0, run.output[-4000:]
        assert "SQLite: no pool" in run.sentence
        assert VERIFIED in run.output
    return place


@pytest.fixture(scope="session")
def login(deployed: str) -> Callable[..., requests.Session]:
    """Log a person in through the provider; returns a browser that carries the session as the front end does."""

    # The lab's provider makes its access tokens from the second and the person, and refuses a person's second login
    # within one second. Everybody therefore logs in once, and beside a class of a hundred only those do who come after
    # pupil100.
    @functools.cache
    def as_person(name: str, url: str = deployed) -> requests.Session:
        browser = requests.Session()
        browser.trust_env = False
        browser.verify = CA
        browser.headers["Authorization"] = f"Bearer {log_in(url, name, PASSWORD, CA)}"
        return browser

    return as_person
