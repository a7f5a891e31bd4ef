#!/bin/bash
# Checks that need no running programme: lint.sh [CHECK]...   (all of them by default)
#   TIDY_SECONDS=N   clang-tidy looks at files, the last changed first, until that is over (default 240)
set -u
cd "$(dirname "$0")/.." || exit
all="format headers direction share shell python cppcheck tidy paths"
bad=0

fail() {
	echo "lint: $*"
	bad=1
}

ours() { # our files that match the patterns; what is copied from elsewhere would be excluded here
	git ls-files -- "$@"
}

[ -n "$(ours Makefile)" ] || {
	echo "lint: git does not know these files (no git, or no clone): nothing can be checked" >&2
	exit 1
}

parts() { # C files of the programme, without tests
	ours '*.c' | grep -Ev '^tests/'
}

unicorn_include() {
	echo "$(cpu/soft/unicorn/build.sh --dir release)/include"
}

flags=(-std=gnu17 -D_GNU_SOURCE '-DFERRY_VERSION="lint"' -I.)
flags+=($(pkg-config --cflags-only-I slirp))

check_format() {
	ours '*.c' '*.h' | xargs -r clang-format --dry-run -Werror || fail "format: run clang-format -i on these"
}

# Each header compiles alone, whatever was included before it.
check_headers() {
	local h extra
	for h in $(ours '*.h' | grep -v '^tests/guest/x86/'); do
		extra=()
		case $h in cpu/soft/* | tests/*) extra=(-isystem "$(unicorn_include)") ;; esac
		gcc "${flags[@]}" "${extra[@]}" $(pkg-config --cflags liburcu-memb) -Wall -Werror -Wno-unused \
			-fsyntax-only -x c - <<<"#include \"$h\"" || fail "headers: $h does not stand alone"
	done
}

# cli -> vmm -> {cpu, devices, migration} -> mmu -> nothing.
check_direction() {
	local from allowed file header to
	while read -r from allowed; do
		for file in $(ours "$from/*.c" "$from/*.h"); do
			for header in $(sed -n 's/^#include "\(.*\)".*/\1/p' "$file"); do
				case $header in
				*/*) to=${header%%/*} ;;
				*) to=$from ;; # beside it
				esac
				case " $from $allowed " in
				*" $to "*) ;;
				*) fail "direction: $file includes $header" ;;
				esac
			done
		done
	done <<-END
		mmu
		migration mmu
		devices mmu migration
		cpu mmu migration devices
		vmm mmu migration devices cpu
		cli mmu migration devices cpu vmm
	END
}

# The MMU core: formats are short, the rest is common.
check_share() {
	mmu/share.py >/dev/null || fail "share: see make mmu-share"
}

check_shell() {
	local f
	for f in $(ours '*.sh' '.ci/run'); do
		case $(head -n 1 "$f") in
		*bash*) bash -n "$f" ;;
		*) sh -n "$f" ;;
		esac || fail "shell: $f"
	done
}

check_python() {
	local f
	for f in $(ours '*.py'); do
		python3 -c 'import sys; compile(open(sys.argv[1]).read(), sys.argv[1], "exec")' "$f" ||
			fail "python: $f"
	done
}

check_cppcheck() {
	parts | xargs -r cppcheck --quiet --std=c11 --enable=warning,portability --inline-suppr \
		--suppress=missingIncludeSystem --suppress=unusedStructMember --error-exitcode=1 \
		-j "$(nproc)" -D_GNU_SOURCE '-DFERRY_VERSION="lint"' -I. || fail "cppcheck"
}

check_tidy() {
	local until=$((SECONDS + ${TIDY_SECONDS:-240})) done=0 files=() batch
	# The last changed first: they are the ones that nobody has looked at.
	mapfile -t files < <(
		git log --format= --name-only -- '*.c' | awk 'NF && !seen[$0]++' | grep -Ev '^tests/' |
			while read -r f; do [ -e "$f" ] && echo "$f"; done
	)
	while [ $done -lt ${#files[@]} ] && [ $SECONDS -lt $until ]; do
		batch=("${files[@]:done:4}")
		printf '%s\n' "${batch[@]}" | xargs -P "$(nproc)" -I{} clang-tidy --quiet {} -- "${flags[@]}" \
			-isystem "$(unicorn_include)" 2>/dev/null || fail "tidy"
		done=$((done + ${#batch[@]}))
	done
	echo "lint: clang-tidy looked at $done of ${#files[@]} files"
}

# A path that exists on one person's machine only. (/mnt is any guest's.)
check_paths() {
	ours | grep -v '^\.ci/lint\.sh$' | xargs grep -nIE '(^|[^A-Za-z0-9_.$/}])/(home|root|srv|work)/' &&
		fail "paths: these are of one machine only"
}

for check in ${*:-$all}; do
	echo "lint: $check"
	"check_$check"
done
[ $bad = 0 ] && echo "lint: nothing found"
exit $bad
