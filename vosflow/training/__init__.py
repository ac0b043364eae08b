"""Training of networks that vosflow makes itself."""
