"""A stand-in for a model hub on loopback: as much of its protocol as uploading and downloading need."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlparse

SHA = "0123456789abcdef0123456789abcdef01234567"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    @property
    def files(self):
        return self.server.files

    def _body(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _answer(self, content, status=200, **headers):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_POST(self):
        path, body = urlparse(self.path).path, self._body()
        self.server.tokens.append(self.headers.get("Authorization"))
        base = f"http://{self.headers['Host']}"
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = "/".join(filter(None, (asked.get("organization"), asked["name"])))
            self.files.setdefault(name, {})
            self._answer({"url": f"{base}/{name}", "id": name, "name": name})
        elif path.endswith("/preupload/main"):
            asked = json.loads(body)["files"]
            rows = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in asked]
            self._answer({"files": rows})
        elif path.endswith("/commit/main"):
            name = path.removeprefix("/api/models/").removesuffix("/commit/main")
            for line in body.splitlines():
                row = json.loads(line)
                if row["key"] == "file":
                    self.files[name][row["value"]["path"]] = base64.b64decode(row["value"]["content"])
            url = f"{base}/{name}/commit/{SHA}"
            self._answer({"commitUrl": url, "commitOid": SHA, "hookOutput": "", "success": True})
        else:
            self._answer({"errors": [], "warnings": []})

    def do_GET(self):
        path = unquote(urlparse(self.path).path).strip("/")
        if path.startswith("api/models/"):
            name = "/".join(path.split("/")[2:4])
            if name not in self.files:
                code = {"X_Error_Code": "RepoNotFound", "X_Error_Message": "Repository not found"}
                return self._answer({"error": "Repository not found"}, 404, **code)
            if "/tree/" in path:
                rows = [
                    {"type": "file", "path": k, "size": len(v), "oid": hashlib.sha1(v).hexdigest()}
                    for k, v in self.files[name].items()
                ]
                return self._answer(rows)
            siblings = [{"rfilename": file} for file in self.files[name]]
            return self._answer({"id": name, "modelId": name, "sha": SHA, "siblings": siblings, "tags": []})
        owner, name, kind, _, *rest = path.split("/")
        content = self.files.get(f"{owner}/{name}", {}).get("/".join(rest)) if kind == "resolve" else None
        if content is None:
            return self._answer({"error": "Entry not found"}, 404, X_Error_Code="EntryNotFound")
        tag = f'"{hashlib.sha1(content).hexdigest()}"'
        return self._answer(content, ETag=tag, X_Repo_Commit=SHA, Content_Type="application/octet-stream")

    do_HEAD = do_GET


@contextmanager
def hub():
    """The running server; `files` is {repository: {path: bytes}}, `tokens` what it was asked with."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.files, server.tokens = {}, []
    server.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
