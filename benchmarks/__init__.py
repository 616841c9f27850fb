"""Scripts that measure livestain; each prints one JSON object as its last line."""
