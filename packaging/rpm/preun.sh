# The argument is the number of versions that remain.
if [ "$1" -eq 0 ]; then
    if [ -d /run/systemd/system ]; then
        systemctl --no-reload disable --now sockstate.service || :
        systemctl stop sockstate-sinks.socket || :
    fi
    # With the key `pin`, a daemon that ends leaves its kernel programs attached for the next one.
    sockstate detach >/dev/null 2>&1 || :
fi
