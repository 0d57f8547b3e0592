"""Costs of agents in a range of time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from msgspec.structs import replace

from perdure.wire.agents.agent_steps import call_usage
from perdure.wire.agents.usage import ModelUsage, Spent
from perdure.wire.agents.usage_sums import dearest, plus
from perdure.wire.base.entries import JournalEntry
from perdure.wire.base.fields import Double, Int64, Name, Time
from perdure.wire.base.operation import Noun, Operation
from perdure.wire.base.record import Record
from perdure.wire.insight.stats import Buckets, Range, RangeOf


class SpendBucket(Record, frozen=True, kw_only=True):
    """Calls that ended from `at` until the next bucket."""

    at_us: Time
    calls: Int64 = 0
    tokens: Int64 = 0
    usd: Double = 0.0


class AgentSpend(Spent, frozen=True, kw_only=True):
    agent_id: str
    executions: Int64 = 0


class Spend(Record, frozen=True, kw_only=True):
    shown_as = "SpendResponse"

    as_of_us: Time
    range: Range
    from_us: Time
    step_seconds: Int64
    executions: Int64
    """Executions of agents that began in the range."""
    total: Spent
    """The executions' own calls. Children's calls count for the children's agents."""
    buckets: list[SpendBucket]
    models: list[ModelUsage]
    """The most expensive first."""
    agents: list[AgentSpend]
    """The most expensive first."""
    exact: bool
    """False: the sums cover the newest 2,000 executions or 5,000 calls, or an answer is too large to be read."""


spending: Final = Noun("Statistics")


@spending.get("/api/v1/stats/spend")
class GetSpend(Operation[Spend], frozen=True):
    """Models and costs of agents' executions that began in a range: by time, model and agent."""

    range: RangeOf = Range.DAY
    agent_id: Name | None = None
    """Leave out other agents."""


class SpendSums:
    def __init__(self, buckets: Buckets, now_us: int) -> None:
        self._buckets = buckets
        self._now_us = now_us
        self._by_time = {at_us: SpendBucket(at_us=at_us) for at_us in buckets.starts(now_us)}
        self._models: dict[str | None, ModelUsage] = {}
        self._agents: dict[str, AgentSpend] = {}
        self._agent_of: dict[str, str] = {}
        """Maps executions to agents."""
        self._total = Spent()
        self._exact = True

    def began(self, execution_id: str, agent_id: str) -> None:
        self._agent_of[execution_id] = agent_id
        known = self._agents.get(agent_id) or AgentSpend(agent_id=agent_id)
        self._agents[agent_id] = replace(known, executions=known.executions + 1)

    def add(self, calls: Iterable[JournalEntry]) -> None:
        for call in calls:
            used = call_usage(call.name, call.value)
            if used is None:
                self._exact = self._exact and call.value is not None
                continue
            ms = 0.0 if call.started_at_us is None else max(0, call.at_us - call.started_at_us) / 1_000
            self._total = plus(self._total, used, ms)
            self._models[used.model] = plus(self._models.get(used.model) or ModelUsage(model=used.model), used, ms)
            agent_id = self._agent_of[call.execution_id]
            self._agents[agent_id] = plus(self._agents[agent_id], used, ms)
            at_us = call.at_us - (call.at_us - self._buckets.from_us) % self._buckets.bucket_us
            bucket = self._by_time.get(at_us)
            if bucket is not None:
                self._by_time[at_us] = replace(
                    bucket,
                    calls=bucket.calls + 1,
                    tokens=bucket.tokens + used.input_tokens + used.output_tokens,
                    usd=bucket.usd + (used.usd or 0.0),
                )

    def result(self, range: Range, *, whole: bool) -> Spend:
        models, agents, buckets = dearest(self._models), dearest(self._agents), list(self._by_time.values())
        divided = self._buckets
        return Spend(
            as_of_us=self._now_us,
            range=range,
            from_us=divided.from_us,
            step_seconds=divided.seconds,
            executions=sum(one.executions for one in agents),
            total=self._total,
            buckets=buckets,
            models=models,
            agents=agents,
            exact=whole and self._exact,
        )
