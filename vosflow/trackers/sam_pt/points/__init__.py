"""Point trackers of SAM-PT, one module each; `base` says what one is."""
