#!/usr/bin/env bash
# The recipes of clients that pin another gymnasium, in an environment of their own. It borrows all other packages of the
# active one, so that little has to be installed.
set -euo pipefail
cd "$(dirname "$0")/.."

environment=$(mktemp -d)
trap 'rm -rf "$environment"' EXIT
borrowed=$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
ray=$(python -c 'from importlib.metadata import version; print(version("ray"))')
python -m venv "$environment"
python=$environment/bin/python
echo "$borrowed" >"$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/borrowed.pth"
"$python" -m pip install --quiet "ray[rllib]==$ray"
PYTHONPATH=$PWD "$python" -m pytest tests/test_clients.py -n 0 -m slow -k RLlib | tee "$environment/log"
grep -q '^2 passed' "$environment/log"  # not skipped
