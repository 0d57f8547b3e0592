#!/bin/sh
# Builds the project's own environment in .venv: no root, nothing beforehand but Python 3.11-3.13.
#
#   PYTHON=...   the Python to use; otherwise the first of python3, python3.11, python3.12, python3.13 that will do
#
# A uv of the machine is used when it is new enough; otherwise the pinned one is installed into .venv. Everything that
# is installed is pinned and hashed in requirements/. Of the machine's own settings only its package index and its
# certificates are respected; uv's configuration files are not read.
set -eu
cd -P "$(dirname "$0")/.."  # make compares the path without links

venv=.venv
stamp=$venv/.perdure-setup

say() { printf '%s\n' "setup: $*"; }
die() { printf '%s\n' "setup: $*" >&2; exit 1; }

# --- a Python that will do ------------------------------------------------------------------------------------------

supported='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'
minor_of='import sys; print("3.%d" % sys.version_info[1])'

is_supported() { command -v "$1" >/dev/null 2>&1 && "$1" -c "$supported" >/dev/null 2>&1; }
makes_venvs() { "$1" -c 'import venv, ensurepip' >/dev/null 2>&1; }

# Sets `python` to the first candidate that can build an environment, `incomplete` to the first that only lacks that.
find_python() {
    python= incomplete=
    for candidate in "$@"; do
        is_supported "$candidate" || continue
        if [ -n "$uv" ] || makes_venvs "$candidate"; then python=$candidate; return; fi
        [ -n "$incomplete" ] || incomplete=$candidate
    done
}

# Names the system package that brings venv and ensurepip to "$1".
say_what_is_missing() {
    minor=$("$1" -c "$minor_of")
    default=$(python3 -c "$minor_of" 2>/dev/null || true)
    ids=$( (. /etc/os-release && printf '%s' "${ID:-} ${ID_LIKE:-}") 2>/dev/null || true)
    case " $ids " in
        *" debian "* | *" ubuntu "*)
            if [ "$minor" = "$default" ]; then package=python3-venv; else package=python$minor-venv; fi
            hint="sudo apt install $package" ;;
        *" fedora "* | *" rhel "*) hint="sudo dnf install python$minor python$minor-pip" ;;
        *" suse "* | *" opensuse "*) nodot=$(printf '%s' "$minor" | tr -d .); hint="sudo zypper install python$nodot python$nodot-pip" ;;
        *" alpine "*) hint="apk add python3 py3-pip" ;;
        *" arch "*) hint="sudo pacman -S python" ;;
        *) hint="install the system package that holds venv and ensurepip for Python $minor" ;;
    esac
    die "Python $minor ($1) lacks its modules venv or ensurepip. Install them, then run this again:
           $hint"
}

# --- uv: the machine's if it is new enough, else the pinned one -----------------------------------------------------

uv_pinned=$(sed -n 's/^uv==\([0-9.]*\).*/\1/p' requirements/uv.txt)
uv_oldest=${uv_pinned%.*}.0

at_least() { # version $1 >= version $2, number by number
    printf '%s %s\n' "$1" "$2" | awk '{
        split($1, a, "."); split($2, b, ".")
        for (i = 1; i <= 3; i++) if (a[i] + 0 != b[i] + 0) exit a[i] + 0 < b[i] + 0
    }'
}

uv=
if found=$(command -v uv 2>/dev/null) && version=$("$found" --version 2>/dev/null | awk '{ print $2; exit }') \
    && [ -n "$version" ] && at_least "$version" "$uv_oldest"; then
    uv=$found
fi

# Only what this script says counts, except the index and the certificates, which pip and uv name differently.
export UV_PYTHON_DOWNLOADS=never UV_NO_CONFIG=1 UV_SYSTEM_CERTS=1
# An explicit choice for pip counts for uv too; certificates that only pip was told of would make uv fail.
if [ -z "${SSL_CERT_FILE:-}" ] && [ -n "${PIP_CERT:-}" ]; then export SSL_CERT_FILE="$PIP_CERT"; fi

respect_index_of_pip() { # "$@" runs pip
    [ -z "${UV_DEFAULT_INDEX:-}${UV_INDEX_URL:-}" ] || return 0
    index=${PIP_INDEX_URL:-$("$@" config get global.index-url 2>/dev/null || true)}
    if [ -n "$index" ]; then export UV_DEFAULT_INDEX="$index"; fi
}

# --- the environment ------------------------------------------------------------------------------------------------

if [ -n "${PYTHON:-}" ]; then
    command -v "$PYTHON" >/dev/null 2>&1 || die "PYTHON=$PYTHON is not a program that can be run."
    is_supported "$PYTHON" || die "PYTHON=$PYTHON is not Python 3.11, 3.12 or 3.13."
    find_python "$PYTHON"
else
    find_python python3 python3.11 python3.12 python3.13
fi

# An environment that works, stands where it was made and has the Python that was asked for is kept.
base_of='import os, sys; print(os.path.realpath(getattr(sys, "_base_executable", "") or sys.executable), "%d.%d.%d" % sys.version_info[:3])'
is_kept() {
    [ -x $venv/bin/python ] && is_supported $venv/bin/python || return 1
    [ "$(cat $venv/.perdure-home 2>/dev/null)" = "$PWD" ] || return 1
    # One that the machine's uv made holds no pip; without that uv nothing can be installed into it.
    [ -n "$uv" ] || $venv/bin/python -c 'import pip' 2>/dev/null || return 1
    [ -z "${PYTHON:-}" ] || [ "$("$PYTHON" -c "$base_of")" = "$($venv/bin/python -c "$base_of")" ]
}

rm -f $stamp
if ! is_kept; then
    if [ -z "$python" ]; then
        [ -z "$incomplete" ] || say_what_is_missing "$incomplete"
        die "no Python 3.11, 3.12 or 3.13 found (looked for python3, python3.11, python3.12, python3.13).
           Install one (with its venv module), or name it: make setup PYTHON=/path/to/python3.12"
    fi
    say "making $venv with $("$python" --version 2>&1)"
    rm -rf $venv
    if [ -n "$uv" ]; then
        "$uv" venv -q --python "$("$python" -c 'import sys; print(sys.executable)')" $venv
    else
        "$python" -m venv $venv
    fi
    printf '%s\n' "$PWD" >$venv/.perdure-home
fi

if [ -n "$uv" ]; then
    # The Makefile and scripts call .venv/bin/uv, whoever brought it.
    rm -f $venv/bin/uv
    ln -s "$uv" $venv/bin/uv
    pins=requirements/dev.txt
else
    if [ -L $venv/bin/uv ]; then rm -f $venv/bin/uv; fi
    if [ "$($venv/bin/uv --version 2>/dev/null | awk '{ print $2; exit }')" != "$uv_pinned" ]; then
        say "installing uv $uv_pinned into $venv"
        $venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
    fi
    pins="requirements/dev.txt requirements/uv.txt"
fi
uv=$venv/bin/uv
respect_index_of_pip "${python:-$venv/bin/python}" -m pip

say "installing what requirements/dev.txt pins"
# shellcheck disable=SC2086  # two file names
"$uv" pip sync --quiet --python $venv/bin/python --require-hashes --strict $pins
"$uv" pip install --quiet --python $venv/bin/python --no-deps --no-build-isolation --editable .

$venv/bin/python -c "$minor_of" >$stamp
say "ready: $($venv/bin/python --version) in $venv"
