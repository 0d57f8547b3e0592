"""A worker of the modules that MODULES names, until it is killed."""
# mypy: ignore-errors

import asyncio
import importlib
import os

from polos import Polos

for module in os.environ["MODULES"].split():  # their workflows register themselves
    importlib.import_module(module)


async def main() -> None:
    polos = Polos()
    await polos.start()
    print("online", flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
