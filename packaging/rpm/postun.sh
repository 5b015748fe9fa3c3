# The argument is the number of versions that remain.
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || :
    if [ "$1" -ge 1 ]; then
        systemctl try-restart sockstate.service || :
    fi
fi
