"""Eval of policy search: how many of the documents that a task needs are found, beside plain BM25 in the same run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import bm25s

from contracts.errors import Misconfigured
from evals.scores import Scores
from ops.embedding import installed_embedder
from state.policies import MemoryPolicies, Policies
from state.policy_files import PolicyDocument, read_documents
from state.policy_search import HybridSearch

_SHOP = "retrieval-eval"
_DEEPEST = 10


@dataclass(frozen=True)
class _Task:
    id: str
    query: str
    required: frozenset[str]

    def recall(self, found: Sequence[str], k: int) -> float:
        return len(self.required.intersection(found[:k])) / len(self.required)


async def evaluate(data: Path, policies: Policies | None = None, *, words_alone: bool = False) -> Scores:
    """Search for every task's instructions in the documents beside them; recall is of the required documents.

    `data` is a JSONL file of tasks with `docs.jsonl` beside it, or the directory of both. `policies` is where the
    documents are loaded; in memory if left out. Raises Misconfigured: a file is missing or broken.
    """
    directory, tasks = _read_tasks(data)
    documents = list(read_documents(directory / "docs.jsonl"))
    embedder = None if words_alone else installed_embedder()
    policies = policies or MemoryPolicies()
    document_of = {passage.id: document.id for document in documents for passage in document.passages()}
    await policies.load(_SHOP, list({p.id: p for document in documents for p in document.passages()}.values()))
    search = HybridSearch(policies, lambda _: _SHOP, embedder)
    ours = {task.id: _documents(document_of[p.id] for p in await search.ranked("", task.query)) for task in tasks}
    theirs = _by_bm25(documents, tasks)
    return Scores(
        name="retrieval",
        figures={"n": len(tasks), **_recalls("", tasks, ours), **_recalls("bm25_", tasks, theirs)},
        right={task.id: task.recall(ours[task.id], _DEEPEST) for task in tasks},
        notes=("by words and vectors" if embedder else "by words alone",),
    )


def _recalls(prefix: str, tasks: Sequence[_Task], found: Mapping[str, Sequence[str]]) -> dict[str, float]:
    return {f"{prefix}recall_{k}": mean(task.recall(found[task.id], k) for task in tasks) for k in (5, _DEEPEST)}


def _documents(found: Iterable[str]) -> list[str]:
    """The first documents of which a passage was found, each once."""
    return list(dict.fromkeys(found))[:_DEEPEST]


def _by_bm25(documents: Sequence[PolicyDocument], tasks: Sequence[_Task]) -> dict[str, list[str]]:
    """The peer as it comes: whole documents, the whole query, English stop words."""
    peer = bm25s.BM25()
    texts = [f"{document.title}\n{document.content}" for document in documents]
    peer.index(bm25s.tokenize(texts, stopwords="en", show_progress=False), show_progress=False)
    asked = bm25s.tokenize([task.query for task in tasks], stopwords="en", show_progress=False)
    places, _ = peer.retrieve(asked, k=min(_DEEPEST, len(documents)), show_progress=False)
    return {task.id: [documents[place].id for place in row] for task, row in zip(tasks, places, strict=True)}


def _read_tasks(data: Path) -> tuple[Path, list[_Task]]:
    files = sorted(data.glob("tasks_*.jsonl")) if data.is_dir() else [data]
    try:
        lines = [line for file in files for line in file.read_text(encoding="utf-8").split("\n") if line.strip()]
        tasks = [_task(json.loads(line)) for line in lines]
    except (OSError, ValueError, KeyError) as error:
        raise Misconfigured(f"the tasks in {data} cannot be read: {type(error).__name__}: {error}") from error
    if not tasks:
        raise Misconfigured(f"{data} holds no tasks_*.jsonl of id, user_instructions, required_documents")
    return (data if data.is_dir() else data.parent), tasks


def _task(row: Mapping[str, object]) -> _Task:
    required = row["required_documents"]
    if not isinstance(required, list) or not required:
        raise ValueError(f"task {row['id']} requires no documents")
    return _Task(str(row["id"]), str(row["user_instructions"]), frozenset(map(str, required)))
