"""Runs the stages on Ray: one adapter a stage, no policy; the only place that imports ray."""
