#!/usr/bin/env bash
# Installs what WebGPU needs on a machine without a GPU: the Vulkan loader and Mesa's software Vulkan (lavapipe) of a version
# that Dawn accepts. Debian bookworm's own Mesa 22 is too old, so the backports suite is added at the address of this machine's
# own sources. Quick where both are there already.
set -euo pipefail
installed() { { dpkg-query -W -f='${Status} ${Version}' "$1" 2>/dev/null || true; } | sed -n 's/^install ok installed //p'; }
mesa=$(installed mesa-vulkan-drivers)
if [ -n "$(installed libvulkan1)" ] && [ -n "$mesa" ] && dpkg --compare-versions "$mesa" ge 24; then exit 0; fi
if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
  echo "install-vulkan: needs Debian and root; install libvulkan1 and mesa-vulkan-drivers of 24 or newer yourself" >&2
  exit 1
fi
. /etc/os-release
suite=${VERSION_CODENAME}-backports
sources=/etc/apt/sources.list.d
listed() { cat /etc/apt/sources.list "$sources"/*.list "$sources"/*.sources 2>/dev/null || true; }
if ! listed | grep -Eq "(^|[[:space:]])$suite([[:space:]]|$)"; then
  uri=$(listed | sed -nE 's/^URIs:[[:space:]]*([^[:space:]]*\/debian)\/?[[:space:]]*$/\1/p; s/^deb[[:space:]].*(https?:[^[:space:]]*\/debian)\/?[[:space:]].*/\1/p' | head -n 1)
  keyring=/usr/share/keyrings/debian-archive-keyring.gpg
  printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: %s\n' "$uri" "$suite" "$keyring" >"$sources/$suite.sources"
fi
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -o DPkg::Lock::Timeout=300 -y -qq --no-install-recommends libvulkan1 >/dev/null
DEBIAN_FRONTEND=noninteractive apt-get install -o DPkg::Lock::Timeout=300 -y -qq --no-install-recommends -t "$suite" mesa-vulkan-drivers >/dev/null
