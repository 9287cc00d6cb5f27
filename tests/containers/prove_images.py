"""Build the images for real where the true base images cannot be had, run them, and compare their answers.

    python tests/containers/prove_images.py aarch64 --jetpack 7.2 --work /var/tmp/prove
    python tests/containers/prove_images.py x86_64 --python ~/.pyenv/versions/3.12.1 --work /var/tmp/prove

Not a pytest module and not in CI: it needs root, a network, up to an hour, and debootstrap, buildah, podman, runc,
catatonit, gnupg, dpkg-dev; for aarch64 also qemu-user-static, registered with binfmt_misc. The base images are stood in
for by a Debian 12 with its Python 3.11 or the interpreter that --python names, NVIDIA's packages by
jetson_repository.py. All else is the Dockerfiles' own: each step, the user, the read-only root, the health check,
SIGTERM. What it proves on aarch64, emulated: the wheels install and import, boothsam doctor passes, one photo's
embedding and masks agree with those of the interpreter that runs this script, and the service answers a POST /crop.
Nothing about GPUs or speed.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import os
import platform
import shlex
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dockerfiles
import jetson_repository
import numpy as np

ROOT = Path(__file__).parents[2]
ARCHITECTURES = {"aarch64": "arm64", "x86_64": "amd64"}
SUITE = "bookworm"
TOKEN = "a-token-for-a-proof"
READY_S = 900  # an emulated processor takes minutes to load and prove the model
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
# As compose.yaml runs it; --network host, so that no firewall is touched.
LOCKED = shlex.split(
    "--network host --read-only --tmpfs /tmp --cap-drop all --security-opt no-new-privileges --no-healthcheck"
    " --ulimit nofile=4096:4096 --ulimit nproc=4096:4096"
)
# ONNX Runtime for aarch64 ends with a segmentation fault when it is shown the emulating machine's /proc/cpuinfo.
CPUINFO = "processor\t: 0\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x0\n"
CPUINFO += "CPU part\t: 0xd42\nCPU revision\t: 1\n\n"  # a Cortex-A78AE, as on Orin
ANSWERS = """
import sys
from pathlib import Path
import boothsam.runtime.demo
import numpy as np
from boothsam.runtime import SamModel, SamPredictor, load_image
photo = load_image(Path(boothsam.runtime.demo.__file__).with_name("coffee.jpg"))
predictor = SamPredictor(SamModel.load(None, backend="ort-cpu"))
predictor.set_image(photo)
point = np.array([[photo.shape[1] / 2, photo.shape[0] / 2]])
masks, scores, _ = predictor.predict(point, np.array([1]), multimask_output=True)
np.savez_compressed(sys.argv[1], embedding=predictor.get_image_embedding(), masks=masks, scores=scores)
"""


def main() -> None:
    """Exit with a message at the first thing that is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("architecture", choices=ARCHITECTURES)
    parser.add_argument("--jetpack", choices=jetson_repository.RELEASES, help="Dockerfile.jetson, not Dockerfile")
    parser.add_argument("--python", type=Path, metavar="PREFIX", help="an interpreter's prefix to copy to /usr/local")
    parser.add_argument("--work", type=Path, required=True, metavar="FOLDER", help="where root file systems are kept")
    parser.add_argument("--podman", default="podman --runtime runc --cgroup-manager cgroupfs", help="its command")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    image = Image(given.architecture, given.jetpack, given.python, given.work, shlex.split(given.podman))
    image.build()
    image.ask_doctor()
    image.compare_answers()
    image.serve()


class Image:
    """One image: how it is made, and what is asked of it."""

    def __init__(self, machine: str, jetpack: str | None, python: Path | None, work: Path, podman: list[str]) -> None:
        self.machine, self.jetpack, self.python, self.work, self.podman = machine, jetpack, python, work, podman
        self.name = f"localhost/boothsam-proof:{machine}-{jetpack or (python.name if python else 'cpu')}"
        self.locked = [*LOCKED]
        if machine != platform.machine():
            (work / "cpuinfo").write_text(CPUINFO)
            self.locked.append(f"--volume={work}/cpuinfo:/proc/cpuinfo:ro")

    def build(self) -> None:
        """Base images under the names that the file asks for, then every step of it."""
        text = (ROOT / ("Dockerfile.jetson" if self.jetpack else "Dockerfile")).read_text()
        arguments = {"JETPACK": self.jetpack} if self.jetpack else {}
        if not self.jetpack:
            version = self.python.name if self.python else "3.11"
            arguments["PYTHON"] = ".".join(version.split(".")[:2])
        rootfs = self._rootfs()
        archive = self.work / f"{rootfs.name}.tar"
        run("tar", "-C", str(rootfs), "-cf", str(archive), ".")
        for base in dockerfiles.parse(text, **arguments).images():
            reference = base if "/" in base else f"docker.io/library/{base}"
            run(*self.podman, "import", "--quiet", "--arch", ARCHITECTURES[self.machine], str(archive), reference)
        # buildah before 1.29 skips the stages that FROM names through an argument.
        (self.work / "Dockerfile").write_text(dockerfiles.expanded(text, **arguments))
        with self._mirror() as mirror:
            options = [f"--build-arg={name}={value}" for name, value in (arguments | mirror).items()]
            (self.work / "pip.conf").write_text(f"[global]\ncert = {CERTIFICATES}\nretries = 5\ntimeout = 180\n")
            mounts = [f"--volume={self.work}/pip.conf:/etc/pip.conf:ro", f"--volume={CERTIFICATES}:{CERTIFICATES}:ro"]
            run(
                "buildah", "bud", "--isolation", "chroot", "--format", "docker", "--layers", "--pull-never",
                "--network", "host", "--arch", ARCHITECTURES[self.machine], "--file", str(self.work / "Dockerfile"),
                *options, *mounts, "--tag", self.name, str(ROOT),
            )  # fmt: skip
        say(f"{self.name} built: {self._inspect('{{.Size}}')} bytes, user {self._inspect('{{.Config.User}}')}")

    def ask_doctor(self) -> None:
        """`boothsam doctor` in the image, on a read-only root without capabilities."""
        say(run(*self.podman, "run", "--rm", *self.locked, self.name, "doctor"))

    def compare_answers(self) -> None:
        """Embedding and masks of one photo, here and in the image."""
        folder = self.work / "answers"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        folder.chmod(0o777)
        (folder / "ask.py").write_text(ANSWERS)
        run(sys.executable, str(folder / "ask.py"), str(folder / "here.npz"))
        mount = ["--volume", f"{folder}:/answers", "--entrypoint", "/opt/boothsam/bin/python"]
        run(*self.podman, "run", "--rm", *self.locked, *mount, self.name, "/answers/ask.py", "/answers/there.npz")
        here, there = (dict(np.load(folder / f"{side}.npz")) for side in ("here", "there"))
        difference = float(np.abs(here["embedding"] - there["embedding"]).max())
        both, either = (f(here["masks"], there["masks"]).sum((1, 2)) for f in (np.logical_and, np.logical_or))
        worst = float((both / either).min())
        say(f"embedding {here['embedding'].shape}: at most {difference:.2e} apart, mask IoU {worst:.6f} or more")
        if difference > 2e-3 or worst < 0.999:
            raise SystemExit("the answers differ by more than rounding does")

    def serve(self) -> None:
        """No start without a token; then the health check, one photo and the end after SIGTERM."""
        refused = subprocess.run([*self.podman, "run", "--rm", *self.locked, self.name], capture_output=True, text=True)
        if refused.returncode == 0 or "BOOTHSAM_TOKEN" not in refused.stderr:
            raise SystemExit(f"without a token it said {refused.stdout}{refused.stderr}")
        container = "boothsam-proof"
        # Emulated, a decoding worker needs longer than 10 s to start.
        settings = {"BOOTHSAM_TOKEN": TOKEN, "BOOTHSAM_PORT": "18765", "BOOTHSAM_DECODE_TIMEOUT_S": "300"}
        environment = [f"--env={name}={value}" for name, value in settings.items()]
        run(*self.podman, "run", "--detach", "--init", "--name", container, *self.locked, *environment, self.name)
        try:
            started = time.monotonic()
            check = [*self.podman, "exec", container, *self._health_check()]
            said = []
            while (found := subprocess.run(check, capture_output=True, text=True)).returncode:
                said.append(found.stdout.strip())
                if time.monotonic() - started > READY_S:
                    raise SystemExit(f"not healthy after {READY_S} s: {said}")
                time.sleep(1)
            say(f"healthy after {time.monotonic() - started:.0f} s: {found.stdout.strip()}; before that: {set(said)}")
            say(f"one POST /crop: {crop('http://127.0.0.1:18765/crop')}")
            run(*self.podman, "stop", "--time", "60", container)
            say(f"after SIGTERM: exit status {self._inspect('{{.State.ExitCode}}', container)}")
            say(run(*self.podman, "logs", container, merged=True))
        finally:
            subprocess.run([*self.podman, "rm", "--force", "--volumes", container], capture_output=True)

    def _health_check(self) -> list[str]:
        text = (ROOT / ("Dockerfile.jetson" if self.jetpack else "Dockerfile")).read_text()
        words = dockerfiles.exec_form(dockerfiles.parse(text).final("HEALTHCHECK")[-1])
        assert words is not None
        return words

    def _inspect(self, template: str, of: str = "") -> str:
        return run(*self.podman, "inspect", "--format", template, of or self.name).strip()

    def _rootfs(self) -> Path:
        """A Debian with a `python` that has pip, made once."""
        label = self.python.name if self.python else ("jetson" if self.jetpack else "debian")
        folder = self.work / f"{SUITE}-{self.machine}-{label}"
        if folder.exists():
            return folder
        packages = "ca-certificates"
        if self.python:
            packages += ",libssl3,libsqlite3-0,libffi8,zlib1g,libbz2-1.0,liblzma5,libreadline8,libexpat1,libuuid1"
        elif not self.jetpack:
            packages += ",python3,python3-venv,python3-pip"
        part = folder.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        options = ["--variant=minbase", f"--arch={ARCHITECTURES[self.machine]}", f"--include={packages}"]
        run("debootstrap", *options, SUITE, str(part))
        if self.python:
            run("cp", "-a", f"{self.python}/.", str(part / "usr/local"))
            run("chroot", str(part), "ldconfig")
        elif not self.jetpack:
            (part / "usr/local/bin/python").symlink_to("/usr/bin/python3")
        part.rename(folder)
        return folder

    @contextmanager
    def _mirror(self) -> Iterator[dict[str, str]]:
        """Build arguments that name the stand-in for NVIDIA's repository while it is served."""
        if not self.jetpack:
            yield {}
            return
        folder = self.work / "repository"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        key = jetson_repository.make(folder, self.jetpack, [sys.executable, "-m", "pip"])
        handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            address = f"http://127.0.0.1:{server.server_address[1]}"
            yield {"JETSON_REPOSITORY": address, "JETSON_KEY_SHA256": key}
            server.shutdown()


def crop(address: str) -> str:
    """Post the demo photo; what came back."""
    boundary, photo = "proof", (ROOT / "runtime/demo/coffee.jpg").read_bytes()
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="image_file"; filename="coffee.jpg"\r\n\r\n'
    body = head.encode() + photo + f"\r\n--{boundary}--\r\n".encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}", "Authorization": f"Bearer {TOKEN}"}
    try:
        with urllib.request.urlopen(urllib.request.Request(address, body, headers), timeout=600) as answer:
            data = answer.read()
            return f"{answer.status} {answer.headers['Content-Type']}, {len(data)} bytes"
    except urllib.error.HTTPError as error:
        raise SystemExit(f"POST /crop answered {error.code}: {error.read()[:400]!r}") from None


def run(*command: str, merged: bool = False) -> str:
    """Standard output of a command that must succeed; merged: with standard error."""
    errors = subprocess.STDOUT if merged else subprocess.PIPE
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=errors, text=True, env={**os.environ, "LC_ALL": "C"})
    if done.returncode:
        said = f"{done.stdout[-6000:]}\n{(done.stderr or '')[-6000:]}"
        raise SystemExit(f"{shlex.join(command)} ended with {done.returncode}:\n{said}")
    return done.stdout


def say(text: str) -> None:
    """A line for the person who waits."""
    sys.stdout.write(f"[{time.strftime('%H:%M:%S')}] {text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
