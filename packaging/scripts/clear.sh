# Views stay in use by the programs that run in them; only their names go, what was mounted last first.
awk '$5 ~ "^/run/cellwall/" { print $5 }' /proc/self/mountinfo | tac | xargs -r umount
rm -rf /run/cellwall
# Control groups of sites, in each hierarchy. One in which a program still runs stays.
awk '/ - cgroup2? / { print $5 }' /proc/self/mountinfo | while read -r mount; do
    for group in "$mount"/cellwall/*/ "$mount"/cellwall "$mount"/cellwall-[0-9]*/; do
        [ ! -d "$group" ] || rmdir --ignore-fail-on-non-empty "$group" 2> /dev/null || true
    done
done
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
fi
