#!/bin/sh
# In the virtual machine: runs each line of /said/list, a test program and the words that choose among its tests.
set -u
trap 'sync; systemctl poweroff --force --force' EXIT
modprobe 9pnet_virtio
mkdir -p /said
mount -t 9p -o trans=virtio,version=9p2000.L said /said
date -s "@$(cat /said/now)" > /dev/null
root=$(cat /said/root)
cd "$root" || exit 1
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root CARGO_MANIFEST_DIR="$root"
{
    uname -rv
    echo "control groups: $(cat /sys/fs/cgroup/cgroup.controllers)"
    echo "security modules: $(cat /sys/kernel/security/lsm)"
} > /said/host
while read -r program words; do
    # shellcheck disable=SC2086
    "target/debug/deps/$program" $words > "/said/$program.log" 2>&1 < /dev/null
    echo "$program $words: $(grep '^test result: ' "/said/$program.log" || echo 'it did not come to its end')" >> /said/results
done < /said/list
echo end >> /said/results
