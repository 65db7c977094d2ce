"""Measures diversity: mergeable statistics, entropies, the Vendi score, and grouping by them."""
