"""Starting several processes that train together; this one only waits for them, so it loads nothing that trains."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Sequence

from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch


def start_group(command: Sequence[str], processes: int) -> int:
    """Run a Python script in so many processes, as `torchrun --standalone` does; returns 0 if all end well, else 1.

    torchrun itself would end with its own traceback, under which the message of a process is hard to find.
    """
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
    )
    try:
        elastic_launch(config, sys.executable)(*command)
    except ChildFailedError:
        return 1
    return 0
