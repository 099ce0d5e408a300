"""A small stand-in of the Hugging Face hub: repositories in memory, requests that are counted, faults on demand."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


class Hub(ThreadingHTTPServer):
    """Serves `repositories`: the bytes of files by path, by `models/ORG/NAME` or `datasets/ORG/NAME`.

    A repository's commit follows from its files, and `main` is its only branch. The first of `faults` whose pattern is
    found in `METHOD PATH` applies: `status` and `code` answer with an error, `delay` waits so many seconds, `cut` ends
    the connection after so many bytes, `flip` changes the last byte.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server_port}"
        self.repositories, self.faults, self.requests = {}, {}, []

    def __enter__(self):
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()

    def commit(self, name):
        told = {path: hashlib.sha256(content).hexdigest() for path, content in self.repositories[name].items()}
        return hashlib.sha1(json.dumps(told, sort_keys=True).encode()).hexdigest()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        if path == "/api/agent-harnesses":  # huggingface_hub looks for a list of programs that use it
            self.answer(404, b"", {})
            return
        self.server.requests.append(f"{self.command} {path}")
        self.fault = next((f for p, f in self.server.faults.items() if re.search(p, f"{self.command} {path}")), {})
        time.sleep(self.fault.get("delay", 0))
        if "status" in self.fault:
            self.refuse(self.fault["status"], self.fault.get("code", ""))
        elif found := re.match(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self.file(f"{found[1] or 'models/'}{found[2]}", found[3], found[4])
        elif found := re.match(r"/api/((?:models|datasets)/[^/]+/[^/]+)(?:/(revision|tree)/([^/]+)(?:/(.+))?)?$", path):
            self.information(*found.groups())
        else:
            self.refuse(404, "")

    do_HEAD = do_GET  # noqa: N815  http.server calls it so

    def known(self, name, revision):
        if name not in self.server.repositories:
            self.refuse(401, "RepoNotFound")
        elif revision not in ("main", self.server.commit(name)):
            self.refuse(404, "RevisionNotFound")
        else:
            return True
        return False

    def file(self, name, revision, path):
        if not self.known(name, revision):
            return
        files, headers = self.server.repositories[name], {"X-Repo-Commit": self.server.commit(name)}
        if path not in files:
            self.refuse(404, "EntryNotFound", headers)
            return
        content = files[path]
        headers["ETag"] = f'"{hashlib.sha256(content).hexdigest()}"'
        if self.fault.get("flip"):
            content = content[:-1] + bytes([content[-1] ^ 1])
        if asked := re.match(r"bytes=(\d+)-", self.headers.get("Range", "")):
            headers["Content-Range"] = f"bytes {asked[1]}-{len(content) - 1}/{len(content)}"
            self.answer(206, content[int(asked[1]) :], headers)
        else:
            self.answer(200, content, headers)

    def information(self, name, what, revision, folder):
        if not self.known(name, revision or "main"):
            return
        files = self.server.repositories[name]
        if what == "tree":
            start = f"{folder}/" if folder else ""
            inside = [path for path in files if path.startswith(start)]
            names = {path: path.removeprefix(start) for path in inside}
            folders = sorted({start + name.partition("/")[0] for name in names.values() if "/" in name})
            told = [{"type": "directory", "oid": "0" * 40, "size": 0, "path": path} for path in folders]
            told += [
                {"type": "file", "oid": "0" * 40, "size": len(files[path]), "path": path}
                for path, name in names.items()
                if "/" not in name
            ]
        else:
            siblings = [{"rfilename": path} for path in files]
            told = {"id": name.partition("/")[2], "sha": self.server.commit(name), "siblings": siblings}
        self.answer(200, json.dumps(told).encode(), {"Content-Type": "application/json"})

    def refuse(self, status, code, headers=None):
        self.answer(status, b"{}", {**(headers or {}), **({"X-Error-Code": code} if code else {})})

    def answer(self, status, content, headers):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        cut = self.fault.get("cut") if status < 400 else None
        self.wfile.write(content if cut is None else content[:cut])
        self.close_connection = self.close_connection or cut is not None

    def log_message(self, *_):
        pass
