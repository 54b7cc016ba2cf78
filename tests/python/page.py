"""The page that `graft compare` writes, opened in headless Chromium.

    python page.py GRAFT FOLDER

compares two methods on a small model into FOLDER and looks at what the browser makes of `comparison.html`: every row of
the table, every curve, no error, a picture that is not empty. Without Chromium it says `SKIPPED`.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

PARITY = Path(__file__).parents[1] / "data" / "parity"
BROWSERS = ["chromium", "chromium-browser", "google-chrome"]


def browse(browser, page, *flags):
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", *flags, page.as_uri()]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def main():
    graft, folder = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        print("SKIPPED: no Chromium: nobody has looked at the page of `graft compare`")
        return
    data = ["--data", PARITY / "train.npz", "--eval", PARITY / "train.npz", "--label", "labels", "--logits", "logits"]
    course = ["--loss", "cross-entropy", "--targets", "query", "--steps", "6", "--eval-every", "2", "--seeds", "2"]
    methods = ["--methods", "lora,bone", "--out", folder, "--force"]
    subprocess.run([graft, "compare", PARITY / "base.onnx", *data, *course, *methods, "-q"], check=True)
    page = folder / "comparison.html"
    dom = browse(browser, page, "--dump-dom")
    found = {tag: len(re.findall(f"<{tag}[ >]", dom)) for tag in ["h2", "svg", "polyline", "polygon", "tr"]}
    picture = folder / "page.png"
    browse(browser, page, f"--screenshot={picture}", "--window-size=1200,2000")
    print(f"comparison.html in {Path(browser).name}: {found}, a picture of {picture.stat().st_size} bytes")
    # Accuracy, evaluation loss and training loss; a line and a band for each method; a head and a row for each.
    wanted = {"h2": 3, "svg": 3, "tr": 3}
    if any(found[tag] != n for tag, n in wanted.items()) or found["polyline"] < 6 or found["polygon"] < 6:
        sys.exit(f"expected {wanted}, and 6 lines with 6 bands")
    # A page without content makes a picture of a few kilobytes.
    if picture.stat().st_size < 50_000:
        sys.exit("the picture is empty")


if __name__ == "__main__":
    main()
