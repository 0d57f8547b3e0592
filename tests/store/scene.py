"""The scene of test_lockstep.py: executions that have much to do with each other, and verbs of every kind."""

from __future__ import annotations

import random
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

import msgspec
from msgspec import Raw, Struct
from tests.store import more_kinds
from tests.store.declared import declarations
from tests.store.world import (
    BLOCK,
    CANCELLED,
    GRACE_US,
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
from perdure.store.verbs.agents import approvals
from perdure.store.verbs.base import access
from perdure.store.verbs.base.idempotency import At, Idempotency
from perdure.store.verbs.clock import schedules
from perdure.store.verbs.people import accounts
from perdure.store.verbs.people.accounts import NewSession
from perdure.store.verbs.runs import claims, events, reports, starts, transitions, waits
from perdure.store.verbs.runs.direct_dispatch import WaitingClaim
from perdure.store.verbs.runs.starts import New
from perdure.store.verbs.steering import acts, bulk
from perdure.wire.agents.approvals import QuestionLink
from perdure.wire.agents.transcripts import OnConflict
from perdure.wire.base.access import Role
from perdure.wire.clock.schedules import ChangeSchedule, CreateSchedule, RunSchedule
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
    End,
    Entry,
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
WRITTEN = "".join(Path(str(module)).read_text(encoding="utf-8") for module in (__file__, more_kinds.__file__))
PLAIN = {
    name: one
    for name, one in declarations()
    if one.locks is not None and f".{name}(" not in WRITTEN and name != "default_project"
}
"""Verbs without a kind here. Their arguments are found by names and types."""

REPORTS = (
    *(
        "acknowledge",
        "step",
        "steps together",
        "failed try",
        "log",
        "emit",
        "timer",
        "publish in",
        "open",
        "close",
        "answer",
        "child",
    ),
    *("read", "say", "summarize", "take"),
    *("child into a claim", "child and wait", "child and wait into a claim", "end into a claim"),
    *("complete", "fail", "retry", "release", "block", "cancelled", "suspend", "suspend on a timer"),
)
KINDS = (
    *REPORTS,
    *(
        "cancel",
        "publish",
        "publish once",
        "resume",
        "act",
        "start",
        "start into a claim",
        "start a batch",
        "cut a lease",
    ),
    *("a claim arrives", "touch", "new epoch", "make a key", "create a key", "delete a key"),
    "start a bulk job",
    *("make a schedule", "change a schedule", "run a schedule", "fire a schedule"),
    *("note a use", "sign up", "sign in", "sign out", "change a user", "change a password", "make a project"),
    *("change a project", "add a member", "change a member", "withdraw an invitation"),
    *("accept an invitation", "make a link"),
    *more_kinds.KINDS,
    *PLAIN,
)
"""Verbs that may share a group. Each sweep has a transaction of its own (`is_sweep`)."""

LAST_CLAIM = "1"
"""The id of the worker's last claim, above the ids of a world."""


def _id(kind: int, n: int) -> str:
    return f"0{kind}90a5f2-7c1e-7b3a-9d55-{n:012x}"


def _spec(key: str, cron: str = "* * * * *") -> CreateSchedule:
    return CreateSchedule("wf", cron, "UTC", key)


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


def _key(id: str, name: str, now_us: int) -> dict[str, Any]:
    key = ApiKey(id=id, name=name, last_four_digits="1234", created_at_us=now_us, role=Role.ADMIN)
    return {"project_id": PROJECT, "key": key, "secret_hash": "x"}


def _invitation(email: str, token: str, now_us: int) -> dict[str, Any]:
    return {
        "project_id": PROJECT,
        "email": email,
        "role": Role.ADMIN,
        "token_hash": token,
        "expires_at_us": now_us + 9,
        "now_us": now_us,
    }


def _sign_up(email: str, token: str | None, now_us: int, n: int = 0) -> dict[str, Any]:
    user = User(email, email, "first", "last", None)
    session = NewSession(f"session of {email} {n}", now_us + 9)
    given = {"user": user, "password_hash": f"hash {n}", "session": session, "invitation_hash": token}
    return {**given, "member_id": f"m{n} {email}", "now_us": now_us}


class Scene:
    """Executions that have much to do with each other, alike in every store."""

    def __init__(self, now_us: int) -> None:
        self.now_us = now_us
        self.ids: dict[str, str] = {}
        self.seen: dict[str, int] = {}
        self.pushed_ids = ("", "")

    @classmethod
    async def set_up(cls, store: Store) -> Scene:
        world = await World.make(store)
        scene = cls(world.now_us)
        await store.write(access.new_epoch(epoch="epoch"))  # every store begins with one of its own
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
        made = schedules.make_schedule(At(PROJECT, world.now_us, "schedule"), _spec("k"))
        await store.write(made)
        await store.write(
            bulk.start_job(project_id=PROJECT, job=new_job(JOB_ID, ListFilters(workflow_id="wf")), now_us=world.now_us)
        )
        for n, email in enumerate(("ann", "bob")):
            await store.write(accounts.invite(**_invitation(email, f"invitation{n}", world.now_us)))
            await store.write(accounts.sign_up(**_sign_up(email, f"invitation{n}", world.now_us)))
        await store.write(accounts.invite(**_invitation("new", "token", world.now_us)))
        scene.pushed_ids = await more_kinds.set_up(world)
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
        ends = dice.choice(["complete", "end into a claim"])
        often = ["step", "publish in", "open", "close", "answer", children, ends, "suspend", "suspend"]
        if mixed:
            kinds += ["any"] * 6 + ["new"] * 6
        several = {"report": often, "any": KINDS, "new": more_kinds.KINDS}
        chosen = [dice.choice(several.get(kind := dice.choice(kinds), [kind])) for _ in range(amount)]
        return [self.verb(kind, dice, n) for n, kind in enumerate(chosen)]

    def verb(self, kind: str, dice: random.Random, n: int) -> Verb[Any]:
        """A verb of `kind`, on executions that the dice choose."""
        now_us = self.now_us
        same: dict[str, Any] = {"project_id": PROJECT, "now_us": now_us}
        once = dice.choice([None, Idempotency(kind.removesuffix(" into a claim"), "i", "hash")])
        new = New(_id(2, n), StartItem("wf", key=dice.choice([None, "k"]), parent_execution_id=self.ids["parent"]))
        items = [EventItem(raw(n), dedup_key=dice.choice([None, "d"]))]
        other_kind = more_kinds.verb_of(kind, *self.pushed_ids, _id(8, n), dice, n, now_us)
        if other_kind is not None:
            return other_kind
        if kind in PLAIN:
            hints = get_type_hints(PLAIN[kind].function)
            values = {name: self._argument(name, hint, dice, n) for name, hint in hints.items() if name != "return"}
            return Verb(PLAIN[kind], values)
        match kind:
            case "cancel":
                id = self.ids[dice.choice(list(self.ids))]
                return transitions.cancel(execution_id=id, cancelled_by="user", grace_us=GRACE_US, **same)
            case "publish":
                return events.publish(topic="t", events=items, ids=[f"event{n}"], **same)
            case "publish once":
                return events.publish(topic="t", events=items, ids=[f"event{n}"], idempotency=once, **same)
            case "resume":
                id = self.ids[dice.choice(["asks", "runs"])]
                return waits.resume(execution_id=id, step_key="a", data=raw(n), answered_by="ann", **same)
            case "act":
                name, key, actions = dice.choice(
                    [
                        ("held", None, [Action.TRY, Action.FAIL]),
                        ("held", "pay", [Action.TRY, Action.COMPLETE, Action.FAIL]),
                        ("waits", "e", [Action.COMPLETE, Action.TIME_OUT]),
                        ("asks", "a", [Action.COMPLETE, Action.TIME_OUT]),
                    ]
                )
                request = ActOnExecution(self.ids[name], action=dice.choice(actions), key=key, value=raw(n))
                its: dict[str, Any] = {"acted_by": "ann", "event_id": f"act{n}", "idempotency": once}
                return acts.act(execution_id=self.ids[name], request=request, **its, **same)
            case "start":
                return starts.start(news=[new], idempotency=once, **same)
            case "start into a claim":
                waiting_claim = WaitingClaim("w", "d", "3.12", f"claim{n}", 2)
                return starts.start(news=[new], idempotency=once, waiting_claim=waiting_claim, **same)
            case "start a batch":
                other = New(_id(4, n), StartItem("wf", key="k2"))
                return starts.start_batch(news=[new, other], batch_id=f"batch{n}", idempotency=once, **same)
            case "start a bulk job":
                return bulk.start_job(job=new_job(_id(9, n), ListFilters(workflow_id="wf")), idempotency=once, **same)
            case "make a schedule":
                spec = _spec(dice.choice(["k", "l"]), f"{n} * * * *")
                return schedules.make_schedule(At(new_id=f"schedule{n}", idempotency=once, **same), spec)
            case "change a schedule":
                change = ChangeSchedule("schedule", cron=f"{n} 1 * * *")
                return schedules.change_schedule(At(**same), change)
            case "run a schedule":
                return schedules.run_schedule(At(new_id=_id(5, n), idempotency=once, **same), RunSchedule("schedule"))
            case "fire a schedule":
                same["now_us"] += 90_000_000  # a minute has begun
                return schedules.fire_schedule(schedule_id="schedule", ids=[_id(6, n), _id(7, n)], **same)
            case "note a use":
                return access.note_key_use(id="key0", now_us=now_us + n)
            case "sign up":
                return accounts.sign_up(**_sign_up("new", dice.choice(["token", None]), now_us, n))
            case "sign in":
                return accounts.open_session(user_id="ann", session=NewSession(f"s{n}", now_us + 9), now_us=now_us)
            case "sign out":
                return accounts.close_session(token_hash="session of ann 0")
            case "change a user":
                names = {"first_name": dice.choice([f"first{n}", None]), "last_name": f"last{n}", "display_name": None}
                return accounts.change_user(user_id="ann", **names, now_us=now_us)
            case "change a password":
                session = NewSession(f"s{n}", now_us + 9)
                return accounts.change_password(user_id="ann", password_hash=f"{n}", session=session, now_us=now_us)
            case "make a project":
                project = Project(id=f"project{n}", name=f"project{n}", created_at_us=now_us, updated_at_us=now_us)
                return accounts.make_project(project=project, user_id="ann", member_id=f"m{n}")
            case "change a project":
                return accounts.change_project(At(**same), ChangeProject(PROJECT, f"name{n}"))
            case "add a member":
                email = dice.choice(["new", "ann", "other"])
                return accounts.invite(**_invitation(email, f"token{n}", now_us))
            case "change a member":
                return accounts.change_member(
                    At(**same), ChangeProjectMember(PROJECT, dice.choice(["ann", "bob"]), Role.READ)
                )
            case "withdraw an invitation":
                return accounts.withdraw_invitation(
                    At(PROJECT), WithdrawProjectInvitation(PROJECT, dice.choice(["new", "other"]))
                )
            case "accept an invitation":
                token, user_id = dice.choice(["token", f"token{n}"]), dice.choice(["ann", "bob"])
                return accounts.accept_invitation(user_id=user_id, token_hash=token, member_id=f"m{n}", now_us=now_us)
            case "make a link":
                link = QuestionLink(
                    f"link{n}",
                    self.ids["asks"],
                    "a",
                    "q",
                    name="ann",
                    made_by="k",
                    created_at_us=now_us,
                    expires_at_us=9,
                )
                return approvals.keep_link(project_id=PROJECT, link=link, key_id=None, user_id="ann")
            case "cut a lease":
                return claims.cut_lease(worker_id="w", until_us=now_us + n)
            case "a claim arrives":
                return claims.note_arrival(project_id=PROJECT, worker_id="w", claim_id=LAST_CLAIM)
            case "steps together":
                two = dice.sample(["runs", "parent", "kid"], 2)
                said = [
                    ReportItem(self.ids[one], 1, dice.randint(2, 4), self.seen[one], [step("s1", n)]) for one in two
                ]
                return reports.record_steps(worker_id="w", items=said, **same)
            case "touch":
                return access.touch(now_us=now_us + n)
            case "new epoch":
                return access.new_epoch(epoch=f"epoch{n}")
            case "make a key":
                return access.make_key(**_key(f"key{n}", dice.choice(["one", "two"]), now_us))
            case "create a key":
                return access.create_key(**_key(f"key{n}", f"name{n}", now_us))
            case "delete a key":
                return access.delete_key(project_id=PROJECT, id="key0")
        return self._report(kind, dice, n, same)

    def _argument(self, name: str, hint: Any, dice: random.Random, n: int) -> Any:
        known = {"now_us": self.now_us, "execution_id": dice.choice(list(self.ids.values())), **ARGUMENTS}
        if name in known:
            return known[name]
        if isinstance(hint, type) and issubclass(hint, Struct):  # the place or the operation of a verb
            hints = get_type_hints(hint)
            wanted = [one.name for one in msgspec.structs.fields(hint) if one.required or one.name in known]
            return hint(**{one: self._argument(one, hints[one], dice, n) for one in wanted})
        kind = dice.choice(get_args(hint) or [hint])
        made = {str: f"{name}{n}", int: n, bool: dice.choice([True, False]), NoneType: None}
        assert kind in made, f"a verb with `{name}: {hint}` needs a kind in KINDS"
        return made[kind]

    def _report(self, kind: str, dice: random.Random, n: int, same: dict[str, Any]) -> Verb[Any]:
        name = dice.choice(["runs", "runs", "parent", "kid", "kid"])
        entries: list[Entry] = []
        logs: list[LogLine] = []
        stream: list[Emitted] = []
        end: End | None = None
        number = dice.randint(2, 4)
        match kind:
            case "acknowledge":
                number = 0
            case "step":
                entries = [step(f"s{dice.randint(0, 1)}", n)]
            case "failed try":
                entries = [step(f"s{dice.randint(0, 1)}", n, ok=False, last=False)]
            case "log":
                logs = [LogLine(at_us=same["now_us"], level=20, text=f"line {n}")]
                entries = [step(f"s{dice.randint(0, 1)}", n)]
            case "emit":
                stream = [Emitted("token", f"s{n}", raw(n)), Emitted("token", f"s{n}", raw(n), 2)]
            case "timer":
                entries = [TimerFired("t", same["now_us"])]
            case "publish in":
                entries = [Publish(f"p{n}", None, "t", [EventItem(raw(n))])]
            case "open":
                entries = [OpenWait(f"e{n}", None, "t")]
            case "close":
                entries = [CloseWait("e")]
            case "answer":
                entries = [Answer(f"x{n}", None, self.ids[dice.choice(["asks", "runs"])], "a", raw(n))]
            case "child" | "child into a claim":
                entries = [StartChild(f"c{n}", None, StartItem("wf", key=dice.choice([None, "k"])))]
            case "child and wait" | "child and wait into a claim":
                entries = [StartChild(f"c{n}", None, StartItem("wf", key=dice.choice([None, None, "k"])))]
                end = Suspend([], None, parked=True)
            case "read":
                entries = [ReadTranscript(f"r{n}", "s")]
            case "say":
                entries = [AppendMessages(f"m{n}", None, "s", [raw("same"), raw(n)], dice.choice([None, 0]))]
            case "summarize":
                entries = [AppendMessages(f"m{n}", None, "s", [raw(n)]), Summarize(f"u{n}", None, "s", 1, raw("same"))]
            case "take":
                entries = [TakeMessages(f"t{n}", "s"), LeaveMessages(f"l{n}", "s", [self.ids["kid"]])]
            case "complete" | "end into a claim":
                end = Complete(raw(n))
            case "fail":
                end = failure(f"failure {n}")
            case "retry":
                end = failure(f"failure {n}", retry_delay_us=dice.choice([0, 5]))
            case "release":
                end = RELEASE
            case "block":
                end = BLOCK
            case "cancelled":
                end = CANCELLED
            case "suspend":
                end = Suspend(dice.choice([[], ["e"], ["a"]]), None)
            case "suspend on a timer":
                end = Suspend([], ("t", same["now_us"] + 5))
            case _:
                raise ValueError(kind)
        news = ReportItem(self.ids[name], 1, number, self.seen[name], entries, end, logs, stream=stream)
        if kind in ("child into a claim", "child and wait into a claim", "end into a claim"):
            waiting_claim = WaitingClaim("w", "d", "3.12", f"z{n}", 1)
            return reports.report_and_dispatch(
                worker_id="w", item=news, ids=[_id(3, n)], waiting_claim=waiting_claim, **same
            )
        return reports.report(worker_id="w", item=news, ids=[_id(3, n)], **same)
