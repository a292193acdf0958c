"""The page's files and their server: what is served to whom, and what is said about files that are no model of ours."""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from tests import web_models
from tokenmix.cli import main
from tokenmix.mixers import FourierOperator
from tokenmix.web import PageServer, page_files, write_page
from tokenmix.web.masks import add_masks

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("web") / "model.onnx"
    web_models.write(web_models.toy(), path)
    return path


@pytest.fixture(scope="module")
def files(model: Path) -> dict[str, bytes]:
    return page_files(model)


@pytest.fixture(scope="module")
def server(files: dict[str, bytes]) -> Iterator[PageServer]:
    with PageServer(files) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def ask(
    server: PageServer, path: str = "/", method: str = "GET", **headers: str
) -> tuple[http.client.HTTPResponse, bytes]:
    """One request, its path sent as it stands."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.putrequest(method, path, skip_host="host" in headers)
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders()
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response, content


def test_serves_its_files_with_their_types(server: PageServer, files: dict[str, bytes]) -> None:
    kinds = {"html": "text/html", "css": "text/css", "js": "text/javascript", "mjs": "text/javascript"}
    kinds |= {"wasm": "application/wasm", "json": "application/json", "png": "image/png", "txt": "text/plain"}
    kinds |= {"onnx": "application/octet-stream"}
    for name, content in files.items():
        response, got = ask(server, f"/{name}")
        assert (response.status, got) == (200, content)
        assert response.getheader("Content-Type", "").split(";")[0] == kinds[name.rsplit(".", 1)[1]], name
    assert ask(server)[1] == ask(server, "/?from=elsewhere")[1] == files["index.html"]


def test_every_answer_carries_the_security_headers(server: PageServer) -> None:
    for path in ("/", "/nothing"):
        response, _ = ask(server, path)
        policy = response.getheader("Content-Security-Policy", "")
        assert "default-src 'none'" in policy
        assert "script-src 'self' 'wasm-unsafe-eval'" in policy
        assert "unsafe-inline" not in policy
        assert response.getheader("X-Content-Type-Options") == "nosniff"
        assert response.getheader("Referrer-Policy") == "no-referrer"
        assert response.getheader("Cross-Origin-Resource-Policy") == "same-origin"
    # For static hosts the page brings its own policy: the same, but for what only a header can say.
    own = ask(server)[1].decode()
    assert policy.replace("; frame-ancestors 'none'", "") in own


def test_knows_what_a_browser_already_has(server: PageServer) -> None:
    tag = ask(server, "/model.onnx")[0].getheader("ETag", "")
    response, content = ask(server, "/model.onnx", If_None_Match=tag)
    assert (response.status, content) == (304, b"")
    assert ask(server, "/model.onnx", If_None_Match='"other"')[0].status == 200


def test_head_has_no_body_and_other_methods_are_refused(server: PageServer, files: dict[str, bytes]) -> None:
    response, content = ask(server, "/model.onnx", "HEAD")
    assert (response.status, content) == (200, b"")
    assert response.getheader("Content-Length") == str(len(files["model.onnx"]))
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE", "BREW"):
        response, _ = ask(server, "/", method)
        assert response.status == 405, method
        assert response.getheader("Allow") == "GET, HEAD"


@pytest.mark.parametrize(
    "path",
    [
        "/../pyproject.toml",
        "/..%2f..%2fetc%2fpasswd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/....//etc/passwd",
        "/static/../index.html",
        "//etc/passwd",
        "/model.onnx%00.png",
        "/model.onnx/",
        "/%ff%fe",
        "/server.py",
        "/static",
        "etc/passwd",
    ],
)
def test_no_path_leads_elsewhere(server: PageServer, path: str) -> None:
    response, content = ask(server, path)
    assert response.status == 404
    assert content == b"404 Not Found\n"


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:{port}", "127.0.0.1.evil.example:{port}", "10.0.0.1:{port}", "0.0.0.0:{port}"),
        *("127.0.0.1", "127.0.0.1:1", "user@127.0.0.1:{port}", "", "localhost:{port}:1", "[::1"),
    ],
)
def test_foreign_hosts_are_refused(server: PageServer, host: str) -> None:
    response, content = ask(server, host=host.format(port=server.server_port))
    assert response.status == 421
    assert b"evil" not in content


def test_a_request_must_name_one_host(server: PageServer) -> None:
    port = server.server_port
    for lines in ("", f"Host: 127.0.0.1:{port}\r\nHost: evil.example\r\n"):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(f"GET / HTTP/1.1\r\n{lines}Connection: close\r\n\r\n".encode())
            assert b" 421 " in connection.makefile("rb").readline()


def test_this_machine_has_several_names(server: PageServer) -> None:
    for name in ("127.0.0.1", "localhost", "LOCALHOST", "127.0.0.2", "[::1]"):
        assert ask(server, host=f"{name}:{server.server_port}")[0].status == 200, name


def test_open_to_the_network_it_answers_to_addresses_only(files: dict[str, bytes]) -> None:
    with PageServer(files, "0.0.0.0") as server:
        assert server.url == f"http://127.0.0.1:{server.server_port}/"
        assert server.knows(f"192.0.2.7:{server.server_port}")
        assert not server.knows(f"evil.example:{server.server_port}")


@pytest.mark.parametrize("host", ["::1", "::"])
def test_it_listens_on_ipv6_too(files: dict[str, bytes], host: str) -> None:
    try:
        socket.socket(socket.AF_INET6).close()
        server = PageServer(files, host)
    except (OSError, ValueError):
        pytest.skip("this machine has no IPv6")
    with server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert server.url == f"http://[::1]:{server.server_port}/"
        connection = http.client.HTTPConnection("::1", server.server_port, timeout=10)
        connection.request("GET", "/")
        assert connection.getresponse().read() == files["index.html"]
        connection.close()
        server.shutdown()


def test_a_slow_reader_that_never_pauses_gets_it_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of silence is over several times before the answer is read."""
    monkeypatch.setattr("tokenmix.web.server._Handler.timeout", 0.3)
    content = bytes(16 << 20)
    with PageServer({"index.html": content}) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with socket.create_connection(("127.0.0.1", server.server_port), timeout=10) as connection:
            host = f"127.0.0.1:{server.server_port}"
            connection.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            got = 0
            while part := connection.recv(1 << 18, socket.MSG_WAITALL):
                got += len(part)
                time.sleep(0.015)
        server.shutdown()
    assert got > len(content)


def test_broken_requests_do_not_stop_the_server(server: PageServer) -> None:
    for sent in (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"G" * 70000):
        with socket.create_connection(("127.0.0.1", server.server_port), timeout=10) as connection:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            assert b"Traceback" not in connection.makefile("rb").read()
    assert ask(server)[0].status == 200


def test_a_port_in_use_or_out_of_range_is_said(files: dict[str, bytes], server: PageServer) -> None:
    with pytest.raises(
        ValueError, match=f"port {server.server_port} of 127.0.0.1 is in use: choose another with --port"
    ):
        PageServer(files, port=server.server_port)
    with pytest.raises(ValueError, match="port must be from 0 to 65535, not 70000"):
        PageServer(files, port=70000)
    with pytest.raises(ValueError, match=r"cannot listen on no\.such\.host\.invalid"):
        PageServer(files, "no.such.host.invalid")


def test_the_runtime_is_the_pinned_one(files: dict[str, bytes]) -> None:
    sums = files["onnxruntime-SHA256SUMS.txt"].decode().split("\n")[:-1]
    assert len(sums) == 3
    for line in sums:
        digest, name = line.split("  ")
        assert hashlib.sha256(files[name]).hexdigest() == digest
    assert files["onnxruntime-LICENSE.txt"].startswith(b"MIT License")
    assert files["onnxruntime-ThirdPartyNotices.txt"]


def test_no_file_of_the_page_names_another_host(files: dict[str, bytes]) -> None:
    for name, content in files.items():
        if name.endswith((".js", ".html", ".css")):
            assert b"//" not in content.replace(b"// ", b"").replace(b"http://www.w3.org/2000/svg", b""), name


def test_samples_are_pictures(files: dict[str, bytes]) -> None:
    names = json.loads(files["model.json"])["samples"]
    assert len(names) == 3
    for name in names:
        Image.open(io.BytesIO(files[name])).verify()


def test_masks_are_what_the_mixers_multiply_with(files: dict[str, bytes]) -> None:
    runtime = pytest.importorskip("onnxruntime")
    masks = json.loads(files["model.json"])["masks"]
    assert [(mask["layer"], mask["kind"]) for mask in masks] == [("filter", "fourier"), ("spectrum", "cosine")]
    toy, x = web_models.toy(), torch.randn(1, 3, *web_models.SIZE)
    session = runtime.InferenceSession(files["model.onnx"], providers=["CPUExecutionProvider"])
    logits, fourier, cosine = session.run(None, {"image": x.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(logits, toy(x), atol=1e-4)
        inner = toy.stem(x)
        np.testing.assert_allclose(fourier, toy.filter.slots(inner)["act"].value.abs().mean(1), atol=1e-4)
        # Gates of the cosine spectrum multiply it: with a constant local part they are the quotient of the spectra.
        spectrum, after = _spectra(toy, inner + toy.filter(inner))
    np.testing.assert_allclose(cosine, (after / spectrum).mean(1), rtol=5e-3)


def _spectra(toy: Any, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The cosine spectrum of DSM's value before and after its gates, float64, by SciPy."""
    fft = pytest.importorskip("scipy.fft")
    mixer = toy.spectrum.double()
    seen: list[torch.Tensor] = []
    hook = mixer.out.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    mixer(x.double())
    hook.remove()
    value = mixer.value(x.double())
    pair = (value, seen[0] - mixer.local(value))
    return tuple(torch.from_numpy(fft.dctn(part.numpy(), axes=(-2, -1), norm="ortho")) for part in pair)  # type: ignore[return-value]


def test_other_mixers_have_no_masks(tmp_path: Path) -> None:
    class Gated(torch.nn.Module):
        """Sigmoids, a softmax, a clamp and a difference that are no masks."""

        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 7, 3)
            self.linear = torch.nn.Linear(7, 7)
            self.transform = FourierOperator(7)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.transform(self.conv(x))  # its soft-shrink makes a spectrum, no mask
            y = torch.nn.functional.silu(y) * torch.sigmoid(self.linear(y.mean((2, 3))))[:, :, None, None]
            z = y.clamp(-1, 1).mean((2, 3))
            return z.softmax(1) * z - self.linear(z).clamp(-1, 1)

    web_models.write(Gated().eval(), tmp_path / "model.onnx")
    assert add_masks(onnx.load(tmp_path / "model.onnx")) == []


def test_the_manifest_beside_the_file_adds_its_errors(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(model.read_bytes())
    errors = {"images": 4, "max_error": 1e-6, "relative_error": 2e-6}
    entry = {
        "file": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "errors": errors,
        "precision": "fp32",
    }
    content = {item.key: json.loads(item.value) for item in onnx.load(path).metadata_props}
    (tmp_path / "model.json").write_text(json.dumps({**content, "files": {"onnx": entry}}))
    manifest = json.loads(page_files(path)["model.json"])
    assert manifest["errors"] == errors
    (tmp_path / "model.json").write_text(json.dumps({**content, "files": {"onnx": {**entry, "sha256": "0" * 64}}}))
    with pytest.raises(ValueError, match=r"model\.onnx is not the file that model\.json describes"):
        page_files(path)
    for wrong in ({"relative_error": "x"}, {"max_error": None}, 5):
        (tmp_path / "model.json").write_text(json.dumps({**content, "files": {"onnx": {**entry, "errors": wrong}}}))
        assert "errors" not in json.loads(page_files(path)["model.json"])  # the page would not start
    (tmp_path / "model.json").write_text("[1, 2]")
    assert "errors" not in json.loads(page_files(path)["model.json"])


def _broken(path: Path, model: Path, how: str) -> None:
    content = model.read_bytes()
    proto = onnx.load_model_from_string(content)
    manifest = {entry.key: json.loads(entry.value) for entry in proto.metadata_props}
    if how == "truncated":
        path.write_bytes(content[: len(content) // 2])
        return
    if how == "empty":
        path.write_bytes(b"")
        return
    if how == "text":
        path.write_text("hello\n")
        return
    if how == "foreign":
        manifest = {}
    elif how == "no JSON":
        proto.metadata_props[0].value = "{"
        path.write_bytes(proto.SerializeToString())
        return
    elif how == "newer":
        manifest["schema"] = "tokenmix.model/3"
    elif how == "outputs":
        manifest["outputs"][0]["name"] = "other"
    elif how == "task":
        manifest["postprocess"]["kind"] = "translate"
    else:
        del manifest[how]
    web_models.set_manifest(proto, manifest)
    path.write_bytes(proto.SerializeToString())


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("truncated", r"bad\.onnx is damaged or no ONNX file .*tokenmix export MODEL --to onnx"),
        ("empty", r"bad\.onnx is damaged or no ONNX file"),
        ("text", r"bad\.onnx is damaged or no ONNX file"),
        ("foreign", r"bad\.onnx has no manifest of tokenmix inside: write the file with tokenmix export"),
        ("no JSON", r"the manifest inside .*bad\.onnx is damaged"),
        ("newer", r"bad\.onnx was written by a newer tokenmix \(tokenmix\.model/3\): update this one"),
        ("outputs", r"bad\.onnx is that of another graph \(image, other, and the file has image, logits\): export"),
        ("preprocess", r"the manifest inside .*bad\.onnx lacks 'preprocess': export the model again"),
        ("task", r"the manifest inside .*bad\.onnx is wrong \(postprocess\.kind is 'translate'\): export"),
    ],
)
def test_bad_models_are_named_on_one_line(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], how: str, message: str
) -> None:
    path = tmp_path / "bad.onnx"
    _broken(path, model, how)
    with pytest.raises(ValueError, match=message):
        page_files(path)
    assert main(["web", str(path), "--out", str(tmp_path / "page")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("tokenmix web: error: ")
    assert error.count("\n") == 1
    assert not (tmp_path / "page").exists()


def test_a_run_or_checkpoint_gets_the_line_that_exports_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "best.safetensors").write_bytes(b"")
    for name in ("run", "best.safetensors"):
        assert main(["web", str(tmp_path / name)]) == 2
        assert f"tokenmix export {tmp_path / name} --to onnx --out model.onnx" in capsys.readouterr().err
    assert main(["web", str(tmp_path / "none.onnx")]) == 2
    assert "no such file" in capsys.readouterr().err


def test_static_files_are_those_that_are_served(
    model: Path, files: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "deep" / "page"
    for _ in range(2):  # an earlier page is replaced
        assert main(["web", str(model), "--out", str(out)]) == 0
    told = capsys.readouterr().out
    assert f"{out}: {len(files)} files" in told
    assert f"http.server --bind 127.0.0.1 --directory {out}\n" in told
    assert {path.name: path.read_bytes() for path in out.iterdir()} == files
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "index.html").write_text("mine")
    with pytest.raises(ValueError, match="holds other files: name a new folder with --out"):
        write_page(files, tmp_path / "mine")
    export = tmp_path / "export"  # whose manifest is called as a page's
    export.mkdir()
    shutil.copyfile(model, export / "model.onnx")
    (export / "model.json").write_text('{"schema": "tokenmix.model/2", "files": {}}')
    with pytest.raises(ValueError, match="holds other files: name a new folder with --out"):
        write_page(files, export)
    with pytest.raises(ValueError, match="is a file: name a folder with --out"):
        write_page(files, model)
    assert main(["web", str(model), "--out", str(out), "--open"]) == 2


@pytest.mark.slow
@pytest.mark.parametrize(("how", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_ends_the_command(model: Path, how: signal.Signals, code: int) -> None:
    command = [sys.executable, "-m", "tokenmix", "web", str(model), "--port", "0"]
    with subprocess.Popen(
        command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=-1, stderr=-1, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("http://127.0.0.1:")
        process.send_signal(how)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == code
    assert errors == ("\nstopped\n" if how == signal.SIGINT else "")
