#!/bin/sh
# A private apt, without root and without what this machine has installed: apt.sh DIR ARCHITECTURE
# Prints the path of its configuration; the caller writes DIR/sources.list. Packages come to DIR/cache.
set -eu
dir=$1 arch=$2
mkdir -p "$dir/lists/partial" "$dir/cache/archives/partial" "$dir/state"
: >"$dir/status"
cat >"$dir/apt.conf" <<CONF
APT::Architecture "$arch";
APT::Architectures { "$arch"; };
APT::Sandbox::User "";
Dir::State "$dir/state";
Dir::State::Lists "$dir/lists";
Dir::State::status "$dir/status";
Dir::Cache "$dir/cache";
Dir::Etc::SourceList "$dir/sources.list";
Dir::Etc::SourceParts "/dev/null";
CONF
echo "$dir/apt.conf"
