"""The training of RDE-VOS in stages: still images, then BL30K, then DAVIS and YouTube-VOS."""
