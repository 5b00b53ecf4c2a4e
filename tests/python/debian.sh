# Sourced: `debian SUITE` makes `apt` ask another suite of Debian than this machine's, in a scratch folder that is removed
# at the end, and installs nothing.
debian() {
  scratch=$(mktemp -d)
  trap 'rm -rf "$scratch"' EXIT
  mkdir -p "$scratch"/{etc,state/lists/partial,cache/archives/partial,files}
  local site keys=/usr/share/keyrings/debian-archive-keyring.gpg
  site=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep debian | grep -v security | sort -u | head -n 1)
  echo "deb [signed-by=$keys] $site $1 main" >"$scratch/etc/sources.list"
  echo "deb-src [signed-by=$keys] $site $1 main" >>"$scratch/etc/sources.list"
  : >"$scratch/state/status"
  apt update
}

apt() {
  apt-get -q -o Dir::Etc::sourcelist="$scratch/etc/sources.list" -o Dir::Etc::sourceparts=/dev/null \
    -o Dir::State="$scratch/state" -o Dir::State::status="$scratch/state/status" -o Dir::Cache="$scratch/cache" "$@" >&2
}
