#!/bin/sh
# Makes the Debian in the directory $1 one that boots by itself and has what the tests start: the packages $2.
set -eu
root=$1
mount --make-rprivate /
mount -t proc proc "$root/proc"
# Nothing starts while it is installed.
printf '#!/bin/sh\nexit 101\n' > "$root/usr/sbin/policy-rc.d"
chmod 755 "$root/usr/sbin/policy-rc.d"
cp /etc/resolv.conf "$root/etc/resolv.conf"
export DEBIAN_FRONTEND=noninteractive
chroot "$root" apt-get update --quiet
# shellcheck disable=SC2086
chroot "$root" apt-get install --quiet --yes --no-install-recommends initramfs-tools $2
chroot "$root" apt-get clean
echo '127.0.0.1 localhost' > "$root/etc/hosts"
echo '/dev/vda / ext4 defaults 0 1' > "$root/etc/fstab"
