"""Every operation has a method that takes the operation and answers with its reply."""

import hashlib
import importlib
import pkgutil
from pathlib import Path
from typing import get_type_hints

from perdure import wire
from perdure.engine.base.service import once
from perdure.engine.engine import Engine
from perdure.store.open import open_store
from perdure.wire.agents.budgets import OnExceed, RaiseBudget
from perdure.wire.base.operation import Noun, reply_type


async def test_every_operation_is_served(tmp_path: Path) -> None:
    store = await open_store(f"sqlite:{tmp_path / 'store.db'}")
    methods = Engine(store).services.methods
    await store.close()
    modules = [importlib.import_module(one.name) for one in pkgutil.walk_packages(wire.__path__, "perdure.wire.")]
    nouns = {value for module in modules for value in vars(module).values() if isinstance(value, Noun)}
    operations = {operation for noun in nouns for operation in noun.all}
    assert methods.keys() == operations
    for operation in operations:
        hints = get_type_hints(methods[operation], include_extras=True)
        assert hints["op"] is operation
        assert hints["return"] == reply_type(operation)


def test_a_key_in_this_process_is_kept_under_the_name_and_hash_of_older_releases() -> None:
    op = RaiseBudget("0190a5f2-7c1e-7b3a-9d55-0242ac120002", calls=3, on_exceed=OnExceed.FINISH)
    body = b'{"calls":3,"on_exceed":"finish"}'
    assert once(op, "step") == ("change_budget", "step", hashlib.sha256(body).hexdigest())
