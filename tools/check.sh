#!/usr/bin/env bash
# Format, lint and known vulnerabilities of every module. `make check` calls it from the repository root.
# A finding fails. A vulnerability database that cannot be reached is said loudly and is not a finding.
set -uo pipefail

go=${GO:-go}
root=$PWD
failed=()
skipped=()

# -modfile does not go together with a workspace, and a module that only builds inside the workspace is a defect anyway.
export GOWORK=off
tool() { "$go" tool -modfile="$root/tools/go.mod" "$@"; }

echo "== gofumpt -l"
if ! unformatted=$(tool gofumpt -l .); then
	failed+=("gofumpt did not run")
elif [ -n "$unformatted" ]; then
	printf '%s\n' "$unformatted"
	echo "   not formatted; rewrite with: GOWORK=off go tool -modfile=tools/go.mod gofumpt -w ."
	failed+=(gofumpt)
fi

# Each module in its own directory. The findings of one do not hide those of the next.
for module in $MODULES; do
	if ! packages=$(cd "$module" && "$go" list ./... 2>&1); then
		printf '%s\n' "$packages"
		failed+=("go list in $module")
		continue
	fi
	if [[ $packages == *"matched no packages"* ]]; then
		echo "== module $module has no packages yet"
		continue
	fi

	echo "== go vet, staticcheck   (module $module)"
	(cd "$module" && "$go" vet ./...) || failed+=("go vet in $module")
	(cd "$module" && tool staticcheck ./...) || failed+=("staticcheck in $module")

	echo "== govulncheck   (module $module)"
	report=$(cd "$module" && tool govulncheck ./... 2>&1)
	status=$?
	printf '%s\n' "$report"
	if [ $status -eq 0 ]; then
		continue
	elif [ $status -ne 3 ] && grep -q 'vuln.go.dev' <<<"$report"; then # 3 means: vulnerabilities found
		skipped+=("$module")
	else
		failed+=("govulncheck in $module")
	fi
done

if [ ${#skipped[@]} -gt 0 ]; then
	echo
	echo "!! NOT CHECKED FOR VULNERABILITIES: https://vuln.go.dev could not be reached (modules: ${skipped[*]})."
	echo "!! Run 'make check' once more on a network that reaches it, before a release."
fi
if [ ${#failed[@]} -gt 0 ]; then
	echo
	printf '== check FAILED: %s\n' "${failed[@]}"
	exit 1
fi
echo "== check: no findings$([ ${#skipped[@]} -gt 0 ] && echo ' in what could be checked')"
