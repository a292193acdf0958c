"""Fetch the browser runtime anew, for maintainers: ``python -m tokenmix.web.vendor``.

It needs npm, a network, and the Python package onnxruntime for the texts of licences. The files are onnxruntime-web's
(MIT, Microsoft Corporation): a module, and one WebAssembly binary that computes on the CPU with SIMD and on WebGPU. The
binary is kept compressed. The tarball must have the pinned hash.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import lzma
import subprocess
import tarfile
import tempfile
from pathlib import Path

from tokenmix.files import atomic_path

VERSION = "1.30.0"
INTEGRITY = "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
FOLDER = Path(__file__).parent / "vendor"
KEPT = ("ort.webgpu.min.mjs", "ort-wasm-simd-threaded.asyncify.mjs")
COMPRESSED = ("ort-wasm-simd-threaded.asyncify.wasm",)


def main() -> None:
    """Write ``vendor/``.

    Raises:
        ValueError: The tarball is not the pinned one.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", "--silent", f"onnxruntime-web@{VERSION}", "--pack-destination", folder]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        (packed,) = Path(folder).glob("*.tgz")
        found = "sha512-" + base64.b64encode(hashlib.sha512(packed.read_bytes()).digest()).decode()
        if found != INTEGRITY:
            raise ValueError(f"the tarball has the hash {found}, not the pinned {INTEGRITY}")
        with tarfile.open(packed) as archive:
            members = {name: archive.extractfile(f"package/dist/{name}") for name in (*KEPT, *COMPRESSED)}
            content = {name: file.read() for name, file in members.items() if file is not None}
    for name in KEPT:
        _write(name, content[name])
    for name in COMPRESSED:
        _write(f"{name}.xz", lzma.compress(content[name], preset=9 | lzma.PRESET_EXTREME))
    # The npm package has no texts of licences; the Python package of the same project has.
    distribution = importlib.metadata.distribution("onnxruntime")
    notices = Path(str(distribution.locate_file("onnxruntime/ThirdPartyNotices.txt"))).read_bytes()
    _write("onnxruntime-LICENSE.txt", Path(str(distribution.locate_file("onnxruntime/LICENSE"))).read_bytes())
    _write("onnxruntime-ThirdPartyNotices.txt.xz", lzma.compress(notices, preset=9))
    lines = [f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in content.items()]
    _write("onnxruntime-SHA256SUMS.txt", "".join(lines).encode())


def _write(name: str, content: bytes) -> None:
    with atomic_path(FOLDER / name) as temporary:
        temporary.write_bytes(content)


if __name__ == "__main__":
    main()
