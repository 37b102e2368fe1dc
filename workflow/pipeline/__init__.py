"""The tables: the lab's, which are read, and ours, which are computed."""
