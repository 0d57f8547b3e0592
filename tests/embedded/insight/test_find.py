"""Searchable fields, from the decorator to the list."""

import pytest
from tests.embedded.house import House

from perdure.engine.runs import executions
from perdure.sdk.workflows.context import Context
from perdure.sdk.workflows.workflow import Registry
from perdure.store.verbs.runs import find
from perdure.wire.base.errors import BadValue
from perdure.wire.runs.executions import ListFilters


async def test_executions_are_found_by_a_declared_field(house: House) -> None:
    app = Registry()

    @app.workflow(searchable=["payload.customer.id", "result.state"])
    async def order(ctx: Context, given: dict[str, dict[str, int]]) -> dict[str, str]:
        return {"state": "paid" if given["customer"]["id"] == 7 else "open"}

    async with house.open(app) as p:
        seven, eight = [await p.start(order, {"customer": {"id": id}}) for id in (7, 8)]
        await seven.result()
        await eight.result()
        for field, handle in (
            ("payload.customer.id=7", seven),
            ("payload.customer.id=8", eight),
            ("result.state=paid", seven),
        ):
            page = await p.list(ListFilters(field=field, workflow_id="order"))
            assert [one.id for one in page.executions] == [handle.id]
        with pytest.raises(BadValue, match=r"No workflow declares payload\.id as a searchable field"):
            await p.list(ListFilters(field="payload.id=7"))
        with pytest.raises(BadValue, match="at least 2 characters"):
            await p.list(ListFilters(key_part="7"))


async def test_an_empty_page_says_how_far_the_search_came(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    app = Registry()

    @app.workflow
    async def order(ctx: Context) -> None: ...

    monkeypatch.setattr(find, "DEPTHS", (2,))
    monkeypatch.setattr(executions, "SEARCH_SECONDS", 600.0)
    async with house.open(app) as p:
        handles = [await p.start(order) for _ in range(5)]
        created = [(await handle.get()).created_at for handle in handles]
        nowhere = ListFilters(deployment_id="nowhere")
        page = await p.list(nowhere)
        assert (page.executions, page.next_cursor, page.searched_to) == ([], None, None), "it goes on while it may"
        monkeypatch.setattr(executions, "SEARCH_SECONDS", 0.0)
        page = await p.list(nowhere)
        assert (page.executions, page.searched_to) == ([], created[2])
        page = await p.list(nowhere, cursor=page.next_cursor)
        assert (page.next_cursor, page.searched_to) == (None, None)


@pytest.mark.parametrize("field", ["customer.id", "payload", "payload.", 'payload.a"b', "payload.a,b"])
def test_a_field_that_cannot_be_searchable_is_refused_at_once(field: str) -> None:
    async def order(ctx: Context) -> None: ...

    with pytest.raises(ValueError, match="is not a searchable field"):
        Registry().workflow(searchable=[field])(order)
