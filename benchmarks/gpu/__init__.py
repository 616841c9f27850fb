"""Benchmarks for machines with a graphics card."""
