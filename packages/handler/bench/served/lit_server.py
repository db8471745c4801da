"""LitServe serving a scripted image classifier: `python lit_server.py MODEL PORT BATCH TIMEOUT_S THREADS`.

As LitServe's own benchmark does it (tests/parity_fastapi/ls-server.py there): base64 in JSON, photos decoded and transformed in
a thread pool when a batch is made, its fast queue. The model is frozen, and torch gets the threads our worker gets.
"""

import base64
import io
import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import litserve
import torch
from PIL import Image
from torchvision import transforms


class Classifier(litserve.LitAPI):  # type: ignore[misc]  # it is not installed with us
    """A photo in, its five most likely classes out."""

    def setup(self, device: str) -> None:
        """Load and freeze."""
        torch.set_num_threads(int(sys.argv[5]))
        model = torch.jit.load(sys.argv[1], map_location=device).eval()  # type: ignore[no-untyped-call]
        self.model = torch.jit.freeze(model)
        self.pool = ThreadPoolExecutor(os.cpu_count())
        self.processing = transforms.Compose(
            [
                transforms.Resize(256),
                transforms.CenterCrop(224),
                transforms.ToTensor(),
                transforms.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
            ]
        )

    def decode_request(self, request: Mapping[str, str]) -> str:
        """The base64 text."""
        return request["image_data"]

    def batch(self, inputs: Sequence[str]) -> torch.Tensor:
        """Decode and transform side by side."""
        return torch.stack(list(self.pool.map(self._pixels, inputs)))

    def _pixels(self, text: str) -> Any:
        return self.processing(Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB"))

    def predict(self, x: torch.Tensor) -> torch.Tensor:
        """Probabilities [B, classes]."""
        with torch.inference_mode():
            return torch.softmax(self.model(x), 1)

    def unbatch(self, output: torch.Tensor) -> list[torch.Tensor]:
        """Rows."""
        return list(output)

    def encode_response(self, output: torch.Tensor) -> dict[str, Any]:
        """The five best."""
        best = output.topk(5)
        return {"classes": best.indices.tolist(), "probabilities": best.values.tolist()}


if __name__ == "__main__":
    api = Classifier(max_batch_size=int(sys.argv[3]), batch_timeout=float(sys.argv[4]))
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, fast_queue=True)
    server.run(host="127.0.0.1", port=int(sys.argv[2]), log_level="warning", generate_client_file=False)
