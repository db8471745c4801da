import marline.handler


def test_public_names() -> None:
    exposed = {name for name in vars(marline.handler) if not name.startswith("_")}

    assert set(marline.handler.__all__) == exposed - {"base_handler", "collation", "image_classification"}
