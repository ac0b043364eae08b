"""RDE-VOS the plain way, object by object and frame by frame, straight from a state dict: nothing is shared.

Every frame's features are computed anew for each object, concatenated features go through whole convolutions, the
non-local block forms its matrix of places x places, memories are concatenated with their copies, and the readout is a
product with a dense affinity. It is written from the description of the method, without vosflow's network.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor


class PlainRde:
    """The method with `weights`, a state dict by the official names."""

    def __init__(self, weights: Mapping[str, Tensor], mode: str, mem_every: int, top_k: int) -> None:
        self._w = weights
        self._mode, self._mem_every, self._top_k = mode, mem_every, top_k

    def davis(self, images: Tensor, masks: Tensor) -> list[Tensor]:
        """Probabilities [1 + O, H, W] of each of T normalised images [T, 3, H, W]; masks [O, H, W] are of the first."""
        last_frame = len(images) - 1
        given = soft_aggregation(masks)
        probabilities = [given]
        memories = [self._begin(images[0], given[1:], k) for k in range(len(masks))]
        for t in range(1, len(images)):
            probabilities.append(self._predict(images[t], memories))
            if t % self._mem_every == 0 and t != last_frame:
                for k, memory in enumerate(memories):
                    self._update(memory, images[t], probabilities[t][1:], k)
        return probabilities

    def youtube(self, images: Tensor, masks: Tensor, first: list[int]) -> dict[int, Tensor]:
        """{t: probabilities [1 + O, H, W]}; object k has its mask [H, W] on frame first[k], before it 0."""
        objects, result, enabled, memories = len(masks), {}, [], {}
        starts = sorted(set(first))
        for start, end in zip(starts, [*starts[1:], len(images) - 1], strict=True):
            new = [k for k in range(objects) if first[k] == start]
            probability = result.get(start, torch.zeros(1 + objects, *masks.shape[1:])).clone()
            probability[:, masks[new].sum(0) > 0.5] = 0
            for k in new:
                probability[1 + k] = masks[k]
            result[start] = probability = soft_aggregation(probability[1:])
            enabled += new
            rows = torch.stack([probability[1 + k] for k in enabled])
            for place, k in enumerate(enabled):
                if k in new:
                    memories[k] = self._begin(images[start], rows, place)
                else:
                    self._update(memories[k], images[start], rows, place)
            remembered = start
            for t in range(start + 1, end + 1):
                rows = self._predict(images[t], [memories[k] for k in enabled])
                result[t] = torch.zeros(1 + objects, *masks.shape[1:])
                result[t][[0, *(1 + k for k in enabled)]] = rows
                if t - remembered >= self._mem_every and t != end:
                    for place, k in enumerate(enabled):
                        self._update(memories[k], images[t], rows[1:], place)
                    remembered = t
        return result

    def key(self, image: Tensor) -> Tensor:
        """Key [1, K, h, w] of a normalised image [3, H, W]."""
        return self._key(self._image_features(image)[0])

    # -- memory: {"given" | "compressed" | "last": (key [K, 1, h, w], value [V, 1, h, w]), "all": of T frames}

    def _begin(self, image: Tensor, masks: Tensor, k: int) -> dict:
        pair = self._memorise(image, masks, k)
        return {"all": pair, "given": pair, "compressed": pair, "last": None}

    def _update(self, memory: dict, image: Tensor, masks: Tensor, k: int) -> None:
        new = self._memorise(image, masks, k)
        memory["all"] = tuple(torch.cat(pair, dim=1) for pair in zip(memory["all"], new, strict=True))
        if self._mode != "stm":
            old = memory["compressed"]
            memory["compressed"] = self._sam("key", old[0], new[0]), self._sam("value", old[1], new[1])
            memory["last"] = new

    def _memorise(self, image: Tensor, masks: Tensor, k: int) -> tuple[Tensor, Tensor]:
        f16, _, _ = self._image_features(image)
        others = sum((mask for j, mask in enumerate(masks) if j != k), torch.zeros_like(masks[0]))
        value = self._value(image, f16, masks[k], others)
        return self._key(f16)[0][:, None], value[0][:, None]

    def _read(self, memory: dict, query: Tensor) -> Tensor:
        """Value [1, V, h, w] for a query key [1, K, h, w]."""
        first = memory["last"] is None
        if self._mode == "stm":
            blocks = [memory["all"]]
        elif self._mode == "compress":
            blocks = [memory["compressed"]]
        elif self._mode == "last-compress":
            blocks = [memory["compressed"]] + ([] if first else [memory["last"]])
        elif self._mode == "gt-compress":
            blocks = [memory["compressed"], memory["given"]]
        else:
            blocks = [memory["compressed"], memory["given"]]
            blocks += [] if first else [memory["last"], memory["given"]]
        keys, values = (torch.cat(parts, dim=1).flatten(1) for parts in zip(*blocks, strict=True))  # [K, N], [V, N]
        q = query[0].flatten(1)  # [K, h w]
        scores = (2 * keys.T @ q - keys.pow(2).sum(0)[:, None]) / math.sqrt(len(keys))  # [N, h w]
        best, rows = scores.topk(min(self._top_k, len(scores)), dim=0)
        affinity = torch.zeros_like(scores).scatter_(0, rows, best.softmax(dim=0))
        return (values @ affinity).unflatten(1, query.shape[2:])[None]

    def _predict(self, image: Tensor, memories: list[dict]) -> Tensor:
        return soft_aggregation(torch.stack([self._segment(image, memory) for memory in memories]))

    # -- network

    def _segment(self, image: Tensor, memory: dict) -> Tensor:
        """Probability [H, W] of one object."""
        f16, f8, f4 = self._image_features(image)
        read = self._read(memory, self._key(f16))
        x = self._res("decoder.compress", torch.cat([read, self._conv("key_comp", f16, padding=1)], dim=1))
        for name, skip in (("up_16_8", f8), ("up_8_4", f4)):
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = self._res(f"decoder.{name}.out_conv", x + self._conv(f"decoder.{name}.skip_conv", skip, padding=1))
        logits = self._conv("decoder.pred", x.relu(), padding=1)
        return F.interpolate(logits, scale_factor=4, mode="bilinear", align_corners=False).sigmoid()[0, 0]

    def _image_features(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self._norm("key_encoder.bn1", self._conv("key_encoder.conv1", image[None], stride=2, padding=3)).relu()
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        f4 = self._stage("key_encoder.res2", x, 3, 1)
        f8 = self._stage("key_encoder.layer2", f4, 4, 2)
        return self._stage("key_encoder.layer3", f8, 6, 2), f8, f4

    def _key(self, f16: Tensor) -> Tensor:
        return self._conv("key_proj.key_proj", f16, padding=1)

    def _value(self, image: Tensor, f16: Tensor, mask: Tensor, others: Tensor) -> Tensor:
        x = torch.cat([image, mask[None], others[None]])[None]
        x = self._norm("value_encoder.bn1", self._conv("value_encoder.conv1", x, stride=2, padding=3)).relu()
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        for number, stride in ((1, 1), (2, 2), (3, 2)):
            x = self._stage(f"value_encoder.layer{number}", x, 2, stride)
        x = self._res("value_encoder.fuser.block1", torch.cat([x, f16], dim=1))
        return self._res("value_encoder.fuser.block2", x + self._cbam("value_encoder.fuser.attention", x))

    def _cbam(self, name: str, x: Tensor) -> Tensor:
        def mlp(pooled: Tensor) -> Tensor:
            for layer in (1, 3):
                pooled = pooled if layer == 1 else pooled.relu()
                weight, bias = (self._w[f"{name}.ChannelGate.mlp.{layer}.{leaf}"] for leaf in ("weight", "bias"))
                pooled = pooled @ weight.T + bias
            return pooled

        x = x * torch.sigmoid(mlp(x.mean((2, 3))) + mlp(x.flatten(2).max(2).values))[:, :, None, None]
        places = torch.cat([x.max(1, keepdim=True).values, x.mean(1, keepdim=True)], dim=1)
        return x * self._conv(f"{name}.SpatialGate.spatial.conv", places, padding=3).sigmoid()

    def _stage(self, name: str, x: Tensor, blocks: int, stride: int) -> Tensor:
        for number in range(blocks):
            block, step = f"{name}.{number}", stride if number == 0 else 1
            shortcut = x
            if f"{block}.downsample.0.weight" in self._w:
                shortcut = self._norm(f"{block}.downsample.1", self._conv(f"{block}.downsample.0", x, stride=step))
            convs = 3 if f"{block}.conv3.weight" in self._w else 2
            strided = 2 if convs == 3 else 1  # torchvision strides in the 3x3 convolution
            y = x
            for part in range(1, convs + 1):
                padding = self._w[f"{block}.conv{part}.weight"].shape[-1] // 2
                y = self._conv(f"{block}.conv{part}", y, stride=step if part == strided else 1, padding=padding)
                y = self._norm(f"{block}.bn{part}", y)
                y = y.relu() if part < convs else y
            x = (y + shortcut).relu()
        return x

    def _res(self, name: str, x: Tensor) -> Tensor:
        shortcut = self._conv(f"{name}.downsample", x, padding=1) if f"{name}.downsample.weight" in self._w else x
        y = self._conv(f"{name}.conv1", x.relu(), padding=1)
        return shortcut + self._conv(f"{name}.conv2", y.relu(), padding=1)

    def _sam(self, branch: str, old: Tensor, new: Tensor) -> Tensor:
        """[C, 1, h, w] of an old and of a new one."""
        name = f"mem_compress.{branch}_encoder"
        x = torch.stack([old[:, 0], new[:, 0]], dim=1)[None]  # [1, C, 2, h, w]
        theta = self._conv3d(f"{name}.non_local.theta", x).flatten(2)[0]  # [c, N]
        phi, g = (
            F.max_pool3d(self._conv3d(f"{name}.non_local.{part}.0", x), (1, 2, 2)).flatten(2)[0]
            for part in ("phi", "g")
        )  # [c, n]
        places = theta.T @ phi / phi.shape[1]  # [N, n]
        gathered = (places @ g.T).T.unflatten(1, x.shape[2:])[None]
        x = x + self._conv3d(f"{name}.non_local.W", gathered)
        branches = [self._conv3d(f"{name}.conv1.aspp1.atrous_conv", x)]
        for number, dilation in ((2, 2), (3, 4), (4, 6)):
            branches.append(self._conv3d(f"{name}.conv1.aspp{number}.atrous_conv", x, dilation))
        x = x + self._conv3d(f"{name}.conv1.conv1", torch.cat([b.relu() for b in branches], dim=1), 1).relu()
        squeeze = f"mem_compress.compress_{branch}"
        return F.conv3d(x, self._w[f"{squeeze}.weight"], self._w[f"{squeeze}.bias"], padding=(0, 1, 1))[0]

    def _conv3d(self, name: str, x: Tensor, dilation: int = 0) -> Tensor:
        reach = (0, dilation, dilation)
        weight, bias = self._w[f"{name}.weight"], self._w.get(f"{name}.bias")
        return F.conv3d(x, weight, bias, padding=reach, dilation=(1, max(1, dilation), max(1, dilation)))

    def _conv(self, name: str, x: Tensor, *, stride: int = 1, padding: int = 0) -> Tensor:
        return F.conv2d(x, self._w[f"{name}.weight"], self._w.get(f"{name}.bias"), stride=stride, padding=padding)

    def _norm(self, name: str, x: Tensor) -> Tensor:
        leaves = (self._w[f"{name}.{leaf}"] for leaf in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *leaves)


def soft_aggregation(masks: Tensor) -> Tensor:
    """[O, H, W] -> [1 + O, H, W]: the softmax of logits, background included."""
    probabilities = torch.cat([(1 - masks).prod(0, keepdim=True), masks]).clamp(1e-7, 1 - 1e-7)
    return torch.log(probabilities / (1 - probabilities)).softmax(dim=0)
