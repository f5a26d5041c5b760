#!/bin/sh
# Makes .venv: Python 3.11 or later, the pins of requirements.lock, and this project, editable.
#
# Repeatable: returns at once when .venv already holds what the lock and pyproject.toml ask for. Interruptible: an
# install that was cut off (.venv/.incomplete is left) is thrown away and made again from pip's cache, because a
# package that was half unpacked looks installed to pip. PYTHON=... chooses the interpreter.
set -eu
cd "$(dirname "$0")/.."
export PIP_DISABLE_PIP_VERSION_CHECK=1
venv=.venv
supported='import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))'
recent='import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))'

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        "$PYTHON" -c "$recent" 2>/dev/null || fail "PYTHON=$PYTHON is not a Python of 3.11 or later with venv and ensurepip"
        echo "$PYTHON"
        return
    fi
    for test in "$supported" "$recent"; do
        for candidate in python3 python3.12 python3.11 python3.13 python3.14; do
            if "$candidate" -c "$test" 2>/dev/null; then
                echo "$candidate"
                return
            fi
        done
    done
    for candidate in python3 python3.12 python3.11; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            fail "$candidate cannot make virtual environments. On Debian and Ubuntu: sudo apt install $candidate-venv"
        fi
    done
    fail "Across needs Python 3.11 or later, and none was found. Install one, or say where it is: PYTHON=/path/to/python3"
}

fail() {
    echo "error: $1" >&2
    exit 1
}

# What a complete .venv was made from. The folder counts too: scripts in a venv hold its absolute path.
wanted() {
    pwd
    cat requirements.lock pyproject.toml
}

is_current() {
    wanted | cmp -s - $venv/.installed && fits_python && $venv/bin/python -c ''
}

fits_python() {
    version='import sys; print(sys.version_info[:2])'
    [ -z "${PYTHON:-}" ] || [ "$("$PYTHON" -c "$version")" = "$($venv/bin/python -c "$version")" ]
}

is_reusable() {
    [ ! -e $venv/.incomplete ] && $venv/bin/python -m pip --version >/dev/null 2>&1 && fits_python \
        && { [ ! -e $venv/.installed ] || [ "$(head -n 1 $venv/.installed)" = "$(pwd)" ]; }
}

remove_venv() {
    # The libraries first: while they are half gone, .incomplete must still be there to say so.
    mkdir -p $venv && touch $venv/.incomplete
    rm -rf $venv/lib $venv/lib64 $venv/bin
    rm -rf $venv
}

pip_install() {
    $venv/bin/python -m pip install -qq --no-input "$@" \
        || fail "the installation stopped (see above). Nothing is broken: repeat the command to go on"
}

if is_current 2>/dev/null; then
    exit 0
fi
if is_reusable 2>/dev/null; then
    echo "Updating $venv to requirements.lock ..."
    touch $venv/.incomplete
else
    python=$(find_python)
    echo "Making $venv with $("$python" --version) ..."
    remove_venv
    mkdir -p $venv && touch $venv/.incomplete
    "$python" -m venv $venv || fail "$python could not make the virtual environment $venv (see above)"
fi
rm -f $venv/.installed
echo "Installing the pinned libraries: 2 to 10 minutes, 2 GB (6 GB where torch brings CUDA) ..."
pip_install -r requirements.lock
pip_install --no-deps --no-build-isolation --editable .
wanted >$venv/.installed.part
rm $venv/.incomplete
mv $venv/.installed.part $venv/.installed
echo "$venv is ready."
