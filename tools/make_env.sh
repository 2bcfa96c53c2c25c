#!/usr/bin/env bash
# Make the Python environment: make_env.sh FOLDER STAMP
set -eo pipefail
venv=$1 stamp=$2

python=
for candidate in "${PYTHON:-}" python3.11 python3 python3.13 python3.12; do
    [ -n "$candidate" ] || continue
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    echo "make: Python 3.11 or newer is needed, and python3 is not it." >&2
    echo "      On Debian 12 or newer:  sudo apt-get install python3 python3-venv" >&2
    exit 1
fi
if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
    echo "make: $python has no venv module." >&2
    echo "      On Debian:  sudo apt-get install python3-venv" >&2
    exit 1
fi

if ! "$venv/bin/python" -c 'import pip' 2>/dev/null; then
    echo "making $venv with $("$python" --version)"
    "$python" -m venv --clear "$venv"
fi
echo "installing the pinned packages into $venv (the first time takes a minute or two) ..."
"$venv/bin/python" -m pip --disable-pip-version-check install --quiet --progress-bar on --no-deps -r requirements.txt
# The engine itself, from this folder: changes to it count at once.
"$venv/bin/python" -m pip --disable-pip-version-check install --quiet --no-deps --no-build-isolation -e .
rm -f "$venv"/.made-*
touch "$stamp"
