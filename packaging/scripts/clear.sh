# Views stay in use by the programs that run in them; only their names go, what was mounted last first.
awk '$5 ~ "^/run/cellwall/" { print $5 }' /proc/self/mountinfo | tac | xargs -r umount
rm -rf /run/cellwall
# Control groups of sites, in each hierarchy. One in which a program still runs stays.
awk '/ - cgroup2? / { print $5 "/cellwall" }' /proc/self/mountinfo | while read -r group; do
    [ ! -d "$group" ] || rmdir --ignore-fail-on-non-empty "$group"/*/ "$group" 2> /dev/null || true
done
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
fi
