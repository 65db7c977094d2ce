"""Trains one model: backbones and their stages, freezing, batches, the epoch loop and checkpoints."""
