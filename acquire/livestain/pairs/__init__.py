"""Pairs to train from: planned, acquired, looked at as they come, judged together, a first recipe beside them."""
