import marline.deploy

COMMANDS = {"doctor", "probe", "serve", "start", "status", "target", "training"}


def test_public_names() -> None:
    exposed = {name for name in vars(marline.deploy) if not name.startswith("_")} - COMMANDS

    assert marline.deploy.__all__ == sorted(exposed)
