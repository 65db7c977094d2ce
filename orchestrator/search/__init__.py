"""Decides what to try: spaces, the fixed rule, studies, and the choice of the winner."""
