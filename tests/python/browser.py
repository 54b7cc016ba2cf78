"""A training in a browser's tab: `crates/cli/examples/train.html` in headless Chromium.

    browser.py GRAFT FOLDER

FOLDER receives the page, the demo model's training graph, and onnxruntime-web as npm has it; it is served to Chromium.
A click trains; the losses are those of ONNX Runtime on this machine's processor, and fall. A second click downloads the
adapter, which `graft merge` folds into the model: `merged.onnx` has a lower loss on what was held out. Pictures of
the page lie beside it, in both colour schemes. Without Chromium or npm it says `SKIPPED`.
"""

import base64
import contextlib
import fcntl
import functools
import http.server
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
from safetensors.numpy import load_file

ROOT = Path(__file__).parents[2]
DEMO, PAGE = ROOT / "crates/cli/demo", ROOT / "crates/cli/examples/train.html"
RUNTIME = "onnxruntime-web@1.30.0"
BROWSERS = ["chromium", "chromium-browser", "google-chrome"]
STEPS, ROWS, LENGTH, RATE = 60, 8, 64, 5e-3
TOLERANCE = 1e-4


class Chromium:
    """A headless browser, spoken to in DevTools' protocol over two pipes."""

    def __init__(self, binary, profile):
        commands, self.commands = os.pipe()
        self.events, events = os.pipe()
        # The browser reads commands from descriptor 3 and answers on 4; what lies there now must not be overwritten.
        high = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (commands, events)]
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", f"--user-data-dir={profile}"]
        self.process = subprocess.Popen(
            [binary, *flags], pass_fds=(3, 4), preexec_fn=lambda: (os.dup2(high[0], 3), os.dup2(high[1], 4)),
            stderr=subprocess.DEVNULL)
        for end in (commands, events, *high):
            os.close(end)
        self.buffer, self.number, self.session, self.log = b"", 0, None, []

    def message(self):
        while b"\0" not in self.buffer:
            part = os.read(self.events, 1 << 16)
            assert part, "the browser is gone"
            self.buffer += part
        message, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(message)

    def call(self, method, **params):
        """Calls a method of the protocol; returns its result. What the page logs meanwhile is kept."""
        self.number += 1
        command = {"id": self.number, "method": method, "params": params}
        if self.session:
            command["sessionId"] = self.session
        os.write(self.commands, json.dumps(command).encode() + b"\0")
        while (message := self.message()).get("id") != self.number:
            if message.get("method") in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"):
                self.log.append(message["params"])
        assert "error" not in message, f"{method}: {message['error']}"
        return message["result"]

    def open(self, url):
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Runtime", "Log", "Page"):
            self.call(f"{domain}.enable")
        self.call("Page.navigate", url=url)

    def evaluate(self, expression):
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def wait(self, condition, seconds):
        end = time.time() + seconds
        while not self.evaluate(condition):
            assert time.time() < end, f"`{condition}` does not come true; the page says {self.log}"
            time.sleep(0.1)

    def click(self, selector):
        """Presses and releases the mouse where the element is."""
        where = f"(r => [r.x + r.width / 2, r.y + r.height / 2])(document.querySelector('{selector}').getBoundingClientRect())"
        x, y = self.evaluate(where)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def picture(self, path, scheme):
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def close(self):
        self.session = None
        self.call("Browser.close")
        self.process.wait(20)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@contextlib.contextmanager
def served(folder):
    """The folder's address on this machine."""
    here = socket.inet_ntoa(socket.INADDR_LOOPBACK.to_bytes(4, "big"))
    server = http.server.ThreadingHTTPServer((here, 0), functools.partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://{here}:{server.server_port}"
    server.shutdown()


def runtime(folder):
    """The folder of onnxruntime-web within `folder`, as `npm install` would leave it."""
    module = folder / "node_modules/onnxruntime-web"
    if not module.exists():
        subprocess.run(["npm", "pack", "--silent", RUNTIME], cwd=folder, check=True, capture_output=True)
        shutil.unpack_archive(next(folder.glob("onnxruntime-web-*.tgz")), folder, filter="data")
        module.parent.mkdir(exist_ok=True)
        (folder / "package").rename(module)
    return module


def prepare(graft, folder):
    """Everything that the page asks for."""
    runtime(folder)
    for file in (PAGE, DEMO / "addresses.txt", DEMO / "whale.onnx"):
        shutil.copy(file, folder)
    line = ["export", folder / "whale.onnx", "--train", "--loss", "causal-lm", "--with", "adapter"]
    subprocess.run([graft, "-q", *line, "-o", folder / "train.onnx", "--force"], check=True, stdout=subprocess.DEVNULL)


def batch(text, n):
    """The page's batch of step `n`."""
    starts = (n * ROWS + np.arange(ROWS)) * 104729 % (len(text) - LENGTH)
    return text[starts[:, None] + np.arange(LENGTH)].astype(np.int64)


def native(folder):
    """The losses of the same training in ONNX Runtime, here."""
    session = ort.InferenceSession(folder / "train.onnx", providers=["CPUExecutionProvider"])
    state = load_file(folder / "train.state.safetensors")
    text, losses = np.frombuffer((folder / "addresses.txt").read_bytes(), np.uint8), []
    for n in range(1, STEPS + 1):
        feeds = {"input_ids": batch(text, n), "step": np.array(n), "lr": np.array(RATE, np.float32), **state}
        loss, *following = session.run(["loss", *(f"{name}.next" for name in state)], feeds)
        state = dict(zip(state, following))
        losses.append(float(loss))
    return losses


def train(browser, folder, address):
    """Clicks, waits, clicks; returns the losses that the page shows."""
    page = Chromium(browser, folder / "profile")
    page.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder / "downloads"))
    page.open(f"{address}/train.html?steps={STEPS}")
    page.call("Emulation.setDeviceMetricsOverride", width=1000, height=900, deviceScaleFactor=2, mobile=False)
    page.wait("document.querySelector('#train')?.disabled === false", 60)
    page.click("#train")
    page.wait(f"losses.length >= {STEPS // 2}", 120)
    page.picture(folder / "browser-half.png", "light")
    page.wait("!document.querySelector('#save').disabled", 120)
    page.click("#save")
    saved, end = folder / "downloads/adapter_model.safetensors", time.time() + 20
    while not saved.exists():
        assert time.time() < end, "nothing is downloaded"
        page.evaluate("0")
        time.sleep(0.1)
    for scheme in ("light", "dark"):
        page.picture(folder / f"browser-{scheme}.png", scheme)
    losses, rate = page.evaluate("losses"), page.evaluate("document.querySelector('#rate').textContent")
    page.close()
    assert not page.log, f"the page says {page.log}"
    print(f"{STEPS} steps of {ROWS} × {LENGTH} bytes in the tab, {rate} bytes a second")
    return losses


def merged(graft, folder):
    """The adapter of the download, folded in; the loss before and after on what the page may not have seen."""
    adapter = folder / "train.adapter"
    initial = load_file(adapter / "adapter_model.safetensors")
    trained = load_file(folder / "downloads/adapter_model.safetensors")
    assert trained.keys() == initial.keys() and all(trained[k].shape == initial[k].shape for k in initial)
    shutil.copy(folder / "downloads/adapter_model.safetensors", adapter)
    line = ["merge", folder / "whale.onnx", "--adapter", adapter, "-o", folder / "merged.onnx", "--verify", "--force"]
    subprocess.run([graft, "-q", *line], check=True, stdout=subprocess.DEVNULL)
    text = np.frombuffer((folder / "addresses.txt").read_bytes(), np.uint8)[-16 * 128 :].reshape(16, 128).astype(np.int64)
    return [loss(folder / name, text) for name in ("whale.onnx", "merged.onnx")]


def loss(model, text):
    logits = ort.InferenceSession(model, providers=["CPUExecutionProvider"]).run(["logits"], {"input_ids": text})[0][:, :-1]
    logits = logits.astype(np.float64)
    chosen = np.take_along_axis(logits, text[:, 1:, None], -1)[..., 0]
    return float(np.mean(np.log(np.exp(logits).sum(-1)) - chosen))


def main():
    graft, folder = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None or shutil.which("npm") is None:
        print("SKIPPED: no Chromium or no npm: nobody has trained in a browser")
        return
    for old in ("downloads", "profile"):
        shutil.rmtree(folder / old, ignore_errors=True)
    (folder / "downloads").mkdir(parents=True)
    prepare(graft, folder)
    with served(folder) as address:
        losses = train(browser, folder, address)
    worst = max(abs(a - b) / b for a, b in zip(losses, native(folder), strict=True))
    first, last = np.mean(losses[:10]), np.mean(losses[-10:])
    print(f"loss {first:.3f} → {last:.3f}; within {worst:.1e} of ONNX Runtime outside of the browser")
    assert worst < TOLERANCE and last < first - 0.05
    before, after = merged(graft, folder)
    print(f"the downloaded adapter, merged: {before:.4f} → {after:.4f} nats a byte on other addresses")
    assert after < before - 0.05


if __name__ == "__main__":
    main()
