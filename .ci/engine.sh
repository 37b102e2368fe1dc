#!/usr/bin/env bash
# Have a Docker engine that answers and the worker's base image, or say why not. Does only what is missing.
#
# Needs a Debian machine and root where something has to be installed or started. The base image comes from a
# registry; where none answers it is made of Debian packages.
set -euo pipefail

base=${BASE_IMAGE:-python:3.11-slim-bookworm}
log=/var/log/dockerd.log

answers() { docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }

need_root() {
  [[ $EUID -eq 0 ]] && return
  echo "engine: $1 needs root; run this script as root once, or start a Docker engine that this user may use" >&2
  exit 1
}

install_missing() {
  need_root "installing $*"
  export DEBIAN_FRONTEND=noninteractive
  apt-get -o DPkg::Lock::Timeout=120 -qq update
  apt-get -o DPkg::Lock::Timeout=120 -qq install --yes --no-install-recommends "$@"
}

start_engine() {
  need_root "starting dockerd"
  local missing=()
  command -v dockerd >/dev/null || missing+=(docker.io iptables ca-certificates)
  command -v debootstrap >/dev/null || missing+=(debootstrap)
  ((${#missing[@]} == 0)) || install_missing "${missing[@]}"
  answers && return # the package may have started it

  # Without CAP_SYS_RESOURCE (bit 24) the usual limits of containers cannot be set.
  local options=() capabilities
  capabilities=$(sed -n 's/^CapEff:\t*//p' /proc/self/status)
  if ! ((16#$capabilities >> 24 & 1)); then
    options=(--default-ulimit nofile=20000:20000 --default-ulimit nproc=4000:4000)
  fi
  setsid dockerd "${options[@]}" >"$log" 2>&1 </dev/null &
  local pid=$! deadline=$((SECONDS + 60))
  until answers; do
    if ! kill -0 "$pid" 2>/dev/null || ((SECONDS >= deadline)); then
      echo "engine: dockerd does not answer; its last lines:" >&2
      tail -n 20 "$log" >&2
      exit 1
    fi
    sleep 0.2
  done
}

make_base() {
  need_root "making $base"
  command -v debootstrap >/dev/null || install_missing debootstrap
  local tree
  tree=$(mktemp -d)
  # shellcheck disable=SC2064 # the path as it is now
  trap "rm -rf '$tree' '$tree.log'" EXIT
  debootstrap --variant=minbase --include=python3-venv,ca-certificates bookworm "$tree" >"$tree.log" 2>&1 || {
    echo "engine: debootstrap failed; its last lines:" >&2
    tail -n 20 "$tree.log" >&2
    exit 1
  }
  rm -rf "$tree"/var/cache/apt/archives/*.deb "$tree"/var/lib/apt/lists/*
  tar -C "$tree" -c . | docker import --change 'CMD ["python3"]' - "$base" >/dev/null
}

answers || start_engine
echo "engine: Docker Engine $(docker version --format '{{.Server.Version}}') answers"

if docker image inspect "$base" >/dev/null 2>&1; then
  echo "engine: $base is here"
elif timeout 180 docker pull --quiet "$base" >/dev/null 2>&1; then
  echo "engine: $base pulled"
else
  make_base
  echo "engine: $base made with debootstrap, since no registry answered"
fi
