"""Make the environment .venv from requirements.lock; if it already agrees with the lock, this does nothing.

Runs under the user's own Python before anything is installed: standard library only, and old syntax, so that an
old Python still gets as far as the message that says it is too old.
"""

import hashlib
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "installed.txt"
TESTED = ("3.11", "3.12", "3.13")


def main() -> None:
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if sys.version_info < (3, 11):
        newer = [f"python{v}" for v in reversed(TESTED) if shutil.which(f"python{v}")]
        hint = f"this machine has {newer[0]}: make book PYTHON={newer[0]}" if newer else "install a newer one"
        sys.exit(f"vaetut needs Python 3.11 or newer, and {sys.executable} is {version}; {hint}")

    # An environment cannot be moved, so its path is part of the stamp.
    packages = f"{version} {ROOT} {digest('requirements.lock')}"
    wanted = f"{packages}\n{digest('pyproject.toml')} {digest('tools/environment.py')}\n"
    found = STAMP.read_text() if STAMP.exists() else ""
    if found == wanted:
        return
    if found.partition("\n")[0] != packages:
        if version not in TESTED:
            print(
                f"vaetut: requirements.lock is tested with Python {', '.join(TESTED)}, and this is {version}"
            )
        print(
            f"Making .venv with Python {version} from requirements.lock (a few minutes, once) ...", flush=True
        )
        create()
        pip("-r", "requirements.lock")
    STAMP.unlink(missing_ok=True)
    pip("--no-deps", "--no-build-isolation", "-e", ".")
    silence_kernels()
    STAMP.write_text(wanted)


def digest(name: str) -> str:
    return hashlib.sha256((ROOT / name).read_bytes()).hexdigest()


def create() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "venv", "--clear", str(VENV)], capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(
            f"vaetut: `{sys.executable} -m venv` failed (on Debian and Ubuntu: apt-get install python3-venv)\n"
            f"{done.stdout}{done.stderr}"
        )


def pip(*arguments: str) -> None:
    # -qq: pip's errors, and not its remarks about itself
    command = [str(VENV / "bin" / "python"), "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
    if subprocess.run([*command, "--no-input", *arguments], cwd=ROOT).returncode:
        sys.exit(
            "vaetut: pip could not install the packages; its message is above. Run the same command again."
        )


def silence_kernels() -> None:
    """A kernel says at each start that it talks to this very machine without encryption; errors are enough."""
    profile = VENV / "ipython" / "profile_default"  # the Makefile sets IPYTHONDIR to this
    profile.mkdir(parents=True, exist_ok=True)
    (profile / "ipython_kernel_config.py").write_text('get_config().IPKernelApp.log_level = "ERROR"\n')


if __name__ == "__main__":
    main()
