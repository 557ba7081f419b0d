#!/usr/bin/env bash
# Installs what building (`build`) or building and testing (`test`) needs and this machine lacks, and says what it does.
# Idempotent: on a machine that has everything it prints nothing and downloads nothing.
#
#   scripts/setup.sh build    C toolchain and OpenSSL headers (librdkafka, aws-lc)
#   scripts/setup.sh test     the same, plus a Java runtime, Chromium, Apache Kafka's jars and a Python environment
#
# SMELT_TEST_CACHE (default ~/.cache/smelt-test) holds Kafka and the Python environment.
set -euo pipefail

what="${1:-test}"
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
cache="${SMELT_TEST_CACHE:-$HOME/.cache/smelt-test}"

say() { printf 'setup: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

packages=()
# want PACKAGE COMMAND...: the package is missing when the command fails.
want() {
    local package="$1"
    shift
    "$@" >/dev/null 2>&1 || packages+=("$package")
}
# Compiles nothing but the include: says whether a C header is there.
header() { printf '#include <%s>\n' "$1" | cc -E -x c - ; }
java17() {
    local version
    version="$(java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -n 1)"
    [ "${version:-0}" -ge 17 ]
}

want build-essential sh -c 'command -v cc && command -v c++ && command -v make'
want pkg-config command -v pkg-config
want libssl-dev header openssl/ssl.h
want zlib1g-dev header zlib.h
if [ "$what" = test ]; then
    want openjdk-17-jre-headless java17
    want maven command -v mvn
    want python3-venv python3 -c 'import ensurepip, venv'
    want chromium command -v chromium
fi

if [ "${#packages[@]}" -gt 0 ]; then
    command -v apt-get >/dev/null || fail "please install what Debian calls: ${packages[*]}"
    sudo=()
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || fail "please install as root: apt-get install ${packages[*]}"
        sudo=(sudo)
    fi
    say "installing Debian packages: ${packages[*]}"
    "${sudo[@]}" apt-get update -qq
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
fi

command -v cargo >/dev/null || fail "no Rust toolchain: see https://rustup.rs (rust-toolchain.toml names the version)"
[ "$what" = test ] || exit 0

mkdir -p "$cache"

# Apache Kafka: the broker that the tests start.
"$here/kafka-fetch.sh"

# python_environment NAME REQUIREMENTS: a virtual environment with what the file lists.
python_environment() {
    local venv="$cache/$1" requirements="$2"
    cmp -s "$requirements" "$venv/requirements.txt" && return
    say "making the Python environment $venv ($(grep -c '==' "$requirements") pinned packages)"
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$requirements"
    # Last, so that an interrupted installation is not taken for a whole one.
    cp "$requirements" "$venv/requirements.txt"
}
# The readers that must agree with smelt about every table.
python_environment venv "$here/../tests/python/requirements.txt"
# dbt, whose packages want other versions than theirs.
python_environment dbt "$here/../tests/python/dbt-requirements.txt"
