"""Snakemake that looks at the queue twice a second. The plugin's own waiting cannot be set below tens of seconds.

While there is a file `nap`, it does not look; `napping` says that it has seen it. The plugin does not cancel jobs when
it is interrupted in the middle of a look: a test of interrupts must not depend on that.
"""

import asyncio
import sys
from pathlib import Path

from snakemake.cli import main
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor


async def _nap(self: RemoteExecutor) -> None:
    await asyncio.sleep(0.5)
    while Path("nap").exists():
        Path("napping").touch()
        await asyncio.sleep(0.1)


if __name__ == "__main__":
    RemoteExecutor.sleep = _nap
    sys.exit(main())
