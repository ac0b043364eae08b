"""Evaluation: measures of one frame, protocols of one dataset, statistics and score files of one run."""
