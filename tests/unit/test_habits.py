"""What keeps the house: small rules that a reader would otherwise have to police."""

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("agents", "benchmarks", "bus", "contracts", "evals", "llm", "ops", "state")
LOCKS = ("requirements.lock", "requirements-dev.lock")


def our_files() -> Iterator[Path]:
    """Every file that is, or is about to be, in the repository."""
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return (ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file())


def text_files() -> Iterator[tuple[Path, str]]:
    for path in our_files():
        content = path.read_bytes()
        if b"\0" not in content and path != Path(__file__):  # which names what it looks for
            yield path.relative_to(ROOT), content.decode("utf-8", "replace")


def names_in(requirements: list[str]) -> set[str]:
    """Distribution names, normalised, without extras, versions and markers."""
    found = [re.match(r"[A-Za-z0-9._-]+", requirement) for requirement in requirements]
    return {re.sub(r"[-_.]+", "-", name[0]).lower() for name in found if name}


def pins(lock: str) -> dict[str, set[str]]:
    """The versions a lock file names, by distribution; several where they differ by platform."""
    versions: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([a-z0-9._-]+)==([^\s;]+)", (ROOT / lock).read_text(), re.MULTILINE):
        versions.setdefault(name, set()).add(version)
    return versions


def wanted(*extras: str) -> set[str]:
    """The distributions that pyproject.toml asks for, and those that build it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    chosen = [requirement for extra in extras for requirement in project["optional-dependencies"][extra]]
    build = (ROOT / "build-requirements.in").read_text().split()
    return names_in([*project["dependencies"], *chosen, *build])


def test_every_init_file_is_one_docstring() -> None:
    for path in our_files():
        if path.name == "__init__.py" and "tests" not in path.relative_to(ROOT).parts:
            body = ast.parse(path.read_text()).body
            assert len(body) == 1, path
            assert isinstance(body[0], ast.Expr), path
            assert ast.get_docstring(ast.parse(path.read_text())), path


def test_nothing_is_left_for_later() -> None:
    left = re.compile(r"\b(TODO|FIXME|XXX)\b")
    assert [str(path) for path, text in text_files() if path.suffix == ".py" and left.search(text)] == []


def test_no_file_names_a_folder_of_somebodys_machine() -> None:
    home = re.compile(rf"(?<![\w.])(/home/\w+|/root/|/Users/\w+|{re.escape(str(ROOT))})")
    assert [f"{path}: {found[0]}" for path, text in text_files() if (found := home.search(text))] == []


def test_every_package_says_that_it_is_typed() -> None:
    assert [name for name in PACKAGES if not (ROOT / name / "py.typed").is_file()] == []


def test_pyproject_names_every_package() -> None:
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    named = [
        tools["hatch"]["build"]["targets"]["wheel"]["packages"],
        tools["mypy"]["packages"],
        tools["importlinter"]["root_packages"],
    ]
    assert [sorted(names) for names in named] == [list(PACKAGES)] * 3


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_file_names_versions_and_hashes_and_no_address(lock: str) -> None:
    lines = (ROOT / lock).read_text().splitlines()
    assert not [line for line in lines if re.search(r"://|--(extra-)?index|--find-links", line)]
    assert all(re.match(r"[a-z0-9._-]+==\S+|    --hash=sha256:[0-9a-f]{64}( \\)?$|    #", line) for line in lines)


@pytest.mark.parametrize(
    ("lock", "extras"), [("requirements.lock", ["embedded"]), ("requirements-dev.lock", ["embedded", "monitor", "dev"])]
)
def test_a_lock_file_holds_what_pyproject_asks_for(lock: str, extras: list[str]) -> None:
    assert wanted(*extras) <= set(pins(lock))


def test_what_is_asked_for_apart_is_not_in_the_lock_file_of_the_demo() -> None:
    apart = wanted("embedded", "monitor", "dev") - wanted("embedded")
    assert apart & set(pins("requirements.lock")) == set()


def test_both_lock_files_agree() -> None:
    demo, dev = (pins(lock) for lock in LOCKS)
    assert {name: dev.get(name) for name in demo} == demo


def test_the_kafka_of_the_tests_is_named_once_per_language() -> None:
    from tests.services.containers import KAFKA_IMAGE
    from tests.services.kafka import VERSION

    pom = (ROOT / "tests/services/pom.xml").read_text()
    kafka = re.findall(
        r"<groupId>org\.apache\.kafka</groupId>\s*<artifactId>[^<]+</artifactId>\s*<version>([^<]+)", pom
    )
    assert set(kafka) == {VERSION}
    assert KAFKA_IMAGE.endswith(f":{VERSION}")
