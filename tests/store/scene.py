"""The scene of test_lockstep.py: executions that have much to do with each other, and verbs of every kind."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from types import NoneType
from typing import Any, Final, NamedTuple, get_args, get_type_hints

import msgspec
from msgspec import Raw, Struct
from tests.store.declared import declarations
from tests.store.world import (
    BLOCK,
    CANCELLED,
    HOLD,
    PROJECT,
    RELEASE,
    World,
    answer_wait,
    child,
    event_wait,
    failure,
    raw,
    step,
    try_of,
)

from perdure.store.base.interface import Store, Verb
from perdure.store.verbs.agents import approvals, budgets, sessions, transcripts
from perdure.store.verbs.base import access
from perdure.store.verbs.base.idempotency import At, Idempotency
from perdure.store.verbs.clock import schedules
from perdure.store.verbs.insight import traces
from perdure.store.verbs.outside import exports, push_reports, push_workers, webhooks
from perdure.store.verbs.people import accounts
from perdure.store.verbs.people.accounts import NewSession
from perdure.store.verbs.runs import claims, events, reports, starts, transitions, waits
from perdure.store.verbs.runs.direct_dispatch import WaitingClaim
from perdure.store.verbs.runs.starts import New
from perdure.store.verbs.steering import acts, bulk
from perdure.wire.agents.approvals import QuestionLink
from perdure.wire.agents.budgets import Amounts, BudgetChange, BudgetSpec, Reserve, Settle
from perdure.wire.agents.sessions import PutSessionMemory
from perdure.wire.agents.transcripts import AppendToTranscript, OnConflict
from perdure.wire.base.access import Role
from perdure.wire.clock.schedules import ChangeSchedule, CreateSchedule, RunSchedule
from perdure.wire.insight.traces import StoredSpan
from perdure.wire.outside.push_workers import (
    CompleteExecution,
    ConfirmCancellation,
    FailExecution,
    PutOtelSpanId,
    SaveStep,
)
from perdure.wire.outside.webhooks import CreateWebhook, DeliveryState
from perdure.wire.people.accounts import User
from perdure.wire.people.keys import ApiKey
from perdure.wire.people.projects import ChangeProject, ChangeProjectMember, Project, WithdrawProjectInvitation
from perdure.wire.runs.executions import ListFilters, LogLine
from perdure.wire.runs.requests import (
    AgentSpec,
    Answer,
    AppendMessages,
    CloseWait,
    Complete,
    Emitted,
    EventItem,
    LeaveMessages,
    OpenWait,
    Publish,
    ReadTranscript,
    ReportItem,
    StartChild,
    StartItem,
    Summarize,
    Suspend,
    TakeMessages,
    TimerFired,
    WorkflowSpec,
)
from perdure.wire.runs.workflows import WorkflowType
from perdure.wire.steering.acts import Action, ActOnExecution
from perdure.wire.steering.bulk import BulkAction, BulkJob, JobState, stored

JOB_ID = "0190a5f2-7c1e-7b3a-9d55-0242ac120099"
ARGUMENTS = {
    "project_id": PROJECT,
    "job_id": JOB_ID,
    "schedule_id": "schedule",
    "webhook_id": "webhook",
    "user_id": "ann",
}
"""Arguments by name that mean the same in each verb."""
LAST_CLAIM = "1"
"""The id of the worker's last claim, above the ids of a world."""
PUSH_WORKER: Final = "push"
INTO_A_CLAIM: Final = " into a claim"


def _id(kind: int, n: int) -> str:
    return f"0{kind}90a5f2-7c1e-7b3a-9d55-{n:012x}"


def new_job(
    id: str, filters: ListFilters, *, newest: str | None = None, at_us: int = 0, starts_at_us: int | None = None
) -> BulkJob:
    return BulkJob(
        id=id,
        action=BulkAction.CANCEL,
        state=JobState.RUNNING,
        filters=Raw(stored(filters)),
        options=Raw(b"{}"),
        started_by="ann",
        newest=newest or id,
        total=1,
        at_least=False,
        done=0,
        refused=0,
        later=0,
        created_at_us=at_us,
        starts_at_us=starts_at_us,
        moved_at_us=at_us,
    )


def _invitation(email: str, token: str, now_us: int) -> dict[str, Any]:
    return {"email": email, "role": Role.ADMIN, "token_hash": token, "expires_at_us": now_us + 9}


def _sign_up(email: str, token: str | None, now_us: int, n: int = 0) -> dict[str, Any]:
    user = User(email, email, "first", "last", None)
    session = NewSession(f"session of {email} {n}", now_us + 9)
    given = {"user": user, "password_hash": f"hash {n}", "session": session, "invitation_hash": token}
    return {**given, "member_id": f"m{n} {email}"}


def _reservation(id: str, name: str, tokens: int = 5) -> Reserve:
    """The amount set aside by the push worker's execution, of a budget for two calls."""
    return Reserve(PUSH_WORKER, "", id, 1, name, Amounts(7, tokens, 1), BudgetSpec(calls=2, tokens=100))


class Pushed(NamedTuple):
    """Ids of the push worker's execution, and of an ended one with a webhook delivery under way."""

    id: str
    told_id: str

    @classmethod
    async def set_up(cls, world: World) -> Pushed:
        url = "https://worker.example"
        usual: dict[str, Any] = {"worker_id": PUSH_WORKER, "lease_us": 90_000_000, "check_us": 5_000_000}
        await world.do(push_workers.register_push_worker, usual, deployment_id="push", url=url, capacity=9)
        await world.do(push_workers.push_worker_online, usual)
        await world.do(webhooks.make_webhook, at=At(PROJECT, world.now_us, "webhook"), op=CreateWebhook(url))
        told_id = await world.start("anything", deployment_id="push")
        await world.do(push_workers.claim_pushed, usual, claim_id="b", at_most=9)
        await world.do(push_reports.end_pushed, op=CompleteExecution(told_id, raw(1), PUSH_WORKER))
        taken = await world.do(webhooks.take_deliveries, busy="[]", limit=9, until_us=world.now_us + 9)
        assert len(taken) == 1
        id = await world.start("anything", deployment_id="push")
        await world.do(push_workers.claim_pushed, usual, claim_id="c", at_most=9)
        await world.do(push_workers.accept_push, delivery=push_workers.PushDelivery(PROJECT, id, 1, PUSH_WORKER))
        await world.do(budgets.reserve, request=_reservation(id, "r0"))
        await world.do(exports.begin_exports)
        return cls(id, told_id)


class Scene:
    """Executions that have much to do with each other, alike in every store."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.now_us = world.now_us
        self.ids: dict[str, str] = {}
        self.seen: dict[str, int] = {}
        self.pushed = Pushed("", "")

    @classmethod
    async def set_up(cls, store: Store) -> Scene:
        world = await World.make(store)
        scene = cls(world)
        await world.do(access.new_epoch, epoch="epoch")  # every store begins with one of its own
        told = AgentSpec("helper", "openai", "gpt", tools=Raw(b"[]"))
        await world.register(workflows=["wf", WorkflowSpec("helper", type=WorkflowType.AGENT, agent=told)])
        for name in ("runs", "waits", "asks", "parent", "held"):
            turn: dict[str, Any] = {"session_id": "s", "on_conflict": OnConflict.QUEUE} if name == "runs" else {}
            scene.ids[name] = await world.running(user_id="u", **turn)
        await world.report(scene.ids["runs"], [event_wait("e", "t"), answer_wait("a")])
        await world.wait_for(scene.ids["waits"], event_wait("e", "t"))
        await world.wait_for(scene.ids["asks"], answer_wait("a"))
        await world.report(scene.ids["held"], [try_of("pay")], HOLD)
        await world.report(scene.ids["parent"], [child("kid")])
        [kid] = await world.claim(claim_id=LAST_CLAIM)
        await world.acknowledge(kid.id)
        scene.ids["kid"] = kid.id
        for name, id in scene.ids.items():
            scene.seen[name] = await world.last_seq(id)
        schedule = CreateSchedule("wf", "* * * * *", "UTC", "k")
        await world.do(schedules.make_schedule, at=At(PROJECT, world.now_us, "schedule"), op=schedule)
        await world.do(bulk.start_job, job=new_job(JOB_ID, ListFilters(workflow_id="wf")))
        for n, email in enumerate(("ann", "bob")):
            await world.do(accounts.invite, **_invitation(email, f"invitation{n}", world.now_us))
            await world.do(accounts.sign_up, **_sign_up(email, f"invitation{n}", world.now_us))
        await world.do(accounts.invite, **_invitation("new", "token", world.now_us))
        scene.pushed = await Pushed.set_up(world)
        return scene

    def of_kinds(self, *kinds: str) -> list[Verb[Any]]:
        """Verbs of these kinds. Equal kinds get the same executions."""
        dice = random.Random(" ".join(kinds))
        return [self.verb(kind, dice, n) for n, kind in enumerate(kinds)]

    def group(self, seed: int, amount: int, *, mixed: bool = False) -> list[Verb[Any]]:
        """Verbs that often meet, and as many of any kind, half from push workers."""
        dice = random.Random(seed)
        kinds = ["report"] * 6 + ["cancel", "publish", "publish", "resume", "start", "start"]
        children = dice.choice(["child", "child into a claim", "child and wait", "child and wait into a claim"])
        ends = dice.choice(["complete", "complete into a claim"])
        often = ["step", "publish in", "open", "close", "answer", children, ends, "suspend", "suspend"]
        if mixed:
            kinds += ["any"] * 6 + ["new"] * 6
        several = {"report": often, "any": KINDS, "new": [*PUSHES]}
        chosen = [dice.choice(several.get(kind := dice.choice(kinds), [kind])) for _ in range(amount)]
        return [self.verb(kind, dice, n) for n, kind in enumerate(chosen)]

    def verb(self, kind: str, dice: random.Random, n: int) -> Verb[Any]:
        """A verb of `kind`, on executions that the dice choose."""
        draw = Draw(self, kind, dice, n)
        if kind in PLAIN:
            hints = get_type_hints(PLAIN[kind].function)
            values = {name: draw.argument(name, hint) for name, hint in hints.items() if name != "return"}
            return Verb(PLAIN[kind], values)
        return draw.report(kind) if kind in REPORTS else (CALLS | PUSHES)[kind](draw)


class Draw:
    """The scene, the dice and the verb's number in its group: a verb's arguments are drawn from them."""

    def __init__(self, scene: Scene, kind: str, dice: random.Random, n: int) -> None:
        self.scene = scene
        self.n = n
        self.now_us = scene.now_us
        self.id, self.told_id = scene.pushed
        self.one_of = dice.choice
        self.number = dice.randint
        self.sample = dice.sample
        self.once = self.one_of([None, Idempotency(kind.removesuffix(INTO_A_CLAIM), "i", "hash")])
        start = StartItem("wf", key=self.one_of([None, "k"]), parent_execution_id=scene.ids["parent"])
        self.new = New(_id(2, n), start)
        self.items = [EventItem(raw(n), dedup_key=self.one_of([None, "d"]))]

    def __call__(self, verb: Callable[..., Verb[Any]], **values: Any) -> Verb[Any]:
        """The verb with `values`; the other arguments are those of the push worker's execution."""
        delivery = push_workers.PushDelivery(PROJECT, self.id, 1, PUSH_WORKER)
        usual = {
            "at": At(PROJECT, self.now_us),
            "execution_id": self.id,
            "delivery": delivery,
            "worker_id": PUSH_WORKER,
        }
        usual |= {"lease_us": 90_000_000 + self.n, "check_us": 5_000_000}
        return self.scene.world.filled(verb, usual, **values)

    def at(self, new_id: str, idempotency: Idempotency | None = None) -> At:
        return At(PROJECT, self.now_us, new_id, idempotency)

    def any_of(self, *names: str) -> str:
        """The id of one of the executions with these names, or of any."""
        return self.scene.ids[self.one_of(names or list(self.scene.ids))]

    def session(self) -> NewSession:
        return NewSession(f"s{self.n}", self.now_us + 9)

    def waiting_claim(self, claim_id: str, capacity: int) -> WaitingClaim:
        return WaitingClaim("w", "d", "3.12", claim_id, capacity)

    def step(self, **fields: Any) -> dict[str, Any]:
        return {"entries": [step(f"s{self.number(0, 1)}", self.n, **fields)]}

    def child(self, *keys: str | None) -> dict[str, Any]:
        return {"entries": [StartChild(f"c{self.n}", None, StartItem("wf", key=self.one_of(keys)))]}

    def report(self, kind: str) -> Verb[Any]:
        name = self.one_of(["runs", "runs", "parent", "kid", "kid"])
        usual: dict[str, Any] = {"number": self.number(2, 4), "entries": []}
        fields = usual | REPORTS[kind](self)
        said = ReportItem(self.scene.ids[name], 1, seen=self.scene.seen[name], **fields)
        values: dict[str, Any] = {"worker_id": "w", "item": said, "ids": [_id(3, self.n)]}
        if kind.endswith(INTO_A_CLAIM):
            claim = self.waiting_claim(f"z{self.n}", 1)
            return self(reports.report_and_dispatch, waiting_claim=claim, **values)
        return self(reports.report, **values)

    def argument(self, name: str, hint: Any) -> Any:
        """A value for an argument, by its name and type."""
        known = {"now_us": self.now_us, "execution_id": self.any_of(), **ARGUMENTS}
        if name in known:
            return known[name]
        if isinstance(hint, type) and issubclass(hint, Struct):  # the place or the operation of a verb
            hints = get_type_hints(hint)
            wanted = [one.name for one in msgspec.structs.fields(hint) if one.required or one.name in known]
            return hint(**{one: self.argument(one, hints[one]) for one in wanted})
        kind = self.one_of(get_args(hint) or [hint])
        made = {str: f"{name}{self.n}", int: self.n, bool: self.one_of([True, False]), NoneType: None}
        assert kind in made, f"a verb with `{name}: {hint}` needs a kind in KINDS"
        return made[kind]


def _act(draw: Draw) -> Verb[Any]:
    name, key, actions = draw.one_of(
        [
            ("held", None, [Action.TRY, Action.FAIL]),
            ("held", "pay", [Action.TRY, Action.COMPLETE, Action.FAIL]),
            ("waits", "e", [Action.COMPLETE, Action.TIME_OUT]),
            ("asks", "a", [Action.COMPLETE, Action.TIME_OUT]),
        ]
    )
    op = ActOnExecution(draw.scene.ids[name], action=draw.one_of(actions), key=key, value=raw(draw.n))
    return draw(acts.act, at=draw.at(f"act{draw.n}", draw.once), op=op, acted_by="ann")


def _steps_together(draw: Draw) -> Verb[Any]:
    names = draw.sample(["runs", "parent", "kid"], 2)
    ids, seen = draw.scene.ids, draw.scene.seen
    said = [ReportItem(ids[one], 1, draw.number(2, 4), seen[one], [step("s1", draw.n)]) for one in names]
    return draw(reports.record_steps, worker_id="w", items=said)


def _key(draw: Draw, verb: Callable[..., Verb[Any]], name: str) -> Verb[Any]:
    key = ApiKey(id=f"key{draw.n}", name=name, last_four_digits="1234", created_at_us=draw.now_us, role=Role.ADMIN)
    return draw(verb, key=key, secret_hash="x")


def _schedule(draw: Draw) -> Verb[Any]:
    spec = CreateSchedule("wf", f"{draw.n} * * * *", "UTC", draw.one_of(["k", "l"]))
    return draw(schedules.make_schedule, at=draw.at(f"schedule{draw.n}", draw.once), op=spec)


def _changed_user(draw: Draw) -> Verb[Any]:
    names = {"first_name": draw.one_of([f"first{draw.n}", None]), "last_name": f"last{draw.n}", "display_name": None}
    return draw(accounts.change_user, user_id="ann", **names)


def _project(draw: Draw) -> Verb[Any]:
    id, now_us = f"project{draw.n}", draw.now_us
    project = Project(id=id, name=id, created_at_us=now_us, updated_at_us=now_us)
    return draw(accounts.make_project, project=project, user_id="ann", member_id=f"m{draw.n}")


def _accepted(draw: Draw) -> Verb[Any]:
    token, user_id = draw.one_of(["token", f"token{draw.n}"]), draw.one_of(["ann", "bob"])
    return draw(accounts.accept_invitation, user_id=user_id, token_hash=token, member_id=f"m{draw.n}")


def _link(draw: Draw) -> Verb[Any]:
    times = {"created_at_us": draw.now_us, "expires_at_us": 9}
    link = QuestionLink(f"link{draw.n}", draw.scene.ids["asks"], "a", "q", name="ann", made_by="k", **times)
    return draw(approvals.keep_link, link=link, key_id=None, user_id="ann")


def _question(draw: Draw, type: str) -> Verb[Any]:
    its = {"topic": f"workflow/anything/{draw.id}", "ids": [f"event{draw.n}"], "asked_by": draw.id}
    return draw(events.publish, events=[EventItem(raw(draw.n), type)], answered_by=f"{draw.n}", **its)


def _pushed_child(draw: Draw) -> Verb[Any]:
    item = StartItem("anything", deployment_id="push", parent_execution_id=draw.id, step_key="c")
    its = {"parent_id": draw.id, "step_key": "c", "news": [New(_id(8, draw.n), item)], "batch_id": None}
    return draw(push_reports.start_children, wait=draw.one_of([True, False]), **its)


def _spans(draw: Draw) -> Verb[Any]:
    trace_id, at_us = draw.id.replace("-", ""), draw.now_us
    span = StoredSpan(trace_id, f"span{draw.number(0, 1)}", None, f"{draw.n}", "step", at_us, at_us + draw.n)
    return draw(traces.put_spans, trace_id=trace_id, spans=[span])


def _turn(draw: Draw) -> Verb[Any]:
    item = StartItem("wf", deployment_id="push", session_id="s", on_conflict=draw.one_of([*OnConflict]))
    return draw(starts.start, news=[New(_id(8, draw.n), item)])


def _taken(draw: Draw) -> webhooks.TakenDelivery:
    return webhooks.TakenDelivery(PROJECT, draw.told_id, "webhook", "https://worker.example", "worker.example", 1)


def _settled(draw: Draw) -> Verb[Any]:
    state = draw.one_of([*DeliveryState])
    next_at_us = draw.now_us + draw.n if state is DeliveryState.PENDING else None
    its = {"state": state, "status": 200, "answer": f"{draw.n}", "next_at_us": next_at_us}
    return draw(webhooks.settle_delivery, taken=_taken(draw), **its)


_REPORTS: Final[dict[str, Callable[[Draw], dict[str, Any]]]] = {
    "acknowledge": lambda draw: {"number": 0},
    "step": lambda draw: draw.step(),
    "failed try": lambda draw: draw.step(ok=False, last=False),
    "log": lambda draw: {"logs": [LogLine(at_us=draw.now_us, level=20, text=f"line {draw.n}")], **draw.step()},
    "emit": lambda draw: {
        "stream": [Emitted("token", f"s{draw.n}", raw(draw.n)), Emitted("token", f"s{draw.n}", raw(draw.n), 2)]
    },
    "timer": lambda draw: {"entries": [TimerFired("t", draw.now_us)]},
    "publish in": lambda draw: {"entries": [Publish(f"p{draw.n}", None, "t", [EventItem(raw(draw.n))])]},
    "open": lambda draw: {"entries": [OpenWait(f"e{draw.n}", None, "t")]},
    "close": lambda draw: {"entries": [CloseWait("e")]},
    "answer": lambda draw: {"entries": [Answer(f"x{draw.n}", None, draw.any_of("asks", "runs"), "a", raw(draw.n))]},
    "child": lambda draw: draw.child(None, "k"),
    "read": lambda draw: {"entries": [ReadTranscript(f"r{draw.n}", "s")]},
    "say": lambda draw: {
        "entries": [AppendMessages(f"m{draw.n}", None, "s", [raw("same"), raw(draw.n)], draw.one_of([None, 0]))]
    },
    "summarize": lambda draw: {
        "entries": [
            AppendMessages(f"m{draw.n}", None, "s", [raw(draw.n)]),
            Summarize(f"u{draw.n}", None, "s", 1, raw("same")),
        ]
    },
    "take": lambda draw: {
        "entries": [TakeMessages(f"t{draw.n}", "s"), LeaveMessages(f"l{draw.n}", "s", [draw.scene.ids["kid"]])]
    },
    "child and wait": lambda draw: {**draw.child(None, None, "k"), "end": Suspend([], None, parked=True)},
    "complete": lambda draw: {"end": Complete(raw(draw.n))},
    "fail": lambda draw: {"end": failure(f"failure {draw.n}")},
    "retry": lambda draw: {"end": failure(f"failure {draw.n}", retry_delay_us=draw.one_of([0, 5]))},
    "release": lambda draw: {"end": RELEASE},
    "block": lambda draw: {"end": BLOCK},
    "cancelled": lambda draw: {"end": CANCELLED},
    "suspend": lambda draw: {"end": Suspend(draw.one_of([[], ["e"], ["a"]]), None)},
    "suspend on a timer": lambda draw: {"end": Suspend([], ("t", draw.now_us + 5))},
}
_DISPATCHES: Final = {f"{kind}{INTO_A_CLAIM}": _REPORTS[kind] for kind in ("child", "child and wait", "complete")}
REPORTS: Final = _REPORTS | _DISPATCHES
"""Fields of reports that a worker sends, some of them together with its next claim."""

CALLS: Final[dict[str, Callable[[Draw], Verb[Any]]]] = {
    "steps together": _steps_together,
    "cancel": lambda draw: draw(transitions.cancel, execution_id=draw.any_of(), cancelled_by="user"),
    "publish": lambda draw: draw(events.publish, topic="t", events=draw.items, ids=[f"event{draw.n}"]),
    "publish once": lambda draw: draw(
        events.publish, topic="t", events=draw.items, ids=[f"event{draw.n}"], idempotency=draw.once
    ),
    "resume": lambda draw: draw(
        waits.resume, execution_id=draw.any_of("asks", "runs"), step_key="a", data=raw(draw.n), answered_by="ann"
    ),
    "act": _act,
    "start": lambda draw: draw(starts.start, news=[draw.new], idempotency=draw.once),
    "start into a claim": lambda draw: draw(
        starts.start, news=[draw.new], idempotency=draw.once, waiting_claim=draw.waiting_claim(f"claim{draw.n}", 2)
    ),
    "start a batch": lambda draw: draw(
        starts.start_batch,
        news=[draw.new, New(_id(4, draw.n), StartItem("wf", key="k2"))],
        batch_id=f"batch{draw.n}",
        idempotency=draw.once,
    ),
    "cut a lease": lambda draw: draw(claims.cut_lease, worker_id="w", until_us=draw.now_us + draw.n),
    "a claim arrives": lambda draw: draw(claims.note_arrival, worker_id="w", claim_id=LAST_CLAIM),
    "touch": lambda draw: draw(access.touch, now_us=draw.now_us + draw.n),
    "new epoch": lambda draw: draw(access.new_epoch, epoch=f"epoch{draw.n}"),
    "make a key": lambda draw: _key(draw, access.make_key, draw.one_of(["one", "two"])),
    "create a key": lambda draw: _key(draw, access.create_key, f"name{draw.n}"),
    "delete a key": lambda draw: draw(access.delete_key, id="key0"),
    "start a bulk job": lambda draw: draw(
        bulk.start_job, job=new_job(_id(9, draw.n), ListFilters(workflow_id="wf")), idempotency=draw.once
    ),
    "make a schedule": _schedule,
    "change a schedule": lambda draw: draw(
        schedules.change_schedule, op=ChangeSchedule("schedule", cron=f"{draw.n} 1 * * *")
    ),
    "run a schedule": lambda draw: draw(
        schedules.run_schedule, at=draw.at(_id(5, draw.n), draw.once), op=RunSchedule("schedule")
    ),
    "fire a schedule": lambda draw: draw(
        schedules.fire_schedule,
        schedule_id="schedule",
        ids=[_id(6, draw.n), _id(7, draw.n)],
        now_us=draw.now_us + 90_000_000,  # a minute has begun
    ),
    "note a use": lambda draw: draw(access.note_key_use, id="key0", now_us=draw.now_us + draw.n),
    "sign up": lambda draw: draw(
        accounts.sign_up, **_sign_up("new", draw.one_of(["token", None]), draw.now_us, draw.n)
    ),
    "sign in": lambda draw: draw(accounts.open_session, user_id="ann", session=draw.session()),
    "sign out": lambda draw: draw(accounts.close_session, token_hash="session of ann 0"),
    "change a user": _changed_user,
    "change a password": lambda draw: draw(
        accounts.change_password, user_id="ann", password_hash=f"{draw.n}", session=draw.session()
    ),
    "make a project": _project,
    "change a project": lambda draw: draw(accounts.change_project, op=ChangeProject(PROJECT, f"name{draw.n}")),
    "add a member": lambda draw: draw(
        accounts.invite, **_invitation(draw.one_of(["new", "ann", "other"]), f"token{draw.n}", draw.now_us)
    ),
    "change a member": lambda draw: draw(
        accounts.change_member, op=ChangeProjectMember(PROJECT, draw.one_of(["ann", "bob"]), Role.READ)
    ),
    "withdraw an invitation": lambda draw: draw(
        accounts.withdraw_invitation, op=WithdrawProjectInvitation(PROJECT, draw.one_of(["new", "other"]))
    ),
    "accept an invitation": _accepted,
    "make a link": _link,
}
"""Verbs of callers, of people and of workers that poll."""

PUSHES: Final[dict[str, Callable[[Draw], Verb[Any]]]] = {
    "pushed step": lambda draw: draw(
        push_reports.save_step, op=SaveStep(draw.id, f"s{draw.number(0, 1)}", raw(draw.n))
    ),
    "pushed result": lambda draw: draw(
        push_reports.end_pushed, op=CompleteExecution(draw.id, raw(draw.n), PUSH_WORKER, final_state=raw(1))
    ),
    "pushed failure": lambda draw: draw(
        push_reports.end_pushed,
        op=FailExecution(draw.id, f"e{draw.n}", PUSH_WORKER, retryable=draw.one_of([True, False])),
    ),
    "pushed cancel": lambda draw: draw(push_reports.end_pushed, op=ConfirmCancellation(draw.id, PUSH_WORKER)),
    "pushed wait": lambda draw: draw(push_reports.wait_pushed, wait=push_reports.Wait(f"e{draw.n}", topic="t")),
    "pushed timer": lambda draw: draw(push_reports.wait_pushed, wait=push_reports.Wait(f"t{draw.n}", draw.now_us + 5)),
    "pushed span": lambda draw: draw(push_reports.put_span_id, op=PutOtelSpanId(draw.id, f"span{draw.n}")),
    "pushed question": lambda draw: _question(draw, "suspend_q"),
    "pushed answer": lambda draw: _question(draw, "resume_q"),
    "pushed child": _pushed_child,
    "push taken": lambda draw: draw(push_workers.accept_push),
    "push handed back": lambda draw: draw(push_workers.hand_back),
    "push lost": lambda draw: draw(push_workers.lost_delivery),
    "tell a cancel": lambda draw: draw(push_workers.tell_cancel),
    "untell a cancel": lambda draw: draw(push_workers.untell_cancel),
    "cancel the pushed": lambda draw: draw(transitions.cancel, cancelled_by="user"),
    "cancel of the absent": lambda draw: draw(push_workers.cancel_absent),
    "push worker online": lambda draw: draw(push_workers.push_worker_online),
    "push worker beats": lambda draw: draw(push_workers.push_worker_beat, own=draw.one_of([True, False])),
    "push worker hurries": lambda draw: draw(push_workers.hurry_push_check, at_us=draw.now_us + draw.n),
    "exports begin": lambda draw: draw(exports.begin_exports),
    "exports claimed": lambda draw: draw(exports.claim_exports, until_us=draw.now_us + draw.n, limit=10),
    "exports noted": lambda draw: draw(exports.note_exports, ids=[draw.id]),
    "exports released": lambda draw: draw(exports.release_exports, ids=[draw.id]),
    "memory": lambda draw: draw(
        sessions.put_memory, op=PutSessionMemory("s", raw([draw.n]), version=draw.one_of([None, 0, 1]))
    ),
    "spans": _spans,
    "messages": lambda draw: draw(
        transcripts.append_messages,
        op=AppendToTranscript("s", [raw(draw.n), raw("same")], draw.one_of([None, 0])),
    ),
    "a turn": _turn,
    "reserve": lambda draw: draw(budgets.reserve, request=_reservation(draw.id, f"r{draw.number(0, 2)}", draw.n)),
    "settle": lambda draw: draw(
        budgets.settle, request=Settle(draw.id, f"r{draw.number(0, 1)}", Amounts(1, draw.n, 1))
    ),
    "raise a budget": lambda draw: draw(
        budgets.change_budget, budget_id=draw.id, change=BudgetChange(calls=1), event_id=f"raised{draw.n}"
    ),
    "make a webhook": lambda draw: draw(
        webhooks.make_webhook,
        at=draw.at(f"webhook{draw.n}"),
        op=CreateWebhook(f"https://{draw.one_of(['a', 'b'])}.example"),
    ),
    "settle a delivery": _settled,
    "postpone deliveries": lambda draw: draw(
        webhooks.postpone_deliveries, taken=[_taken(draw)], next_at_us=draw.now_us + draw.n
    ),
    "redeliver": lambda draw: draw(webhooks.redeliver, execution_id=draw.told_id, webhook_id="webhook"),
    "reaper's mark": lambda draw: draw(
        claims.mark_reaper,
        now_us=draw.now_us + draw.n,
        every_us=draw.one_of([0, 30_000_000]),
        locked_us=60_000_000,
    ),
}
"""Verbs for push workers, and those of notifications, exports, sessions and budgets."""

_WRITTEN = Path(__file__).read_text(encoding="utf-8")
PLAIN = {
    name: one
    for name, one in declarations()
    if one.locks is not None
    and f".{name}," not in _WRITTEN
    and f".{name})" not in _WRITTEN
    and name != "default_project"
}
"""Verbs without a kind here. Their arguments are found by names and types."""
KINDS = (*REPORTS, *CALLS, *PUSHES, *PLAIN)
"""Verbs that may share a group. Each sweep has a transaction of its own (`is_sweep`)."""
