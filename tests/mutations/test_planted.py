"""The planted bugs still fit the code; `make mutants` plants them."""

import ast
import re

import pytest

from tests.mutations.__main__ import ROOT
from tests.mutations.planted import BUGS, Bug


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_bug_can_still_be_planted(bug: Bug) -> None:
    text = (ROOT / bug.file).read_text(encoding="utf-8")
    assert text.count(bug.old) == 1, f"{bug.file} does not hold it once: {bug.old!r}"
    assert ast.dump(ast.parse(text)) != ast.dump(ast.parse(text.replace(bug.old, bug.new)))


def test_the_tests_that_must_find_them_are_there() -> None:
    for file, *names in (test.split("::") for bug in BUGS for test in bug.tests):
        text = (ROOT / file).read_text(encoding="utf-8")
        assert all(re.search(rf"(def|class) {name}\b", text) for name in names), (file, names)


def test_each_bug_has_a_name_of_its_own() -> None:
    assert len({bug.name for bug in BUGS}) == len(BUGS)
