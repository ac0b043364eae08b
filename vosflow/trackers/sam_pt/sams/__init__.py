"""The SAMs of SAM-PT: a frame and point prompts in, the logits of masks out."""
