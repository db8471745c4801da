"""Trains digits_cnn on scikit-learn's digits in a few seconds: `.nox/env/bin/python models/digits_cnn/training/train.py`.

Writes model.safetensors and eight sample images of the test half. Each image is stored as an 8-bit PNG, and the network is
trained on exactly the pixels the handler will see.
"""

import sys
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

HERE = Path(__file__).parent.parent
sys.path.insert(0, str(HERE))

from model import init_function  # noqa: E402


def main() -> None:
    """Train, save, and print the accuracy on the test half."""
    digits = load_digits()
    pixels = torch.tensor(digits.images * (255 / 16)).round().to(torch.uint8)  # published as 0..16
    train, test, train_labels, test_labels = train_test_split(
        pixels, torch.tensor(digits.target), test_size=0.5, random_state=0, stratify=digits.target
    )
    torch.manual_seed(0)
    network = init_function()
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-2)
    for _ in range(60):
        for batch in torch.randperm(len(train)).split(64):
            loss = torch.nn.functional.cross_entropy(network(train[batch].unsqueeze(1).float() / 255), train_labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    network.eval()
    with torch.inference_mode():
        right = network(test.unsqueeze(1).float() / 255).argmax(1) == test_labels
    save_file(network.state_dict(), HERE / "model.safetensors")
    for index in range(8):
        Image.fromarray(test[index].numpy()).save(HERE / "samples" / f"{index}_is_{test_labels[index]}.png")
    print(f"accuracy {right.float().mean():.4f} on {len(test)} images")


if __name__ == "__main__":
    main()
