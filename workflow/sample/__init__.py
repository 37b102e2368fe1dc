"""Recordings to load: synthetic ones with known answers, and suite2p output folders."""
