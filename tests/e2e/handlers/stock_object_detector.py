from ts.torch_handler.object_detector import ObjectDetector


class SureDetector(ObjectDetector):  # type: ignore[misc]  # TorchServe has no types
    """Detections it is sure of."""

    threshold = 0.8
