"""Agent versions: one hash over code, prompt, models, tools and schemas, stamped on every decision."""

import ast
import hashlib
from collections.abc import Iterable
from pathlib import Path

import agents


def agent_version(name: str, *, models: Iterable[str] = (), files: Iterable[Path] = ()) -> str:
    """Twelve hex digits that change when anything does that shapes the agent's decisions.

    Covers the agent's module, every module of `agents` it imports (its schemas and tools among them), its
    prompt where it has one, the models named, and files that it decides by.
    """
    root = Path(agents.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(_closure(root, name)):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    prompt = root / "prompts" / f"{name}.md"
    if prompt.exists():
        digest.update(prompt.read_bytes())
    for model in models:
        digest.update(b"\0" + model.encode())
    for file in files:
        digest.update(b"\0" + file.read_bytes())
    return digest.hexdigest()[:12]


def _closure(root: Path, name: str) -> set[Path]:
    waiting, found = [name], set[Path]()
    while waiting:
        path = root / f"{waiting.pop()}.py"
        if path.exists() and path not in found:
            found.add(path)
            waiting.extend(_imported_siblings(path))
    return found


def _imported_siblings(path: Path) -> Iterable[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "agents":
            yield from [node.module.partition(".")[2]] if "." in node.module else [a.name for a in node.names]
