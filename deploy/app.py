"""The application of the worker image: put your own in its place."""

from perdure import Context, step, workflow


@step(retry=3)
async def greeting(name: str) -> str:
    return f"Hello, {name}!"


@workflow
async def greet(ctx: Context, name: str) -> str:
    """`perdure run greet --input '"Ada"'` starts it."""
    return await greeting(name)
