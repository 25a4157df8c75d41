#!/usr/bin/env bash
# Installs the servers that the tests start for themselves, as far as they are missing. `make servers` calls it, and so
# does every verb that needs them. None of them is set up as a service, started, or changed if it is there already.
set -euo pipefail

# There is no policy of what installing may start, so there will be one for the time of it.
policy=/usr/sbin/policy-rc.d
# Debian makes a database cluster with PostgreSQL unless it is told otherwise; the tests make their own.
cluster=/etc/postgresql-common/createcluster.d/no-cluster-for-tests.conf

# have NAME FOLDER... tells whether a program is on PATH or in one of the folders, as internal/server looks for it.
have() {
	local name=$1 folder
	shift
	command -v "$name" >/dev/null && return
	for folder in "$@" /usr/sbin /usr/local/sbin /usr/libexec /opt/homebrew/bin /opt/homebrew/sbin /usr/local/bin; do
		[ -x "$folder/$name" ] && return
	done
	return 1
}

# look fills `missing` with the names of what there is not, as people know it, and `packages` with what has it.
look() {
	missing=()
	packages=()
	lack() { missing+=("$1") && packages+=("$2"); }
	have postgres /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /opt/homebrew/opt/postgresql@*/bin /usr/local/opt/postgresql@*/bin ||
		lack PostgreSQL postgresql
	have pgbouncer || lack PgBouncer pgbouncer
	{ have mariadbd /opt/homebrew/opt/mariadb/bin /usr/local/opt/mariadb/bin &&
		have mariadb-install-db /opt/homebrew/opt/mariadb/bin /usr/local/opt/mariadb/bin; } || lack MariaDB mariadb-server
	have redis-server || have valkey-server || lack Redis redis-server
	have etcd || lack etcd etcd-server
	# Not a server: a library that gives one another clock.
	[ "$(uname -s)" != Linux ] || compgen -G '/usr/lib/*/faketime/libfaketime.so.1' >/dev/null || lack libfaketime libfaketime
}

# give_up says what is to be done by hand, and ends.
give_up() {
	echo "!! $1" >&2
	echo "!! Missing: ${missing[*]}. The tests of the stores run on real servers and fail without them." >&2
	echo "!! Packages of Debian and Ubuntu: ${packages[*]}   (etcd-server is named etcd in older releases)" >&2
	echo "!! Homebrew: brew install postgresql@17 pgbouncer mariadb redis etcd" >&2
	exit 1
}

look
if [ ${#missing[@]} -eq 0 ]; then
	echo "== servers: PostgreSQL, PgBouncer, MariaDB, Redis, etcd and libfaketime are installed"
	exit 0
fi
if [ "$(uname -s)" = Darwin ]; then
	give_up "On a Mac this is left to you: brew install postgresql@17 pgbouncer mariadb redis etcd"
fi
command -v apt-get >/dev/null || give_up "There is no apt-get on this system to install them with."

sudo=()
if [ "$(id -u)" -ne 0 ]; then
	command -v sudo >/dev/null || give_up "Installing needs root, and there is no sudo."
	sudo=(sudo)
fi
as_root() { "${sudo[@]}" "$@"; }

echo "== servers: installing ${missing[*]} by apt-get, since the tests of the stores start real servers; no service of them is started or enabled"

# put FILE MODE TEXT writes a file that is to go again.
put() {
	as_root mkdir -p "$(dirname "$1")"
	printf '%s\n' "$3" | as_root tee "$1" >/dev/null
	as_root chmod "$2" "$1"
	made+=("$1")
}
made=()
tidy() { [ ${#made[@]} -eq 0 ] || as_root rm -f "${made[@]}"; }
trap tidy EXIT
trap 'exit 130' INT TERM

[ -e "$policy" ] || put "$policy" 755 $'#!/bin/sh\nexit 101'
[ -e "$cluster" ] || put "$cluster" 644 'create_main_cluster = false'

as_root apt-get update || echo "!! apt-get update failed; trying with the lists that are there" >&2
for i in "${!packages[@]}"; do
	if [ "${packages[$i]}" = etcd-server ] && ! apt-cache show etcd-server >/dev/null 2>&1; then
		packages[i]=etcd
	fi
done
as_root env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "${packages[@]}" ||
	give_up "apt-get install ${packages[*]} failed."

# A package enables its service for the next start of the machine. Those that were not there a minute ago are not wanted.
if command -v systemctl >/dev/null; then
	for package in "${packages[@]}"; do
		[ "$package" != libfaketime ] || continue
		service=${package/mariadb-server/mariadb}
		as_root systemctl disable --quiet "${service/etcd-server/etcd}" || echo "!! not disabled: the service of $package" >&2
	done
fi

look
[ ${#missing[@]} -eq 0 ] || give_up "apt-get installed what it was asked for, and it is still not there."
echo "== servers: installed"
