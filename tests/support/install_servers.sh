#!/bin/bash
# Install what the tests run against from Debian's packages, without starting any service.
# With --all also what the matrix of libraries needs: more servers, and headers to build two of them.
# Where that is not possible the tests say themselves what is missing.
set -eu

packages=(opensmtpd libopensmtpd-dev opensmtpd-filter-dkimsign
    opensmtpd-filter-rspamd opensmtpd-filter-senderscore gcc libc6-dev python3-dev
    chromium chromium-driver clamav-daemon redis-server rspamd postgresql slapd)
if [ "${1:-}" = --all ]; then
    packages+=(mariadb-server memcached
        default-libmysqlclient-dev libldap-dev libsasl2-dev pkg-config)
fi
policy=/usr/sbin/policy-rc.d

missing=()
for package in "${packages[@]}"; do
    status=$(dpkg-query --show --showformat='${Status}' "$package" 2>/dev/null || true)
    [ "$status" = "install ok installed" ] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "not installed, and this user cannot: ${missing[*]}" >&2
    exit 0
fi

# invoke-rc.d asks this script whether it may start a service; 101 means no.
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi

# --no-remove: never take another mail server away from the machine.
install() {
    DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet --quiet \
        --no-install-recommends --no-remove "${missing[@]}" >/dev/null
}
install || { apt-get update --quiet --quiet && install; }
