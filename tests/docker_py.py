"""The daemon as docker-py sees it: what its users do, against one daemon in private namespaces.

Usage: docker_py.py BOXSHIP IMAGES_DIRECTORY
"""

import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import unittest

import docker
from docker import errors, types

BOXSHIP, IMAGES = sys.argv[1:3]


class Engine:
    """One daemon for all tests; each test removes what it makes."""

    def __init__(self):
        self.root = tempfile.mkdtemp(prefix="bxp")
        self.socket = os.path.join(self.root, "s")
        self.log = open(os.path.join(self.root, "log"), "wb")
        self.process = subprocess.Popen(
            [BOXSHIP, "daemon", "-H", "unix://" + self.socket,
             "--data-root", os.path.join(self.root, "d"), "--exec-root", os.path.join(self.root, "r"),
             "--pidfile", os.path.join(self.root, "pid"), "--config-file", self.config(),
             "--cgroup-parent", "/boxship-test-py-%d" % os.getpid()],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        deadline = time.monotonic() + 20
        while True:
            try:
                self.client = docker.DockerClient("unix://" + self.socket, timeout=60)
                self.client.ping()
                break
            except Exception:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    sys.exit("the daemon did not start:\n" + open(self.log.name).read())
                time.sleep(0.02)
        with open(os.path.join(IMAGES, "busybox.tar"), "rb") as archive:
            self.client.images.load(archive)

    def config(self):
        path = os.path.join(self.root, "daemon.json")
        with open(path, "w") as file:
            file.write("{}")
        return path

    def stop(self):
        self.client.close()
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(20)
        shutil.rmtree(self.root, ignore_errors=True)
        return code


ENGINE = Engine()


class Case(unittest.TestCase):
    def setUp(self):
        self.client = ENGINE.client
        self.api = ENGINE.client.api

    def tearDown(self):
        for container in self.client.containers.list(all=True):
            container.remove(force=True, v=True)

    def run_(self, command, **options):
        return self.client.containers.run("busybox", command, **options)

    def detached(self, command="sleep 1000", **options):
        return self.run_(command, detach=True, **options)


class System(Case):
    def test_ping_version_info(self):
        self.assertTrue(self.client.ping())
        self.assertEqual(self.client.version()["ApiVersion"], "1.51")
        self.assertEqual(self.client.info()["OSType"], "linux")
        self.assertIn("Containers", self.client.df())

    def test_events(self):
        since = int(time.time()) - 1
        self.run_("true", name="told", remove=False)
        until = int(time.time()) + 1
        seen = [event["Action"] for event in self.client.events(since=since, until=until, decode=True,
                filters={"container": "told"})]
        self.assertEqual([action for action in seen if action != "attach"], ["create", "start", "die"])


class Containers(Case):
    def test_run_returns_output(self):
        self.assertEqual(self.run_("echo hello", remove=True), b"hello\n")

    def test_run_reports_failure(self):
        with self.assertRaises(errors.ContainerError) as caught:
            self.run_(["sh", "-c", "echo why >&2; exit 3"], remove=True)
        self.assertEqual(caught.exception.exit_status, 3)
        self.assertIn(b"why", caught.exception.stderr)

    def test_absent_image_and_command(self):
        with self.assertRaises(errors.APIError):
            self.client.containers.create("absent", "true")
        with self.assertRaises(errors.APIError) as caught:
            self.run_("nosuch")
        self.assertIn("executable file not found", str(caught.exception))

    def test_lifecycle(self):
        container = self.detached(name="life", labels={"a": "b"}, environment={"K": "V"})
        self.assertEqual(container.status, "created")
        container.reload()
        self.assertEqual((container.status, container.labels["a"]), ("running", "b"))
        self.assertIn("K=V", container.attrs["Config"]["Env"])
        container.pause()
        container.reload()
        self.assertEqual(container.status, "paused")
        container.unpause()
        container.rename("other")
        container.update(mem_limit="128m", memswap_limit="256m")
        self.assertEqual(self.client.containers.get("other").attrs["HostConfig"]["Memory"], 128 << 20)
        container.restart(timeout=0)
        container.stop(timeout=0)
        self.assertEqual(container.wait()["StatusCode"], 137)
        container.start()
        container.kill()
        container.wait()
        container.remove()
        with self.assertRaises(errors.NotFound):
            self.client.containers.get("other")

    def test_name_conflict(self):
        self.detached(name="taken")
        with self.assertRaises(errors.APIError) as caught:
            self.detached(name="taken")
        self.assertEqual(caught.exception.status_code, 409)

    def test_list_filters(self):
        self.detached(name="one", labels=["x"])
        self.run_("true", name="two")
        names = lambda **options: sorted(c.name for c in self.client.containers.list(**options))
        self.assertEqual(names(), ["one"])
        self.assertEqual(names(all=True), ["one", "two"])
        self.assertEqual(names(all=True, filters={"label": "x"}), ["one"])
        self.assertEqual(names(filters={"status": "exited"}), ["two"])

    def test_logs(self):
        container = self.detached(["sh", "-c", "echo out; echo err >&2"])
        container.wait()
        self.assertEqual(container.logs(), b"out\nerr\n")
        self.assertEqual(container.logs(stderr=False), b"out\n")
        self.assertEqual(container.logs(tail=1), b"err\n")
        follower = self.detached(["sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.1; done"])
        self.assertEqual(b"".join(follower.logs(stream=True, follow=True)), b"1\n2\n3\n")

    def test_attach(self):
        container = self.client.containers.create("busybox", ["sh", "-c", "echo first; echo second"])
        stream = container.attach(stream=True, logs=True)
        container.start()
        self.assertEqual(b"".join(stream), b"first\nsecond\n")

    def test_attach_socket(self):
        container = self.client.containers.create("busybox", "cat", stdin_open=True)
        container.start()
        socket = container.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
        socket._sock.sendall(b"echo\n")
        self.assertEqual(socket._sock.recv(64)[8:], b"echo\n")
        socket.close()

    def test_top_stats_diff(self):
        container = self.detached(["sh", "-c", "touch /made; exec sleep 1000"])
        self.assertIn("sleep 1000", str(container.top()["Processes"]))
        self.assertGreater(container.stats(stream=False)["memory_stats"]["usage"], 0)
        deadline = time.monotonic() + 10
        while {"Path": "/made", "Kind": 1} not in (container.diff() or []):
            self.assertLess(time.monotonic(), deadline)

    def test_exec(self):
        container = self.detached()
        self.assertEqual(tuple(container.exec_run("echo inside")), (0, b"inside\n"))
        self.assertEqual(container.exec_run("sh -c 'exit 5'").exit_code, 5)
        code, (out, err) = container.exec_run(["sh", "-c", "echo o; echo e >&2"], demux=True)
        self.assertEqual((code, out, err), (0, b"o\n", b"e\n"))
        self.assertIn(b"A=1", container.exec_run("env", environment={"A": "1"}).output)
        self.assertEqual(container.exec_run("id -u", user="65534").output, b"65534\n")
        self.assertEqual(container.exec_run("pwd", workdir="/tmp").output, b"/tmp\n")
        socket = container.exec_run("cat", stdin=True, socket=True).output
        socket._sock.sendall(b"x\n")
        self.assertEqual(socket._sock.recv(64)[8:], b"x\n")
        socket.close()

    def test_host_config(self):
        directory = tempfile.mkdtemp(dir=ENGINE.root)
        os.chmod(directory, 0o755)
        with open(os.path.join(directory, "f"), "w") as file:
            file.write("bound")
        output = self.run_(["sh", "-c", "cat /m/f; id -u; hostname; cat /proc/self/limits | grep 'open files'"],
                           volumes={directory: {"bind": "/m", "mode": "ro"}}, user="1000", hostname="named",
                           ulimits=[types.Ulimit(name="nofile", soft=321, hard=321)], mem_limit="64m",
                           tmpfs={"/t": "size=1m"}, remove=True, network_mode="none")
        self.assertEqual(output.split()[:3], [b"bound1000", b"named", b"Max"])
        self.assertIn(b"321", output)

    def test_wait_removed_and_auto_remove(self):
        container = self.detached("sleep 0.3", auto_remove=True)
        container.wait(condition="removed")
        with self.assertRaises(errors.NotFound):
            self.client.containers.get(container.id)

    def test_prune(self):
        self.run_("true", name="gone")
        self.assertEqual(len(self.client.containers.prune()["ContainersDeleted"]), 1)

    def test_parallel(self):
        problems = []

        def one():
            try:
                client = docker.DockerClient("unix://" + ENGINE.socket)
                assert client.containers.run("busybox", "echo x", remove=True) == b"x\n"
                client.close()
            except Exception as problem:
                problems.append(problem)

        threads = [threading.Thread(target=one) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(problems, [])


class Images(Case):
    def test_list_inspect_history_tag_remove(self):
        image = self.client.images.get("busybox")
        self.assertIn("busybox:latest", image.tags)
        self.assertTrue(image.history())
        self.assertTrue(image.tag("mine", "1"))
        self.assertEqual(len(self.client.images.list("mine")), 1)
        self.client.images.remove("mine:1")
        with self.assertRaises(errors.ImageNotFound):
            self.client.images.get("mine:1")

    def test_save_and_load(self):
        self.client.images.get("busybox").tag("saved", "1")
        archive = b"".join(self.client.images.get("saved:1").save(named=True))
        self.assertIn("manifest.json", tarfile.open(fileobj=io.BytesIO(archive)).getnames())
        self.client.images.remove("saved:1")
        loaded = self.client.images.load(archive)
        self.assertEqual(loaded[0].id, self.client.images.get("busybox").id)

    def test_import(self):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            entry = tarfile.TarInfo("f")
            entry.size = 2
            tar.addfile(entry, io.BytesIO(b"hi"))
        self.api.import_image_from_data(buffer.getvalue(), repository="imported", tag="1")
        self.client.images.remove("imported:1")


class Networks(Case):
    def test_defaults_are_listed(self):
        self.assertEqual({n.name for n in self.client.networks.list()}, {"bridge", "host", "none"})


if __name__ == "__main__":
    result = unittest.TextTestRunner(verbosity=2).run(unittest.defaultTestLoader.loadTestsFromModule(sys.modules["__main__"]))
    code = ENGINE.stop()
    bad = len(result.failures) + len(result.errors) + (1 if code else 0)
    print("%d passed, %d failed, %d skipped" % (result.testsRun - len(result.failures) - len(result.errors) - len(result.skipped), bad, len(result.skipped)))
    sys.exit(1 if bad else 0)
