"""Runs the stages that work group by group, each resuming where it stopped."""
