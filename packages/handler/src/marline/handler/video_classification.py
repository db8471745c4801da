"""Video in, five most likely labels out. A video is an .npy file of frames, uint8 [frames, height, width, 3].

Reads how frames are prepared from `video_preprocessor_config.json`, or `preprocessor_config.json` in older repositories.
"""

import json
from pathlib import Path
from typing import Any

import torch
from base_handler import BadRequestError, handler_factory
from body_formats import MAX_PIXELS
from collation import most_likely

FOLDER = Path(__file__).parent
NAMES = ("video_preprocessor_config.json", "preprocessor_config.json")
SAID = [FOLDER / name for name in NAMES if (FOLDER / name).is_file()]
if not SAID:
    raise FileNotFoundError(
        f"the model brings no {NAMES[0]}, which says how its frames are prepared; write models/NAME/handler.py"
    )
SETTINGS = json.loads(SAID[0].read_text())
CONFIG = json.loads((FOLDER / "config.json").read_text())
FRAMES = CONFIG.get("num_frames", 16)
NORMAL = SETTINGS.get("do_normalize", True)
MEAN = torch.tensor(SETTINGS["image_mean"] if NORMAL else [0.0] * 3).view(1, -1, 1, 1)
STD = torch.tensor(SETTINGS["image_std"] if NORMAL else [1.0] * 3).view(1, -1, 1, 1)
SCALE = SETTINGS.get("rescale_factor", 1 / 255) if SETTINGS.get("do_rescale", True) else 1.0
SIZE = SETTINGS["size"]
CROP = SETTINGS.get("crop_size") or SIZE
MODE = {2: "bilinear", 3: "bicubic"}[SETTINGS.get("resample", 2)]


def preprocess(frames: Any) -> torch.Tensor:
    """Evenly chosen frames, the shorter edge resized and the centre cut out: float32 [FRAMES, 3, height, width]."""
    if not isinstance(frames, torch.Tensor) or frames.dtype != torch.uint8 or frames.shape[3:] != (3,):
        raise BadRequestError("expected an .npy file of uint8 [frames, height, width, 3]")
    if not frames.numel():
        raise BadRequestError(f"a video of shape {list(frames.shape)} shows nothing")
    chosen = torch.linspace(0, len(frames) - 1, FRAMES).round().long()
    video = frames[chosen].permute(0, 3, 1, 2).float()
    height, width = video.shape[2:]
    size = _whole(height, width)
    if FRAMES * size[0] * size[1] > MAX_PIXELS:
        raise BadRequestError(f"frames of {height} x {width} are too narrow: they would be resized to {size[0]} x {size[1]}")
    video = torch.nn.functional.interpolate(video, size, mode=MODE, antialias=True).round_().clamp_(0, 255)
    top, left = (size[0] - CROP["height"]) // 2, (size[1] - CROP["width"]) // 2
    video = video[:, :, top : top + CROP["height"], left : left + CROP["width"]]
    return (video.mul_(SCALE) - MEAN) / STD


def _whole(height: int, width: int) -> tuple[int, int]:
    """The size of a frame before the centre is cut out, rounded as Hugging Face does."""
    edge, short = SIZE.get("shortest_edge"), min(height, width)
    wanted = (int(edge * height / short), int(edge * width / short)) if edge else (SIZE["height"], SIZE["width"])
    return max(CROP["height"], wanted[0]), max(CROP["width"], wanted[1])


def postprocess(output: Any) -> Any:
    """Logits [classes] to the five most likely labels with their probabilities."""
    return most_likely(output, CONFIG)


handler = handler_factory(preprocess_function=preprocess, postprocess_function=postprocess)
