"""A training that stands still for ever in its sixth iteration, the first time: then what ends it is no matter of time.

Python imports this when it starts with the folder in PYTHONPATH. `held-{rank}` in the folder STAGE says that it stands.
"""

import importlib.util
import os
import sys
import time
from pathlib import Path

TRAINER = "vosflow.training.rde.trainer"


class _Held:
    """Finds the trainer once, and holds it."""

    def find_spec(self, name, path=None, target=None):
        if name != TRAINER:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module

        def load_and_hold(module):
            load(module)
            _hold(module.StageTraining)

        spec.loader.exec_module = load_and_hold
        return spec


def _hold(training):
    update = training.update

    def update_or_wait(self, batch):
        mark = Path(os.environ["STAGE"]) / f"held-{os.environ['RANK']}"
        if self.iteration == 5 and not mark.exists():
            mark.touch()
            while True:
                time.sleep(600)
        return update(self, batch)

    training.update = update_or_wait


sys.meta_path.insert(0, _Held())
