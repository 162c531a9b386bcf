"""Fitting: the loop, when it stops, and the state that makes resuming exact."""
