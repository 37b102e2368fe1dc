"""Pure computation on NumPy arrays: nothing here knows about databases, settings or tables."""
