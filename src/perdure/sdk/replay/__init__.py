"""Runs plain asyncio code so that every replay takes the same branches.

- `machine` reads the journal and says what to do next; `open_calls` and `calls` hold the code's calls
- `task_identity`, `orphaned_outcomes` and `failures` match rows and calls in the hard cases
- `inner_loop` runs the code; `refusals` and `patches` keep asyncio and anyio deterministic
- `eviction` drops an execution from memory
"""
