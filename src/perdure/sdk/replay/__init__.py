"""Runs plain asyncio code so that every replay takes the same branches.

- `machine` reads the journal and says what to do next; `open_calls` and `calls` hold the code's calls
- `places`, `orphaned_outcomes` and `failures` match rows and calls in the hard cases
- `determinism_errors` words the errors, with lines of code from `source_location`
- `inner_loop` runs the code; `handles` has its tasks, futures and timers, `keys` their keys
- `refusals` and `patches` keep asyncio and anyio deterministic; `eviction` drops an execution from memory
"""
