#!/bin/bash
# What the package, its units and the daemon do under a real systemd. Says `ok` or `FAILED` for each check; `end` is the last word.
# The first boot installs and drives everything, the second finds what a reboot leaves, and removes it.
set -u
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive
cd /checks || exit 1
sites="rose fern"
apache=80 nginx=8080
# What an upgrade goes from and to: an earlier package where one was brought, or this one and itself by another number.
old=cellwall.deb new=new.deb
[ ! -e before.deb ] || old=before.deb new=cellwall.deb

# check NAME COMMAND...: what the command says is shown where it fails.
check() {
    local name=$1
    shift
    if "$@" > last 2>&1; then
        echo "ok $name"
    else
        echo "FAILED $name"
        sed 's/^/    /' last | tail -n 20
    fi
}

status() { curl -s -o /dev/null -m 30 -w '%{http_code}' -H "Host: $2.example" "localhost:$1/$3"; }
page() { curl -s -m 30 -H "Host: $2.example" "localhost:$1/$3"; }
is() { [ "$1" = "$2" ] || { echo "$1, and not $2" && false; }; }
shows() { systemctl show -P "$1" "${2:-cellwalld}"; }
# soon COMMAND...: within ten seconds.
soon() {
    local _
    for _ in $(seq 100); do
        "$@" && return
        sleep 0.1
    done
    echo "not within ten seconds: $*"
    return 1
}

# lossless COMMAND...: visitors of both sites and both servers come meanwhile, and each gets his page.
lossless() {
    local port site visitors=()
    rm -f stop visitors.*
    for port in $apache $nginx; do
        for site in $sites; do
            (while [ ! -e stop ]; do echo "$(status $port "$site" a.php) $port"; done > visitors.$port.$site) &
            visitors+=($!)
        done
    done
    sleep 1
    "$@"
    local rc=$?
    sleep 1
    touch stop
    wait "${visitors[@]}"
    sort visitors.* | uniq -c
    return $((rc || $(cat visitors.* | grep -vc '^200 ')))
}

prepare() {
    sed -i 's/listen 80 default_server/listen 8080 default_server/; /listen \[::\]:80/d' /etc/nginx/sites-available/default
    local site
    for site in $sites; do
        useradd -m -d "/srv/www/$site" "$site"
        mkdir "/srv/www/$site/htdocs"
        echo '<?php usleep(20000); echo posix_getuid(), " ", getmypid();' > "/srv/www/$site/htdocs/a.php"
        chmod 755 "/srv/www/$site"
        chown -R "$site:" "/srv/www/$site"
    done
    systemctl restart nginx && systemctl restart apache2
}

configure() {
    local site
    for site in $sites; do
        cat > "/etc/cellwall/sites.d/$site.toml" << END
user = "$site"
docroot = "/srv/www/$site/htdocs"
profile = "php"
[handlers]
".php" = "/usr/bin/php-cgi"
[pool]
kind = "parent"
command = "/usr/bin/php-cgi"
END
        local examples=/usr/share/doc/cellwall/examples
        sed "s/shop/$site/g; s/listen 80;/listen 8080;/" $examples/nginx/pool.conf > "/etc/nginx/sites-enabled/$site"
        sed "s/shop/$site/g" $examples/cellwall.conf > "/etc/apache2/sites-enabled/$site.conf"
    done
    cellwall apply && a2enmod -q suexec cgid &&
        update-alternatives --set suexec /usr/lib/cellwall/cellwall-suexec && systemctl restart apache2 &&
        systemctl enable --now cellwalld cellwall-views.path cellwall-views.service && systemctl reload nginx
}

served() {
    local port site
    for port in $apache $nginx; do
        for site in $sites; do
            [[ $(page $port "$site" a.php) == "$(id -u "$site") "* ]] || { page $port "$site" a.php && return 1; }
        done
    done
}

units() {
    local said
    said=$(systemd-analyze verify --man=no /lib/systemd/system/cellwall* 2>&1)
    is "$said" ""
}
untouched() { is "$(readlink -f /usr/lib/apache2/suexec)" /usr/lib/apache2/suexec-pristine && is "$(shows ActiveState)" inactive; }
# What replaces a file that views show has the sites applied again: an account that is made, and a file of /etc right behind it.
applied_since() { [ "$(shows ExecMainStartTimestampMonotonic cellwall-views)" -gt "$1" ]; }
replace() { cp "$1" new && echo "$2" >> new && mv new "$1"; }
noticed() {
    local before
    before=$(shows ExecMainStartTimestampMonotonic cellwall-views)
    useradd newcomer && soon applied_since "$before" || return
    before=$(shows ExecMainStartTimestampMonotonic cellwall-views)
    # The first one's apply has begun, and has not ended.
    replace /etc/nsswitch.conf '# one' && soon applied_since "$before" || return
    before=$(shows ExecMainStartTimestampMonotonic cellwall-views)
    replace /etc/nsswitch.conf '# two' && soon applied_since "$before"
}
below_the_unit() {
    local pid
    for pid in $(pgrep php-cgi); do
        grep -q '^0::/system.slice/cellwalld.service/cellwall-pool/worker-' "/proc/$pid/cgroup" || { cat "/proc/$pid/cgroup" && return 1; }
    done
    pgrep php-cgi > /dev/null
}
counted() { [[ $(shows StatusText) == "2 pools, 2 workers" ]]; }
many_restarts() {
    local _
    for _ in 1 2 3 4 5 6 7 8; do systemctl restart cellwalld || return; done
}
another_main() { [ "$(shows ActiveState)" = active ] && [ "$(shows MainPID)" != "$1" ]; }
killed() {
    local main
    main=$(shows MainPID)
    [ "$main" != 0 ] && kill -KILL "$main" && soon another_main "$main"
}
stuck() {
    mkdir -p /run/systemd/system/cellwalld.service.d
    printf '[Service]\nWatchdogSec=5s\n' > /run/systemd/system/cellwalld.service.d/checks.conf
    systemctl daemon-reload && systemctl restart cellwalld || return
    local main
    main=$(shows MainPID)
    sleep 8
    [ "$main" != 0 ] && is "$(shows MainPID)" "$main" || return
    kill -STOP "$main" && soon another_main "$main"
    local rc=$?
    rm -r /run/systemd/system/cellwalld.service.d
    systemctl daemon-reload && systemctl restart cellwalld && return $rc
}
activated() {
    systemctl enable cellwalld@rose.socket && systemctl stop cellwalld && systemctl start cellwalld@rose.socket cellwalld &&
        is "$(status $nginx rose a.php)" 200 && systemctl stop cellwalld && is "$(shows ActiveState)" inactive &&
        is "$(status $nginx rose a.php)" 200 && is "$(shows ActiveState)" active &&
        systemctl disable --now cellwalld@rose.socket && systemctl restart cellwalld && is "$(status $nginx rose a.php)" 200
}
package() {
    [ ! -e before.deb ] || return 0
    dpkg-deb -R cellwall.deb unpacked && sed -i 's/^Version: .*/&+next/' unpacked/DEBIAN/control &&
        dpkg-deb -Zgzip -z1 -b unpacked new.deb
}
replaced() {
    local main
    main=$(shows MainPID)
    dpkg -i "$1" && another_main "$main"
}
# hardened OPTION: refused with a record, and mended by what `cellwall why` tells to paste.
hardened() {
    local unit=/etc/systemd/system/apache2.service.d
    mkdir -p $unit && printf '[Service]\n%s=yes\n' "$1" > $unit/override.conf
    systemctl daemon-reload && systemctl restart apache2 && is "$(status $apache rose a.php)" 500 || return
    cellwall why --last > story || return
    cat story
    sh -c "$(sed -n 's/^ *repair *//p' story)" && is "$(status $apache rose a.php)" 200
    local rc=$?
    rm -r $unit
    systemctl daemon-reload && systemctl restart apache2 && return $rc
}
# What docs/packages.md has for httpd, whose suEXEC is no link, here in the place of Debian's own: that one refuses what is not
# below /var/www.
mounted() {
    local unit=/etc/systemd/system/apache2.service.d stock=/usr/lib/apache2/suexec-pristine
    mkdir -p $unit && update-alternatives --set suexec $stock &&
        sed "s,/usr/sbin/suexec,$stock," /usr/share/doc/cellwall/examples/httpd/cellwall.conf > $unit/cellwall.conf
    systemctl daemon-reload && systemctl restart apache2 && is "$(status $apache rose a.php)" 200
    local rc=$?
    rm -r $unit
    systemctl daemon-reload && systemctl restart apache2 && is "$(status $apache rose a.php)" 500 &&
        update-alternatives --set suexec /usr/lib/cellwall/cellwall-suexec && is "$(status $apache rose a.php)" 200 && return $rc
}
# What is in the journal can be read a moment later.
told() { cellwall why --last rose > story && grep -q "$1" story; }
journal() {
    sed -i 's/^# to = .*/to = "syslog"/' /etc/cellwall/cellwall.toml && cellwall apply || return
    chmod o+w /srv/www/rose/htdocs/a.php
    is "$(status $apache rose a.php)" 500 && soon told V118 && cat story &&
        sh -c "$(sed -n 's/^ *repair *//p' story)" && is "$(status $apache rose a.php)" 200 &&
        journalctl -t cellwall-suexec | grep -q 'launch ref='
    local rc=$?
    sed -i 's/^to = .*/# to = "file"/' /etc/cellwall/cellwall.toml && cellwall apply && return $rc
}
none_failed() { is "$(systemctl --failed --no-legend --plain)" ""; }
directories() { is "$(stat -c '%a %U' /run/cellwall /run/cellwall/views /run/cellwall/pool | xargs)" "755 root 700 root 711 root"; }
views() { is "$(shows Result cellwall-views)" success && [ "$(grep -c ' /run/cellwall/views/' /proc/mounts)" -ge 2 ]; }
removed() {
    apt-get remove -y cellwall || return
    untouched && is "$(grep -c /run/cellwall /proc/self/mountinfo)" 0 && [ ! -e /run/cellwall ] &&
        is "$(pgrep -c 'php-cgi|cellwall')" 0 && is "$(find /etc/systemd /sys/fs/cgroup -name 'cellwalld*.s*')" "" &&
        [ -e /etc/cellwall/sites.d/rose.toml ]
}
again() { dpkg -i cellwall.deb && systemctl enable --now cellwalld && is "$(status $nginx rose a.php)" 200; }
purged() {
    apt-get purge -y cellwall || return
    is "$(find / -xdev -path /checks -prune -o -path /proc -prune -o -name '*cellwall*' -print)" ""
}

first() {
    check "a host with Apache and nginx" prepare
    check "the package is installed" dpkg -i $old
    check "systemd finds nothing wrong with the units" units
    check "installing changes nothing for the web server" untouched
    check "sites are configured, as the README says" configure
    check "both sites are served, by Apache and by nginx" served
    check "a new account, and each change of nsswitch.conf, have the sites applied" noticed
    check "workers are below the unit's control group" below_the_unit
    check "the status shows the workers" soon counted
    check "a reload loses no request" lossless systemctl reload cellwalld
    check "eight restarts in a row lose no request" lossless many_restarts
    check "a killed daemon comes again, and what ran is asked for again" lossless killed
    check "a stuck daemon is replaced, and what ran is asked for again" lossless stuck
    check "a socket of systemd's starts the daemon" activated
    check "the next version is made" package
    check "an upgrade loses no request" lossless replaced $new
    check "a downgrade loses no request" lossless replaced $old
    [ $old = cellwall.deb ] || check "the upgrade, once more, loses no request" lossless replaced $new
    check "NoNewPrivileges= is refused, told and mended" hardened NoNewPrivileges
    check "RestrictSUIDSGID= is refused, told and mended" hardened RestrictSUIDSGID
    check "a drop-in puts the launcher in the place of a suEXEC that is no link" mounted
    check "the journal is a log" journal
    check "no unit has failed" none_failed
    touch booted
}

second() {
    check "directories of /run are there after a reboot" directories
    check "views are there after a reboot" views
    check "both sites are served after a reboot" served
    check "no unit has failed after a reboot" none_failed
    check "removing takes away what runs, and keeps what people wrote" removed
    check "installing again finds it" again
    check "purging leaves nothing" purged
    check "no unit has failed at the end" none_failed
}

if [ -e booted ]; then second; else first; fi
echo end
