from pathlib import Path

import pytest

import agents
from ops.versions import agent_version


@pytest.fixture
def copied_agents(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The agents' sources in a place where a test may change them."""
    import shutil

    root = tmp_path / "agents"
    shutil.copytree(Path(agents.__file__).parent, root)
    monkeypatch.setattr(agents, "__file__", str(root / "__init__.py"))
    return root


def test_the_version_is_the_same_while_nothing_changes(copied_agents: Path) -> None:
    assert agent_version("triage", models=["openai:a"]) == agent_version("triage", models=["openai:a"])


@pytest.mark.parametrize("changed", ["triage.py", "order_refs.py", "prompts/triage.md"])
def test_code_helpers_and_prompt_change_the_version(copied_agents: Path, changed: str) -> None:
    before = agent_version("triage")
    with (copied_agents / changed).open("a") as file:
        file.write("\n# another thought\n")
    assert agent_version("triage") != before


def test_another_model_changes_the_version() -> None:
    assert agent_version("triage", models=["openai:a"]) != agent_version("triage", models=["openai:b"])


def test_a_file_that_it_decides_by_changes_the_version(tmp_path: Path) -> None:
    file = tmp_path / "rules.toml"
    versions = set()
    for content in ("a", "b"):
        file.write_text(content)
        versions.add(agent_version("reasoning", files=[file]))
    assert len(versions | {agent_version("reasoning")}) == 3


def test_another_agents_code_does_not_change_it(copied_agents: Path) -> None:
    before = agent_version("triage")
    with (copied_agents / "effects.py").open("a") as file:
        file.write("\n# another thought\n")
    assert agent_version("triage") == before
