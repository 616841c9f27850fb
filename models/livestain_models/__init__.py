"""What a stain model is: its contract, its package on disk, its networks, training and export."""
