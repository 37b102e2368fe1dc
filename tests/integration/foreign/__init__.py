"""A pipeline of somebody else's: nothing in it is like ours, and the worker is to serve it all the same."""
