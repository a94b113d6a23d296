#!/bin/sh
# Runs each line of /said/list, a test program and the words that choose among its tests.
set -u
root=$(cat /said/root)
cd "$root" || exit 1
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root CARGO_MANIFEST_DIR="$root"
{
    (. /etc/os-release && echo "$PRETTY_NAME")
    uname -rv
    echo "control groups: $(cat /sys/fs/cgroup/cgroup.controllers 2> /dev/null || echo of version 1)"
    echo "security modules: $(cat /sys/kernel/security/lsm 2> /dev/null || echo not told)"
} > /said/host
while read -r program words; do
    # shellcheck disable=SC2086
    "target/debug/deps/$program" $words > "/said/$program.log" 2>&1 < /dev/null
    echo "$program $words: $(grep '^test result: ' "/said/$program.log" || echo 'it did not come to its end')" >> /said/results
done < /said/list
echo end >> /said/results
