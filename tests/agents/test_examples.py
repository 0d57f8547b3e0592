"""The examples in the docstrings of agents."""

from pathlib import Path

import pytest
from tests.test_house import AGENTS, name_of, run_examples


@pytest.mark.parametrize("path", AGENTS, ids=name_of)
def test_the_examples_of_docstrings_give_what_they_say(path: Path) -> None:
    run_examples(path)
