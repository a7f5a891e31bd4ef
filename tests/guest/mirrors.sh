#!/bin/sh
# The Debian mirrors of this machine, one URI a line, Debian's own suites first (by their path): from both
# formats of apt sources.
set -eu
mirrors=$(apt-get indextargets --no-release-info --format '$(COMPONENT) $(RELEASE) $(REPO_URI)' \
	'Created-By: Packages' 2>/dev/null |
	awk '$1 == "main" && $2 !~ /-/ { print ($3 ~ /\/debian\/?$/ ? 0 : 1), $3 }' | sort -u | cut -d' ' -f2)
[ -n "$mirrors" ] || {
	echo "mirrors.sh: found no Debian mirror in this machine's apt sources" >&2
	exit 1
}
echo "$mirrors"
