from types import SimpleNamespace

import pytest

from meshhost.errors import AlreadyExistsError, InvalidRequestError, LimitExceededError
from meshhost.protocol.messages import EmptyResponse, FileResponse, JsonResponse, LinkResponse, TextResponse
from meshhost.tools import StorageToolkit, ToolContext, storage
from meshhost.tools.fetch import Fetched


class Files:
    def __init__(self):
        self.files = {"a.txt": b"hello"}

    async def exists(self, *, path):
        return path in self.files

    async def list(self, *, path):
        return [SimpleNamespace(name=name, is_folder=False) for name in self.files]

    async def download(self, *, path):
        return FileResponse(data=self.files[path], name=path, mime_type="image/png")

    async def download_url(self, *, path):
        return f"https://files.example/{path}"

    async def delete(self, *, path):
        del self.files[path]

    async def upload(self, *, path, data, overwrite):
        self.files[path] = data


@pytest.fixture
def files():
    return Files()


@pytest.fixture
def call(files):
    context = ToolContext(room=SimpleNamespace(storage=files), caller=None)

    async def call(name, **arguments):
        return await StorageToolkit().execute(context=context, name=name, arguments=arguments)

    return call


def test_a_read_only_toolkit_changes_nothing():
    names = {tool.name for tool in StorageToolkit(read_only=True).tools}
    assert names == {"list_files_in_room", "read_file", "get_file_download_url"}
    assert names < {tool.name for tool in StorageToolkit().tools}


async def test_files_are_listed(call):
    assert await call("list_files_in_room", path="") == JsonResponse({"files": [{"name": "a.txt", "is_folder": False}]})


async def test_a_text_file_is_read(call):
    assert await call("read_file", path="a.txt") == TextResponse("hello")


async def test_a_large_file_is_not_read(call, files):
    files.files["big"] = b"x" * (256 * 1024 + 1)
    with pytest.raises(LimitExceededError, match="262145 bytes"):
        await call("read_file", path="big")
    files.files["big"] = b"x" * 256 * 1024
    await call("read_file", path="big")


async def test_a_binary_file_is_not_read(call, files):
    files.files["b"] = b"\xff\xfe"
    with pytest.raises(InvalidRequestError, match="not a UTF-8 text file but image/png"):
        await call("read_file", path="b")


async def test_a_file_is_written_but_not_over_another(call, files):
    await call("write_file", path="b.txt", text="grüße", overwrite=False)
    assert files.files["b.txt"] == "grüße".encode()
    with pytest.raises(AlreadyExistsError):
        await call("write_file", path="b.txt", text="new", overwrite=False)
    await call("write_file", path="b.txt", text="new", overwrite=True)
    assert files.files["b.txt"] == b"new"


async def test_a_link_is_named_like_the_file(call):
    link = await call("get_file_download_url", path="x/a.txt")
    assert link == LinkResponse(name="a.txt", url="https://files.example/x/a.txt")


async def test_a_file_is_deleted(call, files):
    assert await call("delete_file", path="a.txt") == EmptyResponse()
    assert not files.files


async def test_a_file_of_the_web_is_saved_within_the_limits(call, files, monkeypatch):
    asked = []

    async def fetch(url, **limits):
        asked.append((url, limits))
        return Fetched(data=b"page", mime_type="text/html")

    monkeypatch.setattr(storage, "fetch", fetch)
    await call("save_file_from_url", url="https://example.com", path="p.html", overwrite=False)
    assert files.files["p.html"] == b"page"
    assert asked == [("https://example.com", {"limit": 64 * 1024 * 1024, "timeout": 60.0})]
    with pytest.raises(AlreadyExistsError):
        await call("save_file_from_url", url="https://example.com", path="p.html", overwrite=False)
    assert len(asked) == 1


async def test_our_own_network_is_not_fetched_from(call):
    with pytest.raises(InvalidRequestError, match="public internet"):
        await call("save_file_from_url", url="http://169.254.169.254/latest", path="p", overwrite=True)
