"""Workers that are killed: this program forks one for each line that it reads, and says its pid.

Everything is imported before, so that a new worker is there at once. Each call of a tool is a line in the log
`CALLS_FILE` as it begins: what a SIGKILL leaves behind is exactly what was begun. Those of the model are counted by the
provider at `PROVIDER_URL`, from which the agent streams.
"""

import asyncio
import os
import random
import signal
import sys

from pydantic_ai import Agent
from tests.agents.asking import signing_model

from perdure import Registry, current_step
from perdure.agents import durable
from perdure.sdk.transports.http import HttpTransport
from perdure.sdk.workers.lease import HttpLease
from perdure.sdk.workers.worker import Worker


async def called() -> None:
    """Note the beginning of a call, and take a while."""
    info = current_step()
    assert info.context is not None
    line = f"{info.execution_id} {info.context.attempt} {info.key}\n".encode()
    log = os.open(os.environ["CALLS_FILE"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(log, line)  # one write: lines of several workers do not mix
    os.close(log)
    await asyncio.sleep(random.uniform(0.0, 0.05))


agent = Agent(signing_model(os.environ["PROVIDER_URL"]), name="payer")


@agent.tool_plain
async def note(n: int) -> int:
    await called()
    return n


@agent.tool_plain(requires_approval=True)
async def pay(cents: int) -> str:
    await called()
    return f"{cents} cents"


payer = durable(agent)


async def work() -> None:
    """A worker that runs until a kill."""
    url, key = os.environ["PERDURE_URL"], os.environ["PERDURE_API_KEY"]
    transport = HttpTransport(url, key)
    worker = Worker(transport, Registry(payer), lease=HttpLease(transport.urls, key, transport.leave))
    await worker.start(wait=True)
    await asyncio.get_running_loop().create_future()


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    for _ in sys.stdin:
        pid = os.fork()
        if pid == 0:
            os.close(0)
            asyncio.run(work())
        os.write(1, f"{pid}\n".encode())


if __name__ == "__main__":
    main()
