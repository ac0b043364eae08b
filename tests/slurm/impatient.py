"""Snakemake that looks at the queue twice a second. The plugin's own waiting cannot be set below tens of seconds."""

import asyncio
import sys

from snakemake.cli import main
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor


async def _nap(self: RemoteExecutor) -> None:
    await asyncio.sleep(0.5)


if __name__ == "__main__":
    RemoteExecutor.sleep = _nap
    sys.exit(main())
