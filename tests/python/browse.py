"""Opens a page in headless Chromium and runs scripts in it, so that a test sees what a person would.

    browse.py CHROMIUM URL [--size WIDTHxHEIGHT]

Reads one JSON string a line from stdin: a JavaScript expression, which may be a promise; or `!screenshot PATH`; or `!open URL`.
Answers each with its value as JSON, in one line. At the end of stdin it prints {"requests": […], "errors": […]}: every address
that was asked for, and everything that went wrong on the console. Speaks the DevTools protocol over a pipe: no port, no library.
"""

import argparse
import base64
import json
import os
import subprocess
import sys
import tempfile
import time

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--remote-debugging-pipe",
]
PATIENCE = 60


class Browser:
    def __init__(self, program, profile, size):
        commands, self.to = os.pipe()
        self.out, answers = os.pipe()

        def wire():
            # The browser reads commands from 3 and writes answers to 4.
            here, there = os.dup(commands), os.dup(answers)
            os.dup2(here, 3)
            os.dup2(there, 4)

        self.process = subprocess.Popen(
            [program, *FLAGS, f"--user-data-dir={profile}", f"--window-size={size}", "about:blank"],
            preexec_fn=wire, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        os.close(commands)
        os.close(answers)
        self.number, self.rest, self.session = 0, b"", None
        self.requests, self.errors = [], []

    def read(self):
        while b"\0" not in self.rest:
            part = os.read(self.out, 1 << 16)
            if not part:
                raise SystemExit("the browser has ended")
            self.rest += part
        message, self.rest = self.rest.split(b"\0", 1)
        return json.loads(message)

    def note(self, event):
        method, params = event.get("method"), event.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "assert"):
            self.errors.append(" ".join(str(a.get("value", a.get("description"))) for a in params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(params["entry"]["text"])

    def call(self, method, **params):
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.read()
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise SystemExit(f"{method}: {answer['error']}")
                return answer["result"]
            self.note(answer)

    def evaluate(self, script):
        result = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in result:
            raise SystemExit(f"{script}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def open(self, url):
        self.call("Page.navigate", url=url)
        until = time.monotonic() + PATIENCE
        while self.evaluate("document.documentElement?.dataset.ready || document.querySelector('.problem')?.textContent || ''") == "":
            if time.monotonic() > until:
                raise SystemExit(f"{url} does not get ready")
            time.sleep(0.05)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("chromium")
    parser.add_argument("url")
    parser.add_argument("--size", default="1440,900")
    arguments = parser.parse_args()
    # Processes of the browser's own may write to it for a moment after the browser has ended.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(arguments.chromium, profile, arguments.size)
        try:
            target = browser.call("Target.createTarget", url="about:blank")["targetId"]
            browser.session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                browser.call(f"{domain}.enable")
            browser.open(arguments.url)
            for line in sys.stdin:
                script = json.loads(line)
                if script.startswith("!screenshot "):
                    image = browser.call("Page.captureScreenshot", format="png")["data"]
                    with open(script.split(" ", 1)[1], "wb") as file:
                        file.write(base64.b64decode(image))
                    value = True
                elif script.startswith("!open "):
                    value = browser.open(script.split(" ", 1)[1])
                else:
                    value = browser.evaluate(script)
                print(json.dumps(value), flush=True)
            requests = [r for r in browser.requests if not r.startswith("data:")]
            print(json.dumps({"requests": requests, "errors": browser.errors}), flush=True)
        finally:
            browser.process.terminate()
            browser.process.wait(10)


if __name__ == "__main__":
    main()
