# As on Debian, the service is not enabled: the administrator enables it.
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || :
fi
