"""Apache Kafka from its own jars: one KRaft node that is broker and controller."""

import base64
import os
import re
import shutil
import socket
import struct
import subprocess
import tempfile
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType

from tests.services.native import (
    NativeService,
    ServiceUnavailable,
    data_folder,
    free_port,
    run,
)
from tests.services.reaper import Reaper

VERSION = "4.3.0"
MIN_JAVA = 17
# Metadata, version 1, correlation id 1, no client id, of no topic, behind its length. The answer's brokers come first.
METADATA_REQUEST = bytes.fromhex("0000000e 0003 0001 00000001 ffff 00000000")
SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "auto.create.topics.enable": "false",
    "group.initial.rebalance.delay.ms": "0",
    "message.max.bytes": str(2 * 1024 * 1024),
    "replica.fetch.max.bytes": str(2 * 1024 * 1024),
    "num.partitions": "1",
    "default.replication.factor": "1",
    "min.insync.replicas": "1",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "5",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "5",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    # A killed broker may register again soon.
    "broker.session.timeout.ms": "4000",
    "broker.heartbeat.interval.ms": "500",
    # Deleted topics leave the disk at once, and an idle broker keeps quiet.
    "log.segment.delete.delay.ms": "1000",
    "controlled.shutdown.enable": "false",
}


def native_kafka(
    reaper: Reaper,
    *,
    may_install: bool,
    quick_start: bool = True,
    more: Mapping[str, str] = MappingProxyType({}),
) -> tuple[NativeService, str]:
    """A formatted node, not started yet, and its bootstrap address. `more`: settings besides those of all tests.

    `may_install` allows root on Debian to install Java and Maven where they are missing. `quick_start` gives up speed
    under load: the quick compiler alone and one collector thread save a third of a start on a small machine.
    Raises ServiceUnavailable: this machine has no Java or no way to get Kafka's jars.
    """
    jars = cached_jars(may_install=may_install)
    java = find_java(may_install=may_install)
    folder = data_folder("kafka", reaper)
    port, controller_port = free_port(), free_port()
    properties = folder / "server.properties"
    properties.write_text(_properties(folder, port, controller_port, more))
    cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
    classpath = str(jars / "*")
    run(
        [
            java,
            "-cp",
            classpath,
            "kafka.tools.StorageTool",
            "format",
            f"--cluster-id={cluster_id}",
            "-c",
            str(properties),
        ],
        doing="formatting Kafka's storage",
        cwd=folder,
    )
    service = NativeService(
        name=f"Apache Kafka {VERSION}",
        command=[
            java,
            *(("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC") if quick_start else ()),
            *("-Xms256m", "-Xmx768m", "-XX:+ExitOnOutOfMemoryError", "-Dorg.slf4j.simpleLogger.showDateTime=true"),
            *("-cp", classpath, "kafka.Kafka", str(properties)),
        ],
        folder=folder,
        reaper=reaper,
        answers=lambda: answers_kafka(port),
    )
    return service, f"127.0.0.1:{port}"


def _properties(folder: Path, port: int, controller_port: int, more: Mapping[str, str]) -> str:
    own = {
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "controller.listener.names": "CONTROLLER",
        "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
        "log.dirs": f"{folder}/data",
    }
    return "".join(f"{name}={value}\n" for name, value in (SETTINGS | own | dict(more)).items())


def answers_kafka(port: int) -> bool:
    """Whether a broker answers on the port and counts as one: killed, it is fenced for a while when it is back."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(METADATA_REQUEST)
            with connection.makefile("rb") as answer:
                _size, _correlation, brokers = struct.unpack(">iii", answer.read(12))
                return bool(brokers > 0)
    except (OSError, struct.error):
        return False


def cached_jars(*, may_install: bool) -> Path:
    """The folder that holds Kafka's jars; downloaded once, whole or not at all, also by two runs at once."""
    kept = _cache() / f"kafka-{VERSION}"
    if kept.is_dir():
        return kept
    with tempfile.TemporaryDirectory(dir=kept.parent, prefix="kafka-download-") as folder:
        libs = Path(folder, "libs")
        _download(libs, may_install=may_install)
        try:
            libs.rename(kept)
        except OSError:
            if not kept.is_dir():  # else another run was faster, and its jars are as good
                raise
    return kept


def _download(libs: Path, *, may_install: bool) -> None:
    maven = _find("mvn", "maven", may_install=may_install)
    pom = Path(__file__).with_name("pom.xml")
    run(
        [
            maven,
            *("--quiet", "--batch-mode", "--strict-checksums", "--file", str(pom)),
            # Its own repository: Java's idea of a home folder is not the environment's, and may not exist.
            f"-Dmaven.repo.local={libs.with_name('repository')}",
            *("dependency:copy-dependencies", f"-DoutputDirectory={libs}"),
        ],
        doing="downloading Apache Kafka with Maven",
    )


def _cache() -> Path:
    """The user's cache; that of the checkout where the user has no home to write to."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    for folder in (base / "switchyard", Path(__file__).parents[2] / ".cache"):
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            return folder
    raise ServiceUnavailable(f"no folder to keep Apache Kafka in: neither {base} nor the checkout can be written to")


def find_java(*, may_install: bool) -> str:
    """The java command. Raises ServiceUnavailable: there is none of at least version 17."""
    java = _find("java", f"openjdk-{MIN_JAVA}-jre-headless", may_install=may_install)
    told = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    version = re.search(r'version "(\d+)', told)
    if version is None or int(version[1]) < MIN_JAVA:
        raise ServiceUnavailable(f"Apache Kafka {VERSION} needs Java {MIN_JAVA} or newer; {java} says: {told.strip()}")
    return java


def _find(command: str, package: str, *, may_install: bool) -> str:
    if shutil.which(command) is None and may_install and os.geteuid() == 0 and shutil.which("apt-get"):
        apt_get = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq"]
        run([*apt_get, "update"], doing="apt-get update")
        run([*apt_get, "install", "-y", "--no-install-recommends", package], doing=f"installing {package}")
    found = shutil.which(command)
    if found is None:
        raise ServiceUnavailable(
            f"Apache Kafka needs the command {command}: install it (on Debian: apt-get install {package}), "
            "or start a container engine"
        )
    return found
