"""The frames of a video as SAM 2's image encoder takes them."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vosflow.video import Video

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


class FrameTensors:
    """Reads frames, float32 [3, S, S] each; may be used by several threads at once.

    Resized by Pillow (bicubic, aspect ratio ignored), scaled in float64, normalised in float32: in this order, else
    last bits differ from the authors' code. There are 256 values that a channel can have: they are computed once.

    Args:
        pin: put the frames into memory from which a GPU copies by itself.
    """

    def __init__(self, video: Video, image_size: int, *, pin: bool = False) -> None:
        self._video = video
        self._size = (image_size, image_size)
        self._pin = pin
        values = torch.arange(256, dtype=torch.float64).div(255.0).float()
        self._values = values.sub(torch.tensor(MEAN)[:, None]).div(torch.tensor(STD)[:, None]).numpy()  # [3, 256]

    def __getitem__(self, index: int) -> Tensor:
        image = np.asarray(Image.fromarray(self._video.read_frame(index)).resize(self._size))  # uint8 [S, S, 3]
        # Channels first in memory, too: the strides of an image would lead to other kernels.
        tensor = np.empty((3, *self._size), np.float32)
        for channel, values in enumerate(self._values):
            np.take(values, image[..., channel], out=tensor[channel], mode="clip")  # "raise" would write a copy first
        tensor = torch.from_numpy(tensor)
        return tensor.pin_memory() if self._pin else tensor
