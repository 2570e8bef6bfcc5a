"""Which local classifier triages: what the settings name, else what was trained last, else the project's examples."""

import asyncio
import logging
from pathlib import Path

from llm.classifier import Classifier, checked, read_classifier
from llm.features import Features
from llm.labelling import Labeller
from llm.ngrams import Ngrams
from llm.training import SEEDS, seed_examples, train
from ops.embedding import HOW_TO_INSTALL, installed_embedder
from ops.settings import LlmSettings

TRAINED = Path(".switchyard/triage.safetensors")
_log = logging.getLogger(__name__)


def features_at_hand() -> Features:
    """Sentence embeddings where the extra `local` is installed, else n-grams, and a line in the log that says so."""
    load = installed_embedder()
    if load is None:
        _log.warning("triage goes by spelling alone: for sentence embeddings, %s", HOW_TO_INSTALL)
        return Ngrams()
    return load()


def load_classifier(chosen: str, features: Features) -> Classifier:
    """The classifier of that name: `seeds`, or the path of an artefact. Raises Misconfigured: it cannot be used."""
    if chosen == SEEDS:
        return train(seed_examples(), features)[0]
    return checked(read_classifier(Path(chosen)), features)


def chosen_classifier(settings: LlmSettings, given: str | None = None) -> str:
    """What the command line says, else the settings, else what was trained last here, else the project's examples."""
    configured = (settings.local or "").partition(":")[2] if settings.has_classifier else None
    return given or configured or (str(TRAINED) if TRAINED.exists() else SEEDS)


async def labeller_of(settings: LlmSettings) -> Labeller:
    """The local tier's classifier, loaded in a thread."""

    def load() -> Labeller:
        features = features_at_hand()
        return Labeller(load_classifier(chosen_classifier(settings), features), features)

    return await asyncio.to_thread(load)
