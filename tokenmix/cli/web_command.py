"""Run an exported model in your own browser: a page with a picture, the answer, the latency and what the filters do."""

from __future__ import annotations

import argparse
import shlex
import webbrowser

from tokenmix.argument_types import whole
from tokenmix.web import PageServer, page_files, write_page
from tokenmix_runtime.terminal import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``tokenmix web``."""
    add = parser.add_argument
    add("model", metavar="MODEL.onnx", help="an ONNX file that `tokenmix export` wrote")
    add("--port", type=whole("port"), default=8710, help="0 takes a free one (default: %(default)s)")
    add("--host", default="127.0.0.1", help="address to listen on (default: %(default)s, this machine alone)")
    add("--out", metavar="DIR", help="write the page as static files instead of serving it")
    add("--open", action="store_true", help="open the page in the default browser")


def run(args: argparse.Namespace) -> None:
    """Write the page, or serve it until Ctrl-C."""
    if args.out is not None and args.open:
        raise ValueError("--open needs a server: leave out --out")
    files = page_files(args.model)
    if args.out is not None:
        write_page(files, args.out)
        size = sum(map(len, files.values())) / 1e6
        say(f"{args.out}: {len(files)} files, {size:.1f} MB, for any static web server (the camera needs https)")
        say(f"look at it here: python -m http.server --bind 127.0.0.1 --directory {shlex.quote(args.out)}")
        return
    with PageServer(files, args.host, args.port) as server:
        say(f"{server.url}  (Ctrl-C ends it)", flush=True)
        if args.open:
            webbrowser.open(server.url)
        server.serve_forever()
