"""A volume plugin of Docker's legacy protocol, for the tests.

Arguments: the socket, the directory of the volumes, the log. The log gets a line for each request.
A file `.control` beside the volumes changes answers: {"Mount": {"answer": {...}, "sleep": 60}}.
What it has, it remembers in `.volumes`.
"""

import http.server
import json
import os
import socketserver
import sys
import time

SOCKET, ROOT, LOG = sys.argv[1:4]


def load(name):
    try:
        with open(os.path.join(ROOT, name)) as file:
            return json.load(file)
    except FileNotFoundError:
        return {}


def save(volumes):
    path = os.path.join(ROOT, ".volumes")
    with open(path + ".new", "w") as file:
        json.dump(volumes, file)
    os.rename(path + ".new", path)


def answer(method, request):
    volumes = load(".volumes")
    name = request.get("Name", "")
    place = os.path.join(ROOT, name)
    if method == "Activate":
        return {"Implements": ["VolumeDriver"]}
    if method == "Capabilities":
        return {"Capabilities": {"Scope": "global"}}
    if method == "List":
        return {"Volumes": list(volumes.values()), "Err": ""}
    if method == "Create":
        os.makedirs(place, exist_ok=True)
        status = {"opts": request["Opts"]}
        created = "2020-01-02T03:04:05Z"
        volumes[name] = {"Name": name, "CreatedAt": created, "Status": status}
        save(volumes)
        return {"Err": ""}
    if name not in volumes:
        return {"Err": "no such volume here"}
    if method == "Get":
        return {"Volume": dict(volumes[name], Mountpoint=place), "Err": ""}
    if method == "Remove":
        del volumes[name]
        save(volumes)
    if method in ("Mount", "Path"):
        return {"Mountpoint": place, "Err": ""}
    return {"Err": ""}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        method = self.path.split(".")[-1]
        request = json.loads(body or b"{}")
        with open(LOG, "a") as file:
            words = [method, request.get("Name", "-"), request.get("ID", "-")]
            file.write(" ".join(words) + "\n")
        control = load(".control").get(method, {})
        time.sleep(control.get("sleep", 0))
        reply = json.dumps(control.get("answer") or answer(method, request)).encode()
        self.send_response(control.get("status", 200))
        self.send_header("Content-Type", "application/vnd.docker.plugins.v1.1+json")
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True

    def get_request(self):
        request, _ = super().get_request()
        return request, ("local", 0)


os.makedirs(ROOT, exist_ok=True)
os.makedirs(os.path.dirname(SOCKET), exist_ok=True)
if os.path.exists(SOCKET):
    os.unlink(SOCKET)
Server(SOCKET, Handler).serve_forever()
