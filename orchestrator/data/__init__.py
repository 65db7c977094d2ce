"""Reads the data: formats, identity, splits, decoding and the cache of decoded pixels."""
