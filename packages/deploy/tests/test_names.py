import marline.deploy


def test_public_names() -> None:
    exposed = {name for name in vars(marline.deploy) if not name.startswith("_")} - {"serve", "doctor", "status"}  # commands

    assert marline.deploy.__all__ == sorted(exposed)
