# Sourced by the scripts behind `make`: what must be on the machine before they begin.
#
#   need COMMAND PACKAGE   remembers that COMMAND is missing, and the Debian package that has it
#   install_needs          installs the packages as root where apt-get is there; elsewhere it says the one
#                          command that does, and fails. Rust is never installed: it is a person's own.

missing_packages=()

need() {
  command -v "$1" >/dev/null || missing_packages+=("$2")
}

install_needs() {
  if ! command -v cargo >/dev/null; then
    echo "cargo is missing: install Rust from https://rustup.rs, then say this again" >&2
    return 1
  fi
  [ ${#missing_packages[@]} -gt 0 ] || return 0
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing ${missing_packages[*]}" >&2
    apt-get update -qq >&2 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing_packages[@]}" >&2 && return 0
  fi
  printf 'missing on this machine: %s\nhint: sudo apt-get install -y %s   (Debian, Ubuntu; elsewhere the packages of the same programs)\n' \
    "${missing_packages[*]}" "${missing_packages[*]}" >&2
  return 1
}
