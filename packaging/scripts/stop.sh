if [ -d /run/systemd/system ]; then
    systemctl disable --quiet cellwall-views.path cellwall-views.service cellwalld@.socket cellwalld.service || true
    systemctl stop cellwall-views.path cellwall-views.service 'cellwalld@*.socket' cellwalld.service || true
fi
if cellwall status > /dev/null 2>&1; then
    echo "cellwalld runs, as root, and systemd did not start it. End it first: kill -TERM \$(pgrep -o -x cellwalld)" >&2
    exit 1
fi
