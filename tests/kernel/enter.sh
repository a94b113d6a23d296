#!/bin/sh
# Runs the tests in the Debian in the directory $1, on this machine's kernel: what is asked for, and what is said, is in $2.
set -eu
root=$1
said=$2
mount --make-rprivate /
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mkdir -p "$root/said"
mount --bind "$said" "$root/said"
cd "$root"
pivot_root . mnt
umount -l /mnt
exec env -i sh /tests/list.sh < /dev/null
