"""Find out what is due, compute it, and record what happened."""
