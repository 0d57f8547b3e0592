"""The deterministic machine: runs a workflow's plain asyncio code so that every replay takes the same branches.

`machine` reads the journal and says what to do next; `calls` are what code asks for, `leftovers` the outcomes that
nobody waits for, `complaints` the words when code and journal differ. The code runs in an `inner_loop` of its own, made
of `handles` (tasks, futures, timers) that hash alike in every replay, with `keys` counted in scopes. `refusals` says
what cannot be replayed, `eviction` drops an execution from memory, `patches` puts order into asyncio's and anyio's
sets, and `whereabouts` finds the user's line.
"""
