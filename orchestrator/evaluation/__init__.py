"""Judges predictions: mergeable metrics, intervals and paired comparisons."""
