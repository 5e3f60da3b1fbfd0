"""Install each adapter alone, from its folder, into an empty environment, and run its README's snippet there.

    python integrations/check_install.py [langchain] [llama_index]

Run it where st-llm2vec is installed: it makes the encoder, which the empty environments read without st-llm2vec.
PyTorch is pinned as in requirements.lock, so that the environments stay small.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from st_llm2vec import convert, decoder_path

HERE = Path(__file__).parent
ADAPTERS = ("langchain", "llama_index")


def check(adapter: str, work: Path) -> None:
    pinned = re.search(r"^torch==.*$", (HERE / "requirements.lock").read_text(), re.MULTILINE).group()
    environment = work / adapter
    venv.create(environment, with_pip=True)
    python = str(environment / ("Scripts" if sys.platform == "win32" else "bin") / "python")
    for what in (pinned, str(HERE / adapter)):
        subprocess.run([python, "-m", "pip", "install", "--quiet", what], check=True)
    readme = (HERE / adapter / "README.md").read_text(encoding="utf-8")
    code, printed = re.search(r"```python\n(.*?)```\n\n```\n(.*?)```", readme, re.DOTALL).groups()
    alone = "import importlib.util\nassert importlib.util.find_spec('st_llm2vec') is None\n"
    done = subprocess.run([python, "-I", "-c", alone + code], cwd=work, capture_output=True, text=True, check=False)
    if done.returncode or done.stdout.strip() != printed.strip():
        raise SystemExit(f"{adapter}: the snippet printed {done.stdout!r}\n{done.stderr}")
    print(f"{adapter}: installed alone, and its snippet prints what it should", flush=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        convert(decoder_path(), "llm2vec").save(str(Path(temporary) / "my-encoder"))
        for name in sys.argv[1:] or ADAPTERS:
            check(name, Path(temporary))
