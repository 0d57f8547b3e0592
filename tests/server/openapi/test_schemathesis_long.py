"""The long test_schemathesis.py. The fast suite does not collect the file, because collecting takes seconds in each
process."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, seed, settings
from hypothesis.errors import Flaky
from hypothesis.stateful import run_state_machine_as_test
from tests.server.openapi.test_schemathesis import (
    BESIDE_A_THREAD,
    FEW,
    ROUTES,
    Running,
    checks_of,
    hold,
    running,
    schema,
    servers,
)

from perdure.server.http import openapi

__all__ = ["running", "servers"]

RUNS_MAX = 5


@pytest.mark.slow
@pytest.mark.timeout(600)
@BESIDE_A_THREAD
@schema.parametrize()
@settings(FEW, max_examples=25)
def test_every_corner_of_the_document_holds(running: Running, case: schemathesis.Case[Any]) -> None:
    """All phases: what the document gives as examples and each border of each value are tried, too."""
    hold(running, case)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_document_holds_for_chains_of_requests(running: Running) -> None:
    """One request's answer feeds the next request: existing ids, just deleted things."""

    followed: set[str] = set()
    wrong: list[BaseException] = []
    keyed = [route for route in ROUTES if route.role is not None]  # from signing in no other request follows
    chains = schemathesis.openapi.from_dict(openapi.document(keyed, version="1"))

    class Chain(chains.as_state_machine()):  # type: ignore[misc]  # a class that is made at run time
        def get_call_kwargs(self, case: Any) -> dict[str, Any]:
            case.headers.pop("X-Project-ID", None)
            if "project_id" in case.path_parameters:
                case.path_parameters["project_id"] = running.served.project_id
            return {"base_url": running.served.server.url, "headers": running.headers(case)}

        def validate_response(self, response: Any, case: Any, *args: Any, **values: Any) -> None:
            try:
                case.validate_response(response, checks=checks_of(response))
            except BaseException as error:
                wrong.append(error)
                raise
            if response.status_code < 300 and case.path_parameters:
                followed.add(case.path)

    for number in range(RUNS_MAX):
        seed(number)(Chain)
        try:
            run_state_machine_as_test(
                Chain,
                settings=settings(
                    max_examples=40,
                    stateful_step_count=12,
                    deadline=None,
                    suppress_health_check=list(HealthCheck),
                    database=None,
                ),
            )
            break
        except Flaky:  # the next request is drawn from the last answer, which differs when it is drawn once more
            if wrong:
                raise wrong[0] from None
    assert len(followed) >= 5, "paths that name what an answer before named"
