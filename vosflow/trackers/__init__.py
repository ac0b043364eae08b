"""Trackers: one module or package each; `base` says what they share."""
