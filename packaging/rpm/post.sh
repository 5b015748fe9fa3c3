# The user of the sinks' process.
if command -v systemd-sysusers >/dev/null; then
    systemd-sysusers sockstate.conf || :
fi
# As on Debian, the service is not enabled: the administrator enables it.
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || :
fi
