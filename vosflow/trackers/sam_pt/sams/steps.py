"""The steps of a SAM on one frame: encoding it, decoding the prompts of several objects on it.

They are what the authors' SamPredictor does, taken apart: so that all that depends on the frame alone is computed once
for all objects and refinements, several objects share a call, and masks are enlarged only where someone looks at them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vosflow.trackers.sam_pt.clip import resize_frame, working_size
from vosflow.trackers.sam_pt.sams.base import Decoded
from vosflow.trackers.sam_pt.sams.decoding import Decoding, FrameTokens

if TYPE_CHECKING:
    from segment_anything_hq.modeling import Sam

    from vosflow.trackers.sam_pt.sams.base import Array


class Steps:
    """The steps of `network` on its device, in evaluation mode.

    Args:
        precision: "float32", or "bfloat16" for automatic mixed precision.

    Attributes:
        network: SAM or HQ-SAM.
        image_size: side of its input in pixels, S. Embeddings have S/16, low-resolution masks S/4.
    """

    def __init__(self, network: Sam, precision: str) -> None:
        self.network = network
        self.precision = precision
        self.image_size: int = network.image_encoder.img_size
        self.device = network.pixel_mean.device
        self._is_hq = hasattr(network.mask_decoder, "hf_token")
        with torch.no_grad():
            self._decoding = Decoding(network)
        self._frame: tuple[Array, FrameTokens] | None = None

    def encode(self, frame: np.ndarray) -> dict[str, Tensor]:
        """What `decode` needs to know of a frame, uint8 RGB [H, W, 3].

        Returns:
            float32 tensors: "embedding" [C, S/16, S/16], and for HQ-SAM also "hq_features" [C/8, S/4, S/4], that part
            of its decoder which depends on the frame alone (smaller than the early ViT features that it is made of).
        """
        resized = resize_frame(frame, *working_size(*frame.shape[:2], self.image_size))
        pixels = torch.from_numpy(np.array(resized)).to(self.device).permute(2, 0, 1)[None]
        with self.computing():
            embedding, early = self.network.image_encoder(self.network.preprocess(pixels))
            features = {"embedding": embedding}
            if self._is_hq:
                decoder = self.network.mask_decoder
                early_maps = early[0].permute(0, 3, 1, 2)  # [1, channels of the encoder, S/16, S/16]
                features["hq_features"] = decoder.embedding_encoder(embedding) + decoder.compress_vit_feat(early_maps)
        return {name: value[0].float() for name, value in features.items()}

    def decode(
        self,
        features: Mapping[str, Array],
        size: tuple[int, int],
        points: Array,
        labels: Array,
        boxes: Array | None,
        masks: Array | None,
        full_size: bool,
    ) -> Decoded:
        """See `vosflow.trackers.sam_pt.sams.base.Sam.decode`."""
        height, width = working_size(*size, self.image_size)
        # As in ResizeLongestSide: scaled in double precision, each axis by its own rounded ratio.
        scale = torch.tensor([width / size[1], height / size[0]], dtype=torch.float64, device=self.device)
        points = (self._on_device(points, torch.float64) * scale).float()
        with self.computing():
            sparse, _ = self.network.prompt_encoder(
                points=(points, self._on_device(labels, torch.int32)),
                boxes=None if boxes is None else self._on_device(boxes),
                masks=None,
            )
            masks = None if masks is None else self._on_device(masks)
            low_res, iou = self._decoding.decode(self._prepared(features), sparse, masks)
        low_res = low_res.float()
        logits = enlarge(low_res, self.image_size, (height, width), size)[:, 0] if full_size else None
        return Decoded(logits, low_res, iou.float())

    def _prepared(self, features: Mapping[str, Array]) -> FrameTokens:
        """What the decoder needs of a frame; that of the last one is kept, as its prompts come one after another."""
        embedding = features["embedding"]
        if self._frame is None or self._frame[0] is not embedding:
            hq_features = self._on_device(features["hq_features"]) if self._is_hq else None
            self._frame = embedding, self._decoding.prepare(self._on_device(embedding), hq_features)
        return self._frame[1]

    def _on_device(self, values: Array, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.as_tensor(values).to(self.device, dtype)

    @contextlib.contextmanager
    def computing(self) -> Iterator[None]:
        """Without gradients, at the wanted precision: float32 is float32, also where a GPU would round for speed."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            if self.precision == "bfloat16":
                stack.enter_context(torch.autocast(self.device.type, torch.bfloat16))
            elif self.device.type == "cuda":
                stack.enter_context(torch.backends.cudnn.flags(enabled=True, allow_tf32=False))
            yield


def enlarge(low_res: Tensor, image_size: int, resized: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Logits at the size of the frame, as `Sam.postprocess_masks` gives them, bit by bit.

    Args:
        low_res: float32 [B, M, s, s], of the padded square input of `image_size` pixels, a multiple of s.
        resized: (height, width) of the frame in that input.
        size: (height, width) of the frame.

    Returns:
        float32 [B, M, H, W].
    """
    times = image_size // low_res.shape[-1]
    # Rows and columns that only the padding sees are left out; one more, as bilinear weights reach that far.
    rows, columns = (min(-(-side // times) + 1, low_res.shape[-1]) for side in resized)
    seen = low_res[..., :rows, :columns]
    logits = F.interpolate(seen, scale_factor=times, mode="bilinear", align_corners=False)
    logits = logits[..., : resized[0], : resized[1]]
    if resized == tuple(size):
        return logits
    return F.interpolate(logits, tuple(size), mode="bilinear", align_corners=False)
