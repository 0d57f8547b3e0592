"""Work not taken up by a worker at A, while the worker may have asked again at B."""

import asyncio

import pytest
from tests.kit.polling import until
from tests.servers.conftest import NEVER, Hand, Pair

from perdure.engine.runs import recalls
from perdure.wire.runs.requests import ClaimReply


async def _answered(pair: Pair) -> tuple[Hand, ClaimReply, str, "asyncio.Future[ClaimReply]"]:
    """A worker with work at A, where a second one waits. Returns the worker, the answer, the claim's id, and the
    second's claim."""
    first, second = await pair.hand(pair.a), await pair.hand(pair.a)
    claims = {asyncio.ensure_future(hand.claim(claim_id="01")): hand for hand in (first, second)}
    await until(lambda: first.waits() and second.waits())
    await pair.start(pair.a)
    done, waiting = await asyncio.wait(claims, return_when=asyncio.FIRST_COMPLETED)
    (got,), (other,) = done, waiting
    return claims[got], got.result(), "01", other


async def test_work_goes_to_another_worker_at_a_if_its_own_asks_on_nowhere(pair: Pair) -> None:
    _, reply, _, other = await _answered(pair)
    assert reply.held_us is not None
    (taken,) = (await other).items
    assert (taken.id, taken.attempt, taken.ack_first) == (reply.items[0].id, 2, True)


async def test_work_stays_with_a_worker_that_asks_on_at_b(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recalls, "CONFIRM_SECONDS", NEVER)
    hand, reply, claim_id, other = await _answered(pair)
    asking = asyncio.ensure_future(hand.claim(at=pair.b, arrived=claim_id, claim_id="02"))
    await until(lambda: pair.b.claims._waiting.is_waiting(hand.id))
    monkeypatch.setattr(recalls, "CONFIRM_SECONDS", 0.0)
    await until(lambda: not pair.a.claims._recalls._answered)  # A has looked
    assert not other.done()
    await hand.complete(reply.items[0])
    id = await pair.start(pair.b)
    done, _ = await asyncio.wait({asking, other}, return_when=asyncio.FIRST_COMPLETED)
    assert [(one.id, one.attempt) for one in done.pop().result().items] == [(id, 1)]
    for one in (asking, other):
        one.cancel()


async def test_a_batch_asked_for_again_at_b_is_acknowledged_before_it_begins(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first answer was lost: A may take the work back, since nothing confirms the arrival at B."""
    monkeypatch.setattr(recalls, "CONFIRM_SECONDS", NEVER)  # here it does not
    hand, reply, claim_id, other = await _answered(pair)
    (again,) = (await hand.claim(at=pair.b, claim_id=claim_id)).items
    assert (again.id, again.attempt, again.ack_first) == (reply.items[0].id, 1, True)
    other.cancel()
