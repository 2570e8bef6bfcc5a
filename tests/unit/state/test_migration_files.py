"""Migration files: their names and numbers leave no doubt about the order."""

from pathlib import Path

import pytest

from contracts.errors import Misconfigured
from state.migrate import DIRECTORY, read_migrations


def test_the_files_are_in_order() -> None:
    migrations = read_migrations(DIRECTORY)
    assert [migration.number for migration in migrations] == list(range(1, len(migrations) + 1))
    assert migrations[0].name == "0001_tickets"


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        (["0002_b.sql"], "migration 0001 is missing"),
        (["0001_a.sql", "0003_c.sql"], "migration 0002 is missing"),
        (["0001_a.sql", "0001_b.sql"], "migration 0002 is missing"),
        (["0001_a.sql", "2_b.sql"], "2_b.sql is not a name"),
        (["0001_a.sql", "0002.sql"], "0002.sql is not a name"),
    ],
)
def test_a_gap_a_twin_and_a_stray_name_are_refused(tmp_path: Path, names: list[str], complaint: str) -> None:
    for name in names:
        (tmp_path / name).write_text("SELECT 1")
    with pytest.raises(Misconfigured, match=complaint):
        read_migrations(tmp_path)
