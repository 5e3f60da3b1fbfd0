from ..publishing.conftest import folder, hub  # noqa: F401
