"""What the pictures say about every cell: segments, tracks, mass, viability, tables."""
