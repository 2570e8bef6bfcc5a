"""A container engine that is of no use must not keep the tests from running natively."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.services import containers
from tests.services.containers import IMAGES, an_engine_answers, has_image, kafka_container
from tests.services.native import ServiceUnavailable


class EngineWithoutImages(BaseHTTPRequestHandler):
    """Answers like a container engine that has no image and reaches no registry."""

    def do_GET(self) -> None:
        if self.path.endswith("/_ping"):
            self._answer(200, "OK")
        elif self.path.endswith(("/version", "/info")):
            self._answer(200, {"ApiVersion": "1.41", "MinAPIVersion": "1.12"})
        else:
            self._answer(404, {"message": "no such image"})

    def do_POST(self) -> None:
        self._answer(500, {"message": "no registry"})

    def _answer(self, status: int, body: object) -> None:
        content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads it."""


@pytest.fixture
def engine_without_images(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), EngineWithoutImages)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{server.server_port}")
    yield
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.usefixtures("engine_without_images")
def test_an_engine_that_has_no_images_says_so() -> None:
    assert an_engine_answers()
    assert not any(has_image(image) for image in IMAGES)


@pytest.mark.usefixtures("engine_without_images")
def test_a_container_that_cannot_be_had_leaves_room_for_a_native_process() -> None:
    service, _ = kafka_container()
    with pytest.raises(ServiceUnavailable, match=containers.KAFKA_IMAGE):
        service.start()


def test_no_engine_is_no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    assert not an_engine_answers()
