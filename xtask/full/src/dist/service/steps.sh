#!/bin/bash
# The life of the installed service, step by step, in a virtual machine with systemd. Each step prints a line on the
# console that begins with `ok` or `NO`. The last line is PASSED if no step has failed.

exec 3>/dev/console
cd /test || exit

LOG=/var/log/sockstate
CONFIG=/etc/sockstate/config.toml
DROP_IN=/run/systemd/system/sockstate.service.d
COLLECTED=/run/collected
export DEBIAN_FRONTEND=noninteractive

# Runs a function as a step; what it prints is the reason if it fails.
step() {
    local name=$1 reason
    if reason=$("$2" 2>&1 3>&-); then
        echo "  ok  $name" >&3
        return
    fi
    failed=1
    {
        echo "  NO  $name: $(tail --lines 1 <<<"$reason")"
        echo "$reason"
        journalctl --no-pager --lines 15 --unit 'sockstate*' --output cat
    } >&3
}

# Waits until a command succeeds.
wait_for() {
    local tries=600
    until "$@" >/dev/null 2>&1; do
        ((--tries)) || { echo "in vain: $*"; return 1; }
        sleep 0.3
    done
}

# Whether a line of a file matches all patterns.
has() {
    local lines pattern
    lines=$(cat "$1") || return
    for pattern in "${@:2}"; do
        lines=$(grep -e "$pattern" <<<"$lines") || { echo "$1 has no line with $*"; return 1; }
    done
}

property() { systemctl show --value --property "$1" sockstate; }

# Whether a property of the service has this value.
is() { [ "$(property "$1")" = "$2" ] || { echo "$1 is $(property "$1"), not $2"; return 1; }; }

# Whether another process than this one is the service.
is_after() { [ "$(property MainPID)" != "$1" ] && is ActiveState active; }

# Runs a helper as a unit of its own, with the options of systemd-run in this list.
options=()
sockets() {
    systemd-run --quiet --collect --unit "$1" "${options[@]}" perl /test/sockets.pl "${@:2}"
}

# The server's end of the connection at a port.
local_port() { echo "\"local\":{\"address\":\"127.0.0.1\",\"port\":$1}"; }

# The `conn` of this end.
conn() {
    grep '"to":"ESTABLISHED"' $LOG/all.json | grep "$(local_port "$1")" | sed 's/.*"conn":"\([0-9a-f]*\)".*/\1/'
}

# Opens a connection of the unit `holder` at a port, and waits until the daemon has saved it for its next process.
open_connection() {
    sockets holder hold "$1" || return
    wait_for has $LOG/all.json '"to":"ESTABLISHED"' "$(local_port "$1")" || return
    touch /run/recorded
    wait_for saved
}
# The daemon saves only after something has changed, so this asks by a connection.
saved() { get /readyz && [ -n "$(find /run/sockstate -type f -newer /run/recorded)" ]; }

# Ends the next end of that connection.
end_connection() { systemctl kill --signal USR1 holder; }

# Whether the kernel has a socket at this port in this state, both in hexadecimal.
in_kernel() { grep --quiet "^ *[0-9]*: 0100007F:$1 [0-9A-F:]* $2 " /proc/net/tcp; }

# Whether the records of a connection are complete, and nothing was lost since its first one.
is_whole() {
    local states expected
    expected="LISTEN>SYN_RECV SYN_RECV>ESTABLISHED ESTABLISHED>CLOSE_WAIT CLOSE_WAIT>LAST_ACK LAST_ACK>CLOSE"
    wait_for has $LOG/all.json "\"conn\":\"$1\"" '"to":"CLOSE"' || return
    states=$(grep "\"conn\":\"$1\"" $LOG/all.json | grep '"kind":"transition"' |
        sed 's/.*"from":"\([A-Z0-9_]*\)","to":"\([A-Z0-9_]*\)".*/\1>\2/' | xargs)
    systemctl stop holder
    if [ "$states" != "$expected" ]; then
        echo "the records of the connection: $states"
        return 1
    fi
    if sed --quiet "/\"conn\":\"$1\"/,\$p" $LOG/all.json | grep '"kind":"lost"'; then return 1; fi
}

has_pins() { [ -n "$(ls -A /sys/fs/bpf/sockstate 2>/dev/null)" ]; }

get() (
    exec 4<>/dev/tcp/127.0.0.1/9435 && printf 'GET %s HTTP/1.0\r\n\r\n' "$1" >&4 && cat <&4
)

install_old() {
    dpkg --install old.deb && [ "$(systemctl is-enabled sockstate)" = disabled ] && is ActiveState inactive
}

start() {
    systemctl enable --now sockstate && is ActiveState active && is NRestarts 0 &&
        has $LOG/stuck.json '"kind":"start"' && [[ $(property StatusText) == "tracing with"* ]]
}

# The process of the sinks has another user and no capability.
separate() {
    local privileges pid
    privileges=$(sockstate doctor --privileges) && echo "$privileges" || return
    pid=$(sed --quiet 's/^process \([0-9]*\) (the sinks)$/\1/p' <<<"$privileges")
    [ "$(awk '/^Uid:/ { print $2 }' "/proc/$pid/status")" = "$(id --user sockstate)" ] || return
    if sed '1,/(the sinks)$/d' <<<"$privileges" | grep CAP_; then return 1; fi
    [ "$(stat --format %U $LOG/stuck.json)" = sockstate ]
}

second_daemon() {
    sockstate run
    [ $? = 5 ]
}

metrics() {
    get /readyz | grep --quiet ' 200 ' && get /metrics | grep '^sockstate_transitions_total'
}

reload() {
    cat >>$CONFIG <<END
[stuck]
threshold = ["CLOSE_WAIT=2s"]
[sinks.all]
type = "file"
path = "$LOG/all.json"
END
    systemctl reload sockstate && wait_for has $LOG/all.json '"kind":"start"' && wait_for is SubState running
}

restart() {
    local pid
    pid=$(property MainPID)
    sed --in-place '1i pin = "/sys/fs/bpf/sockstate"' $CONFIG
    systemctl restart sockstate && is_after "$pid" && has_pins && is Result success
}

# Here, and as another user in another network namespace.
stuck() {
    sockets leaker leak 7001 || return
    local port options=(--property PrivateNetwork=yes --property User=nobody)
    sockets leaker-inside leak 7002 || return
    for port in 7001 7002; do
        wait_for has $LOG/stuck.json '"kind":"stuck"' "$(local_port $port)" '"holders":.*"comm":"leaker"' || return
        sockstate stuck --older-than 1s --format json | grep "$(local_port $port)" | grep '"comm":"leaker"' || return
    done
    systemctl stop leaker leaker-inside
    for port in 7001 7002; do
        wait_for has $LOG/stuck.json '"kind":"resolved"' "$(local_port $port)" || return
    done
}

# The unit waits ten seconds before it starts the service again.
crash() {
    local pid id
    open_connection 7003 || return
    pid=$(property MainPID) id=$(conn 7003)
    systemctl kill --kill-whom main --signal KILL sockstate
    wait_for is SubState auto-restart || return
    end_connection
    wait_for in_kernel 1B5B 08 && is SubState auto-restart || return
    wait_for is_after "$pid" && is NRestarts 1 && end_connection && is_whole "$id"
}

# The service ends with the process of its sinks, and systemd starts both again.
sinks_crash() {
    local pid starts
    pid=$(property MainPID) starts=$(grep --count '"kind":"start"' $LOG/all.json)
    systemctl kill --signal KILL 'sockstate-sinks@*' || return
    wait_for is_after "$pid" && [ "$(grep --count '"kind":"start"' $LOG/all.json)" -gt "$starts" ]
}

watchdog() {
    local pid
    mkdir -p $DROP_IN && printf '[Service]\nWatchdogSec=20\nRestartSec=1\n' >$DROP_IN/watchdog.conf
    systemctl daemon-reload && systemctl restart sockstate || return
    pid=$(property MainPID)
    kill -STOP "$pid"
    wait_for is_after "$pid" && journalctl --unit sockstate | grep 'Watchdog timeout' || return
    rm -r $DROP_IN && systemctl daemon-reload
}

sinks() {
    local sink
    mkdir $COLLECTED && sockets collector collect $COLLECTED && wait_for test -S $COLLECTED/socket || return
    {
        for sink in 'socket tcp address=tcp://127.0.0.1:6001' "socket unix address=unix:$COLLECTED/socket" \
            'syslog syslog address=unix:/dev/log' 'journald journald' 'stdout stdout' \
            'http http url=http://127.0.0.1:6002/http' 'otlp otlp url=http://127.0.0.1:6002' \
            'otlp-metrics numbers url=http://127.0.0.1:6002' 'socket later address=tcp://127.0.0.1:6003'; do
            read -r type name key <<<"$sink"
            printf '[sinks.%s]\ntype = "%s"\n' "$name" "$type"
            [ -z "$key" ] || printf '%s = "%s"\n' "${key%%=*}" "${key#*=}"
            case $name in
                # Nobody listens there before the upgrade.
                later) echo 'spool = "/var/lib/sockstate"' ;;
                otlp) echo 'json = true' ;;
                numbers) printf 'json = true\ninterval = "10s"\n' ;;
            esac
            # Without a filter, they would report their own connections.
            [ "$name" = numbers ] || echo 'filter.port = "7004"'
        done
    } >>$CONFIG
    sockstate run --check && systemctl reload sockstate || return
    wait_for has $COLLECTED/tcp '"kind":"start"' && sockets leaker leak 7004 || return
    wait_for has $COLLECTED/tcp '"to":"CLOSE_WAIT"' && wait_for has $COLLECTED/unix '"to":"CLOSE_WAIT"' &&
        wait_for has $COLLECTED/http '"to":"CLOSE_WAIT"' && wait_for has $COLLECTED/v1-logs 'CLOSE_WAIT' &&
        wait_for has $COLLECTED/v1-metrics 'sockstate.state.duration' &&
        wait_for in_journal _TRANSPORT=syslog && wait_for in_journal _TRANSPORT=journal &&
        wait_for in_journal _TRANSPORT=stdout && systemctl stop leaker
}
in_journal() { journalctl --output json "$1" | grep 'sockstate/1' | grep --quiet CLOSE_WAIT; }

# The unit with another command, which does not speak to systemd.
hunt() {
    sed -e '/^ExecStart=/s|run|hunt --threshold CLOSE_WAIT=2s --output /run/sockstate/hunt.json|' \
        -e 's/^Type=.*/Type=exec/' -e '/^WatchdogSec/d' \
        /usr/lib/systemd/system/sockstate.service >/run/systemd/system/hunt.service
    systemctl daemon-reload && systemctl start hunt && wait_for has /run/sockstate/hunt.json '"kind":"start"' || return
    sockets leaker leak 7005 || return
    wait_for has /run/sockstate/hunt.json '"kind":"stuck"' "$(local_port 7005)" '"opened":{"by":"accept"' || return
    systemctl stop hunt leaker && [ "$(systemctl show --value --property Result hunt)" = success ]
    rm /run/systemd/system/hunt.service
}

upgrade() {
    local pid id before
    open_connection 7004 || return
    pid=$(property MainPID) id=$(conn 7004 | tail --lines 1) before=$(sha256sum $CONFIG)
    dpkg --install new.deb || return
    [[ $(dpkg-query --show sockstate) == *-1 ]] && is_after "$pid" && is Result success || return
    [ "$before" = "$(sha256sum $CONFIG)" ] && systemctl --quiet is-enabled sockstate || return
    end_connection && wait_for in_kernel 1B5C 08 && end_connection && is_whole "$id" || return
    # What was before the upgrade comes from the spool.
    sockets late-collector collect-late 6003 $COLLECTED/later || return
    wait_for has $COLLECTED/later "\"conn\":\"$id\"" '"to":"CLOSE"' || return
    sed 's/.*"seq":\([0-9]*\).*/\1/' $COLLECTED/later | awk '$1 != NR { print "seq " $1 " in line " NR; exit 1 }'
}

bad_configuration() {
    cp $CONFIG good.toml
    sed --in-place '1i nonsense = 1' $CONFIG
    if systemctl restart sockstate; then return 1; fi
    is ActiveState failed && is ExecMainStatus 2 && is NRestarts 0 || return
    cp good.toml $CONFIG
    systemctl start sockstate
}

stop() {
    systemctl stop sockstate && is ActiveState inactive && is Result success && is ExecMainStatus 0 &&
        has <(tail --lines 1 $LOG/all.json) '"kind":"stop"' && has_pins
}

# The service runs when its package is removed.
remove() {
    systemctl start sockstate && dpkg --remove sockstate && is ActiveState inactive || return
    [ ! -e /usr/bin/sockstate ] && [ -e $CONFIG ] && ! has_pins
}

purge() {
    local left
    dpkg --purge sockstate || return
    left=$(find / -xdev -name '*sockstate*'; find /run /sys/fs/bpf -maxdepth 1 -name '*sockstate*')
    [ -z "$left" ] || { echo "there are still ${left//$'\n'/ }"; return 1; }
}

# systemd has left control characters in the first line.
echo >&3
# What `stuck` asks. The order of the modules is not known; some need others.
for _ in 1 2 3; do
    for module in modules/*.ko; do ./busybox insmod "$module" 2>/dev/null; done
done
step "an older revision is installed, its service neither enabled nor started" install_old
step "systemctl enable --now starts the service, and returns when it traces" start
step "sinks have a process of another user, without capabilities" separate
step "a second daemon is refused" second_daemon
step "metrics are served" metrics
step "systemctl reload opens a new sink" reload
step "systemctl restart applies pin" restart
step "stuck connections are reported with their holders, also in another network namespace" stuck
step "kill -9: the service is started again, and a connection goes on without a gap" crash
step "kill -9 of the process of the sinks: the service is started again" sinks_crash
step "a process that stands still is ended by the watchdog, and started again" watchdog
step "sinks of all types deliver" sinks
step "hunt finds what opened a connection" hunt
step "an upgrade restarts the service; a connection and a spool go on without a gap" upgrade
step "a bad configuration is refused, and not tried again" bad_configuration
step "systemctl stop ends the service in order" stop
step "the removal of the package stops the service, and removes the kernel programs" remove
step "the purge leaves nothing" purge
[ -n "$failed" ] || echo PASSED >&3
