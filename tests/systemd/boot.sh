#!/bin/sh
# Boots the Debian in the directory $1: its systemd becomes PID 1 of the namespaces that `cargo xtask systemd` has made.
set -eu
root=$1

mount --make-rprivate /
# A mount point of its own, and one that set-id programs work on: /run and /tmp of this machine are not seen below it.
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for device in null zero full random urandom tty; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
mount -t tmpfs -o mode=755,nosuid,nodev tmpfs "$root/run"
ip link set lo up

cd "$root"
mkdir -p mnt/host
pivot_root . mnt/host
umount -l /mnt/host
exec env -i container=cellwall PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd < /dev/null
