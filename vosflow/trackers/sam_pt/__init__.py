"""SAM-PT: points tracked through a video prompt SAM on every frame (Rajič et al., arXiv 2307.01197).

The tracker is in `tracker`; this file stays empty, so that an edit of the pipeline leaves point trackers, SAMs and what
they computed as they are.
"""
