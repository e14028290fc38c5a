# Sourced by quickstart.sh and check.sh: goes to the repository's root and installs what the build needs and this
# Debian or Ubuntu lacks. setup_packages NAME... adds to the list.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

VOCA_PACKAGES=(g++ cmake ninja-build pkg-config git libhdf5-dev libfmt-dev libspdlog-dev
  nlohmann-json3-dev libzip-dev zlib1g-dev libisal-dev libssl-dev libgloo-dev)

say() { printf '\n== %s\n' "$*"; }

setup_packages() {
  local missing=() package
  for package in "${VOCA_PACKAGES[@]}" "$@"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return
  say "installing ${missing[*]}"
  local as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || {
      echo "these Debian packages are needed, and neither root nor sudo is at hand: ${missing[*]}" >&2
      exit 1
    }
    as_root=(sudo)
  fi
  "${as_root[@]}" apt-get update -qq
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# build PRESET [cmake options]: configures and builds it, all targets or, with VOCA_TARGETS, those.
build() {
  local preset=$1
  shift
  say "building $preset"
  cmake --preset "$preset" "$@" | grep -E 'CUDA|Build files' || true
  cmake --build --preset "$preset" ${VOCA_TARGETS:+--target $VOCA_TARGETS} -- --quiet
}
