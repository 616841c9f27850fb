"""Phase images: from four interference steps, from defocus, and how well each can be trusted."""
