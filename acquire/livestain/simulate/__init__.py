"""A simulated microscope: living cells, optics, camera, stages, shutter, channel wheel and SLM."""
