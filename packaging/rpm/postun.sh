# The argument is the number of versions that remain.
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || :
    if [ "$1" -ge 1 ]; then
        systemctl try-restart sockstate.service || :
    fi
fi
# cargo-generate-rpm makes packages without directories, so rpm leaves those of the package.
if [ "$1" -eq 0 ]; then
    for directory in clickhouse duckdb grafana prometheus ''; do
        rmdir "/usr/share/doc/sockstate/$directory" 2>/dev/null || :
    done
    rmdir /usr/share/licenses/sockstate /etc/sockstate 2>/dev/null || :
fi
