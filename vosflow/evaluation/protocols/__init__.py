"""Protocols: the exact rules by which publishers score label maps. A protocol knows no tracker."""

from __future__ import annotations

import difflib
import importlib

from vosflow.errors import VosflowError
from vosflow.evaluation.protocols.base import Rules

BUILT_IN = {
    "davis2016": "vosflow.evaluation.protocols.davis:Davis2016",
    "davis2017": "vosflow.evaluation.protocols.davis:Davis2017",
    "davis2017-unsupervised": "vosflow.evaluation.protocols.davis_unsupervised:Davis2017Unsupervised",
    "mose": "vosflow.evaluation.protocols.mose:Mose",
    "mosev2": "vosflow.evaluation.protocols.mosev2:MoseV2",
    "mosev2-fixed": "vosflow.evaluation.protocols.mosev2:MoseV2Fixed",
    "sav": "vosflow.evaluation.protocols.sav:Sav",
    "lvos": "vosflow.evaluation.protocols.lvos:Lvos",
    "youtube-vos": "vosflow.evaluation.protocols.youtube_vos:YoutubeVos",
    "bdd100k": "vosflow.evaluation.protocols.bdd100k:Bdd100k",
    "vos-benchmark": "vosflow.evaluation.protocols.vos_benchmark:VosBenchmark",
    "ytvis": "vosflow.evaluation.protocols.ytvis:YouTubeVis",
    "uvo": "vosflow.evaluation.protocols.ytvis:Uvo",
}


def load_protocol(name: str) -> Rules:
    """The protocol called `name`; raises VosflowError, with a suggestion, if there is none."""
    if name not in BUILT_IN:
        close = difflib.get_close_matches(name, BUILT_IN, n=1)
        raise VosflowError(
            f"unknown protocol {name!r}" + (f", did you mean {close[0]!r}?" if close else ""),
            expected="one of " + ", ".join(BUILT_IN),
            remedy="name the protocol of the dataset's publisher",
        )
    module, _, attribute = BUILT_IN[name].partition(":")
    return getattr(importlib.import_module(module), attribute)()
