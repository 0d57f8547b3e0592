"""The error tree: both sides know every code that may travel."""

import copy
import pickle
from collections.abc import Callable

import pytest

from perdure.sdk.base.errors import ExecutionFailed, Fatal, RetryAfter, StepFailed
from perdure.wire.base import errors
from perdure.wire.base.errors import PerdureError, error_classes, from_code


@pytest.mark.parametrize("kind", error_classes(), ids=lambda kind: kind.__name__)
def test_a_code_leads_back_to_its_class(kind: type[PerdureError]) -> None:
    found = from_code(kind.code, "so it is", {"a": 1}, kind.status)
    assert type(found) is kind
    assert (found.message, found.details, str(found)) == ("so it is", {"a": 1}, "so it is")


def test_no_two_classes_share_a_code() -> None:
    codes = [kind.code for kind in error_classes()]
    assert len(codes) == len(set(codes))


@pytest.mark.parametrize(
    ("status", "kind"),
    [(404, errors.NotFound), (429, errors.TooManyRequests), (503, errors.Unavailable), (500, PerdureError)],
)
def test_an_unknown_code_is_read_by_its_status(status: int, kind: type[PerdureError]) -> None:
    """Proxies and later releases send unknown codes."""
    assert type(from_code("NEWER", "what", status=status)) is kind


def test_errors_of_other_rooms_are_not_made_from_a_code() -> None:
    class Ours(PerdureError):
        code = "OURS"

        def __init__(self) -> None:
            super().__init__("made elsewhere")

    assert Ours not in error_classes()
    assert type(from_code("OURS", "what")) is PerdureError


def test_the_docstring_draws_the_whole_tree() -> None:
    assert errors.__doc__ is not None
    drawn = {line.split("── ")[1].split()[0]: line for line in errors.__doc__.splitlines() if "── " in line}
    assert set(drawn) == {kind.__name__ for kind in error_classes()} - {"PerdureError"}
    for kind in error_classes()[1:]:
        assert str(kind.status) in drawn[kind.__name__]


class OutOfStock(Fatal):
    def __init__(self, sku: int) -> None:  # and not that of `Fatal`
        self.sku = sku


@pytest.mark.parametrize(
    "error",
    [
        errors.BadValue("input.n: no", {"path": "n"}),
        RetryAfter(30),
        RetryAfter(30, "busy"),
        StepFailed("no route", type="OSError", key="get", name="get", tries=3),
        ExecutionFailed("no route", execution_id="e-1", type="OSError"),
        OutOfStock(7),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("copied", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))], ids=["copy", "pickle"])
def test_an_error_comes_out_of_another_process_as_it_went_in(
    error: PerdureError, copied: Callable[[PerdureError], PerdureError]
) -> None:
    """A pool of processes breaks if a step's error cannot be read."""
    again = copied(error)
    assert type(again) is type(error)
    assert (str(again), again.args, vars(again)) == (str(error), error.args, vars(error))
