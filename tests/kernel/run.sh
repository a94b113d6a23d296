#!/bin/sh
# In the virtual machine: what is asked for is on a share of the host's, and so is what is said.
set -u
trap 'sync; systemctl poweroff --force --force' EXIT
modprobe 9pnet_virtio
mkdir -p /said
mount -t 9p -o trans=virtio,version=9p2000.L said /said
date -s "@$(cat /said/now)" > /dev/null
sh /tests/list.sh
