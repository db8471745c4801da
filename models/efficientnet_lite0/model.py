"""EfficientNet-Lite0 (Tan and Le, 2019, in the variant for mobile processors) from the package efficientnet-lite-pytorch."""

import torchvision
from efficientnet_lite_pytorch import EfficientNet
from torch import nn

LABELS = dict(enumerate(torchvision.models.ResNet18_Weights.DEFAULT.meta["categories"]))  # ImageNet's, as for every model
PROCESSOR = {
    "image_processor_type": "BitImageProcessor",
    "do_convert_rgb": True,
    "do_resize": True,
    "size": {"shortest_edge": 256},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [127 / 255] * 3,  # TensorFlow's own input of the Lite models: (pixel - 127) / 128
    "image_std": [128 / 255] * 3,
}


def init_function() -> nn.Module:
    """The network without weights: pixels float32 [B, 3, 224, 224] to logits [B, 1000]."""
    network: nn.Module = EfficientNet.from_name("efficientnet-lite0")
    return network
