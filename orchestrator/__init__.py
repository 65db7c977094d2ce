"""Diversity-guided fine-tuning of image classifiers on Ray."""
