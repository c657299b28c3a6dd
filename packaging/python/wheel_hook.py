"""Puts the binary into the wheel, and says on which machines it runs."""

import os

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class WheelHook(BuildHookInterface):
    """Reads `LIKEWISE_BINARY`, a path, and `LIKEWISE_PLATFORM`, a platform tag such as `manylinux_2_36_x86_64` (PEP 600)."""

    def initialize(self, version: str, build_data: dict) -> None:
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{os.environ['LIKEWISE_PLATFORM']}"
        build_data["shared_scripts"] = {os.environ["LIKEWISE_BINARY"]: "likewise"}
