# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_sockstate_global_optspecs
    string join \n format= escape-formulas o/output= color= records= interim= sample= snapshot cmdline nat metrics= metrics-top= metrics-by= metrics-by-limit= duration= count= threshold= no-stuck 4/ipv4 6/ipv6 p/port= L/local-port= D/remote-port= local= remote= pid= comm= netns= cgroup= pod= namespace= workload= container= from= to= ring-size= resync= lock= alongside hook= tier= btf= h/help V/version
end

function __fish_sockstate_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_sockstate_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_sockstate_using_subcommand
    set -l cmd (__fish_sockstate_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c sockstate -n "__fish_sockstate_needs_command" -l format -d 'Format of the output [default: table on a terminal, otherwise json]' -r -f -a "table\t'A table for people'
json\t'One JSON object per line (docs/events.md)'
csv\t'CSV with the header and columns of bcc\'s tcpstates, or tcplife'
ecs\t'Elastic Common Schema, one JSON object per line'
otlp\t'OpenTelemetry\'s log data model as JSON, one log record per line'
syslog\t'Messages of RFC 5424, one per line'"
complete -c sockstate -n "__fish_sockstate_needs_command" -s o -l output -d 'Write to FILE instead of standard output' -r -F
complete -c sockstate -n "__fish_sockstate_needs_command" -l color -d 'Colour the table; auto: on a terminal, unless NO_COLOR is set' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c sockstate -n "__fish_sockstate_needs_command" -l records -d 'Write only these records: transitions, connections, stuck, resolved, snapshots, resyncs, resets' -r
complete -c sockstate -n "__fish_sockstate_needs_command" -l interim -d 'With records of connections: also report those that go on, once in each interval of this length, with final false' -r
complete -c sockstate -n "__fish_sockstate_needs_command" -l sample -d 'Write the transitions and connections of one in N connections only, both ends of the same ones on all hosts; all records of stuck connections and of losses' -r
complete -c sockstate -n "__fish_sockstate_needs_command" -l metrics -d 'Serve Prometheus metrics at http://ADDRESS/metrics, and /healthz and /readyz (docs/metrics.md): 127.0.0.1:9435, or 9435 for the same' -r
complete -c sockstate -n "__fish_sockstate_needs_command" -l metrics-top -d 'Add metrics of the N processes with the most stuck sockets: up to N more series at a time' -r
complete -c sockstate -n "__fish_sockstate_needs_command" -l metrics-by -d 'Add metrics of all sockets and of the stuck ones by these labels: comm, unit, namespace, workload, pod, container, local_port, peer' -r
complete -c sockstate -n "__fish_sockstate_needs_command" -l metrics-by-limit -d 'How many combinations of the labels have series of their own: those with the most sockets. All others are counted together, with the label other="true"' -r
complete -c sockstate -n "__fish_sockstate_needs_command" -l duration -d 'End TIME after the first record was written: 10s, 5m, 1h30m; a plain number means seconds' -r
complete -c sockstate -n "__fish_sockstate_needs_command" -l count -d 'End after N transitions' -r
complete -c sockstate -n "__fish_sockstate_needs_command" -l threshold -d 'After which time in a state a connection counts as stuck, instead of the defaults: [STATE][:PORTS][@COMM]=TIME, for example CLOSE_WAIT=5m or :8080=30s. With never as TIME, it does not count as stuck' -r
complete -c sockstate -n "__fish_sockstate_needs_command" -s p -l port -d 'Local or remote port: 443, 80,443, 8000-8099' -r
complete -c sockstate -n "__fish_sockstate_needs_command" -s L -l local-port -l localport -d 'Local port' -r
complete -c sockstate -n "__fish_sockstate_needs_command" -s D -l remote-port -l remoteport -d 'Remote port' -r
complete -c sockstate -n "__fish_sockstate_needs_command" -l local -d 'Local address or prefix, e.g. 10.0.0.0/8' -r
complete -c sockstate -n "__fish_sockstate_needs_command" -l remote -d 'Remote address or prefix' -r
complete -c sockstate -n "__fish_sockstate_needs_command" -l pid -d 'Whole connections of the process with this id: it opened, holds or accepted them, or owns their listener' -r
complete -c sockstate -n "__fish_sockstate_needs_command" -l comm -d 'Whole connections of processes with this name' -r
complete -c sockstate -n "__fish_sockstate_needs_command" -l netns -d 'Network namespace: its inode number, a name of `ip netns`, or a path such as /proc/PID/ns/net' -r
complete -c sockstate -n "__fish_sockstate_needs_command" -l cgroup -d 'Cgroup v2 of the socket, and all cgroups below it: /system.slice/nginx.service' -r
complete -c sockstate -n "__fish_sockstate_needs_command" -l pod -d 'Kubernetes pod: NAME, NAMESPACE/NAME, or its uid. A * at the end stands for any rest: \'web-*\'' -r
complete -c sockstate -n "__fish_sockstate_needs_command" -l namespace -d 'Kubernetes namespace; a * at the end stands for any rest. See --netns for network namespaces' -r
complete -c sockstate -n "__fish_sockstate_needs_command" -l workload -d 'What manages the Kubernetes pod: NAME, or KIND/NAME such as deployment/web. A * at the end stands for any rest. Only `sockstate run` with [kubernetes] knows it, and its recordings' -r
complete -c sockstate -n "__fish_sockstate_needs_command" -l container -d 'Container: its name, its id, or at least 12 characters of its id. A * at the end stands for any rest' -r
complete -c sockstate -n "__fish_sockstate_needs_command" -l from -d 'State before the transition: CLOSE_WAIT, close-wait, or a group of ss, such as connected (all but LISTEN and CLOSE)' -r
complete -c sockstate -n "__fish_sockstate_needs_command" -l to -d 'State after the transition; takes the same names' -r
complete -c sockstate -n "__fish_sockstate_needs_command" -l ring-size -d 'Size of the ring buffer between kernel and sockstate, a power of two: 1M, 64M' -r
complete -c sockstate -n "__fish_sockstate_needs_command" -l resync -d 'How often sockstate compares its connections with the kernel\'s tables; it also does so after a loss. 0 means never' -r
complete -c sockstate -n "__fish_sockstate_needs_command" -l lock -d 'The file that a daemon locks to keep a second daemon from starting' -r -F
complete -c sockstate -n "__fish_sockstate_needs_command" -l hook -d 'The hook that shows transitions' -r -f -a "auto\t'The best hook that works'
tp-btf\t'The BTF-typed tracepoint'
tracepoint\t'The classic tracepoint'"
complete -c sockstate -n "__fish_sockstate_needs_command" -l tier -d 'The hooks that show mini-sockets: half-open connections, TIME_WAIT, FIN_WAIT2 after close()' -r -f -a "auto\t'The best tier that works'
fentry\t'fentry on the functions of mini-sockets'
kprobe\t'kprobes on the functions of mini-sockets'
timers\t'Tracepoints of the mini-sockets\' timers'
estimate\t'No hooks: transitions of mini-sockets are estimated'
none\t'No hooks and no estimate'"
complete -c sockstate -n "__fish_sockstate_needs_command" -l btf -d 'Read BTF from this file instead of the kernel\'s' -r -F
complete -c sockstate -n "__fish_sockstate_needs_command" -l escape-formulas -d 'In CSV, put \' before cells that a spreadsheet would read as a formula: =, +, -, @, tab'
complete -c sockstate -n "__fish_sockstate_needs_command" -l snapshot -d 'Write the existing sockets first'
complete -c sockstate -n "__fish_sockstate_needs_command" -l cmdline -d 'Add the owner\'s command line, which may have secrets'
complete -c sockstate -n "__fish_sockstate_needs_command" -l nat -d 'Add how conntrack translates each connection: DNAT, SNAT, masquerade, redirection'
complete -c sockstate -n "__fish_sockstate_needs_command" -l no-stuck -d 'Do not report stuck connections'
complete -c sockstate -n "__fish_sockstate_needs_command" -s 4 -l ipv4 -d 'Only IPv4; v4-mapped addresses count as IPv4'
complete -c sockstate -n "__fish_sockstate_needs_command" -s 6 -l ipv6 -d 'Only IPv6'
complete -c sockstate -n "__fish_sockstate_needs_command" -l alongside -d 'Do not ask whether a daemon is tracing: `run` then does not use the lock, which keeps a second daemon from starting'
complete -c sockstate -n "__fish_sockstate_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sockstate -n "__fish_sockstate_needs_command" -s V -l version -d 'Print version'
complete -c sockstate -n "__fish_sockstate_needs_command" -f -a "trace" -d 'Trace transitions (what plain `sockstate` does)'
complete -c sockstate -n "__fish_sockstate_needs_command" -f -a "run" -d 'Trace as a daemon, and deliver to the sinks of a configuration'
complete -c sockstate -n "__fish_sockstate_needs_command" -f -a "detach" -d 'Remove the kernel programs that a daemon has left attached'
complete -c sockstate -n "__fish_sockstate_needs_command" -f -a "stuck" -d 'Show stuck sockets: since when, whose, why, and what to do'
complete -c sockstate -n "__fish_sockstate_needs_command" -f -a "close-wait" -d 'Show sockets that are stuck in CLOSE_WAIT'
complete -c sockstate -n "__fish_sockstate_needs_command" -f -a "sockets" -d 'Show all TCP sockets of this host'
complete -c sockstate -n "__fish_sockstate_needs_command" -f -a "hunt" -d 'Find the code that opens stuck connections'
complete -c sockstate -n "__fish_sockstate_needs_command" -f -a "record" -d 'Record every transition into a compressed file'
complete -c sockstate -n "__fish_sockstate_needs_command" -f -a "replay" -d 'Show the records of a recording in the formats of `trace`'
complete -c sockstate -n "__fish_sockstate_needs_command" -f -a "diagram" -d 'Draw TCP\'s state machine, alone or with connections'
complete -c sockstate -n "__fish_sockstate_needs_command" -f -a "timeline" -d 'Show the connections of a recording over time'
complete -c sockstate -n "__fish_sockstate_needs_command" -f -a "report" -d 'Write an HTML report of a recording'
complete -c sockstate -n "__fish_sockstate_needs_command" -f -a "top" -d 'Watch the sockets of this host or of a recording'
complete -c sockstate -n "__fish_sockstate_needs_command" -f -a "explain" -d 'Explain a state, a step, or both ends of a connection'
complete -c sockstate -n "__fish_sockstate_needs_command" -f -a "doctor" -d 'Check what works on this host, and what to do'
complete -c sockstate -n "__fish_sockstate_needs_command" -f -a "completions" -d 'Print the completions for a shell'
complete -c sockstate -n "__fish_sockstate_needs_command" -f -a "man" -d 'Show the manual page of sockstate, or of one of its commands'
complete -c sockstate -n "__fish_sockstate_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c sockstate -n "__fish_sockstate_using_subcommand trace" -l format -d 'Format of the output [default: table on a terminal, otherwise json]' -r -f -a "table\t'A table for people'
json\t'One JSON object per line (docs/events.md)'
csv\t'CSV with the header and columns of bcc\'s tcpstates, or tcplife'
ecs\t'Elastic Common Schema, one JSON object per line'
otlp\t'OpenTelemetry\'s log data model as JSON, one log record per line'
syslog\t'Messages of RFC 5424, one per line'"
complete -c sockstate -n "__fish_sockstate_using_subcommand trace" -s o -l output -d 'Write to FILE instead of standard output' -r -F
complete -c sockstate -n "__fish_sockstate_using_subcommand trace" -l color -d 'Colour the table; auto: on a terminal, unless NO_COLOR is set' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c sockstate -n "__fish_sockstate_using_subcommand trace" -l records -d 'Write only these records: transitions, connections, stuck, resolved, snapshots, resyncs, resets' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand trace" -l interim -d 'With records of connections: also report those that go on, once in each interval of this length, with final false' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand trace" -l sample -d 'Write the transitions and connections of one in N connections only, both ends of the same ones on all hosts; all records of stuck connections and of losses' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand trace" -l metrics -d 'Serve Prometheus metrics at http://ADDRESS/metrics, and /healthz and /readyz (docs/metrics.md): 127.0.0.1:9435, or 9435 for the same' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand trace" -l metrics-top -d 'Add metrics of the N processes with the most stuck sockets: up to N more series at a time' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand trace" -l metrics-by -d 'Add metrics of all sockets and of the stuck ones by these labels: comm, unit, namespace, workload, pod, container, local_port, peer' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand trace" -l metrics-by-limit -d 'How many combinations of the labels have series of their own: those with the most sockets. All others are counted together, with the label other="true"' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand trace" -l duration -d 'End TIME after the first record was written: 10s, 5m, 1h30m; a plain number means seconds' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand trace" -l count -d 'End after N transitions' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand trace" -l threshold -d 'After which time in a state a connection counts as stuck, instead of the defaults: [STATE][:PORTS][@COMM]=TIME, for example CLOSE_WAIT=5m or :8080=30s. With never as TIME, it does not count as stuck' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand trace" -s p -l port -d 'Local or remote port: 443, 80,443, 8000-8099' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand trace" -s L -l local-port -l localport -d 'Local port' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand trace" -s D -l remote-port -l remoteport -d 'Remote port' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand trace" -l local -d 'Local address or prefix, e.g. 10.0.0.0/8' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand trace" -l remote -d 'Remote address or prefix' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand trace" -l pid -d 'Whole connections of the process with this id: it opened, holds or accepted them, or owns their listener' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand trace" -l comm -d 'Whole connections of processes with this name' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand trace" -l netns -d 'Network namespace: its inode number, a name of `ip netns`, or a path such as /proc/PID/ns/net' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand trace" -l cgroup -d 'Cgroup v2 of the socket, and all cgroups below it: /system.slice/nginx.service' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand trace" -l pod -d 'Kubernetes pod: NAME, NAMESPACE/NAME, or its uid. A * at the end stands for any rest: \'web-*\'' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand trace" -l namespace -d 'Kubernetes namespace; a * at the end stands for any rest. See --netns for network namespaces' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand trace" -l workload -d 'What manages the Kubernetes pod: NAME, or KIND/NAME such as deployment/web. A * at the end stands for any rest. Only `sockstate run` with [kubernetes] knows it, and its recordings' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand trace" -l container -d 'Container: its name, its id, or at least 12 characters of its id. A * at the end stands for any rest' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand trace" -l from -d 'State before the transition: CLOSE_WAIT, close-wait, or a group of ss, such as connected (all but LISTEN and CLOSE)' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand trace" -l to -d 'State after the transition; takes the same names' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand trace" -l ring-size -d 'Size of the ring buffer between kernel and sockstate, a power of two: 1M, 64M' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand trace" -l resync -d 'How often sockstate compares its connections with the kernel\'s tables; it also does so after a loss. 0 means never' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand trace" -l lock -d 'The file that a daemon locks to keep a second daemon from starting' -r -F
complete -c sockstate -n "__fish_sockstate_using_subcommand trace" -l hook -d 'The hook that shows transitions' -r -f -a "auto\t'The best hook that works'
tp-btf\t'The BTF-typed tracepoint'
tracepoint\t'The classic tracepoint'"
complete -c sockstate -n "__fish_sockstate_using_subcommand trace" -l tier -d 'The hooks that show mini-sockets: half-open connections, TIME_WAIT, FIN_WAIT2 after close()' -r -f -a "auto\t'The best tier that works'
fentry\t'fentry on the functions of mini-sockets'
kprobe\t'kprobes on the functions of mini-sockets'
timers\t'Tracepoints of the mini-sockets\' timers'
estimate\t'No hooks: transitions of mini-sockets are estimated'
none\t'No hooks and no estimate'"
complete -c sockstate -n "__fish_sockstate_using_subcommand trace" -l btf -d 'Read BTF from this file instead of the kernel\'s' -r -F
complete -c sockstate -n "__fish_sockstate_using_subcommand trace" -l escape-formulas -d 'In CSV, put \' before cells that a spreadsheet would read as a formula: =, +, -, @, tab'
complete -c sockstate -n "__fish_sockstate_using_subcommand trace" -l snapshot -d 'Write the existing sockets first'
complete -c sockstate -n "__fish_sockstate_using_subcommand trace" -l cmdline -d 'Add the owner\'s command line, which may have secrets'
complete -c sockstate -n "__fish_sockstate_using_subcommand trace" -l nat -d 'Add how conntrack translates each connection: DNAT, SNAT, masquerade, redirection'
complete -c sockstate -n "__fish_sockstate_using_subcommand trace" -l no-stuck -d 'Do not report stuck connections'
complete -c sockstate -n "__fish_sockstate_using_subcommand trace" -s 4 -l ipv4 -d 'Only IPv4; v4-mapped addresses count as IPv4'
complete -c sockstate -n "__fish_sockstate_using_subcommand trace" -s 6 -l ipv6 -d 'Only IPv6'
complete -c sockstate -n "__fish_sockstate_using_subcommand trace" -l alongside -d 'Do not ask whether a daemon is tracing: `run` then does not use the lock, which keeps a second daemon from starting'
complete -c sockstate -n "__fish_sockstate_using_subcommand trace" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sockstate -n "__fish_sockstate_using_subcommand run" -l config -d 'The configuration file (docs/configuration.md)' -r -F
complete -c sockstate -n "__fish_sockstate_using_subcommand run" -l check -d 'Only check the configuration, and report all problems'
complete -c sockstate -n "__fish_sockstate_using_subcommand run" -l example -d 'Only print an example configuration with every key explained'
complete -c sockstate -n "__fish_sockstate_using_subcommand run" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sockstate -n "__fish_sockstate_using_subcommand detach" -l pin -d 'The directory in the key `pin`' -r -F
complete -c sockstate -n "__fish_sockstate_using_subcommand detach" -l runtime-dir -d 'The directory in the key `runtime-dir`' -r -F
complete -c sockstate -n "__fish_sockstate_using_subcommand detach" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sockstate -n "__fish_sockstate_using_subcommand stuck" -l format -d 'Format of the output [default: table on a terminal, otherwise json]' -r -f -a "table\t'A table for people'
json\t'One JSON object per line (docs/stuck.md)'"
complete -c sockstate -n "__fish_sockstate_using_subcommand stuck" -l group-by -d 'Count sockets in groups instead of listing each one' -r -f -a "process\t'The processes that hold the sockets'
listener\t'The local port, where a process that listens there is known'
peer\t'The peer\'s address'
container\t'The container, or the systemd unit where there is none'
pod\t'The Kubernetes pod'
namespace\t'The Kubernetes namespace'
workload\t'What manages the Kubernetes pod, from a recording of a daemon with [kubernetes] (--from)'
stack\t'The call path that opened the sockets, from the output of a hunt (--hunt)'"
complete -c sockstate -n "__fish_sockstate_using_subcommand stuck" -l hunt -d 'For --group-by stack: the output of `sockstate hunt --format json`, which may still be running' -r -F
complete -c sockstate -n "__fish_sockstate_using_subcommand stuck" -l from -d 'Show the sockets that were stuck at the end of this recording, instead of this host\'s' -r -F
complete -c sockstate -n "__fish_sockstate_using_subcommand stuck" -l watch -d 'Repeat every TIME (2s if TIME is left out)' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand stuck" -l state -d 'Only these states, by netstat\'s or ss\'s name' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand stuck" -l older-than -d 'Use TIME instead of the time of each threshold; states without a threshold are shown only with --state' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand stuck" -l threshold -d 'When a socket counts as stuck, instead of the defaults: [STATE][:PORTS][@COMM]=TIME, or never instead of TIME' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand stuck" -l warn -d 'Number of stuck sockets for a warning' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand stuck" -l crit -d 'Number of stuck sockets for the critical status' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand stuck" -s p -l port -d 'Local or remote port: 443, 80,443, 8000-8099' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand stuck" -s L -l local-port -l localport -d 'Local port' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand stuck" -s D -l remote-port -l remoteport -d 'Remote port' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand stuck" -l local -d 'Local address or prefix, e.g. 10.0.0.0/8' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand stuck" -l remote -d 'Remote address or prefix' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand stuck" -l pid -d 'Whole connections of the process with this id: it opened, holds or accepted them, or owns their listener' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand stuck" -l comm -d 'Whole connections of processes with this name' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand stuck" -l netns -d 'Network namespace: its inode number, a name of `ip netns`, or a path such as /proc/PID/ns/net' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand stuck" -l cgroup -d 'Cgroup v2 of the socket, and all cgroups below it: /system.slice/nginx.service' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand stuck" -l pod -d 'Kubernetes pod: NAME, NAMESPACE/NAME, or its uid. A * at the end stands for any rest: \'web-*\'' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand stuck" -l namespace -d 'Kubernetes namespace; a * at the end stands for any rest. See --netns for network namespaces' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand stuck" -l workload -d 'What manages the Kubernetes pod: NAME, or KIND/NAME such as deployment/web. A * at the end stands for any rest. Only `sockstate run` with [kubernetes] knows it, and its recordings' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand stuck" -l container -d 'Container: its name, its id, or at least 12 characters of its id. A * at the end stands for any rest' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand stuck" -l check -d 'Write one line as a monitoring plugin does, with exit status 0, 1 (warning), 2 (critical) or 3 (unknown)'
complete -c sockstate -n "__fish_sockstate_using_subcommand stuck" -s 4 -l ipv4 -d 'Only IPv4; v4-mapped addresses count as IPv4'
complete -c sockstate -n "__fish_sockstate_using_subcommand stuck" -s 6 -l ipv6 -d 'Only IPv6'
complete -c sockstate -n "__fish_sockstate_using_subcommand stuck" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sockstate -n "__fish_sockstate_using_subcommand close-wait" -l format -d 'Format of the output [default: table on a terminal, otherwise json]' -r -f -a "table\t'A table for people'
json\t'One JSON object per line (docs/stuck.md)'"
complete -c sockstate -n "__fish_sockstate_using_subcommand close-wait" -l group-by -d 'Count sockets in groups instead of listing each one' -r -f -a "process\t'The processes that hold the sockets'
listener\t'The local port, where a process that listens there is known'
peer\t'The peer\'s address'
container\t'The container, or the systemd unit where there is none'
pod\t'The Kubernetes pod'
namespace\t'The Kubernetes namespace'
workload\t'What manages the Kubernetes pod, from a recording of a daemon with [kubernetes] (--from)'
stack\t'The call path that opened the sockets, from the output of a hunt (--hunt)'"
complete -c sockstate -n "__fish_sockstate_using_subcommand close-wait" -l hunt -d 'For --group-by stack: the output of `sockstate hunt --format json`, which may still be running' -r -F
complete -c sockstate -n "__fish_sockstate_using_subcommand close-wait" -l from -d 'Show the sockets that were stuck at the end of this recording, instead of this host\'s' -r -F
complete -c sockstate -n "__fish_sockstate_using_subcommand close-wait" -l watch -d 'Repeat every TIME (2s if TIME is left out)' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand close-wait" -l state -d 'Only these states, by netstat\'s or ss\'s name' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand close-wait" -l older-than -d 'Use TIME instead of the time of each threshold; states without a threshold are shown only with --state' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand close-wait" -l threshold -d 'When a socket counts as stuck, instead of the defaults: [STATE][:PORTS][@COMM]=TIME, or never instead of TIME' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand close-wait" -l warn -d 'Number of stuck sockets for a warning' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand close-wait" -l crit -d 'Number of stuck sockets for the critical status' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand close-wait" -s p -l port -d 'Local or remote port: 443, 80,443, 8000-8099' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand close-wait" -s L -l local-port -l localport -d 'Local port' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand close-wait" -s D -l remote-port -l remoteport -d 'Remote port' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand close-wait" -l local -d 'Local address or prefix, e.g. 10.0.0.0/8' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand close-wait" -l remote -d 'Remote address or prefix' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand close-wait" -l pid -d 'Whole connections of the process with this id: it opened, holds or accepted them, or owns their listener' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand close-wait" -l comm -d 'Whole connections of processes with this name' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand close-wait" -l netns -d 'Network namespace: its inode number, a name of `ip netns`, or a path such as /proc/PID/ns/net' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand close-wait" -l cgroup -d 'Cgroup v2 of the socket, and all cgroups below it: /system.slice/nginx.service' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand close-wait" -l pod -d 'Kubernetes pod: NAME, NAMESPACE/NAME, or its uid. A * at the end stands for any rest: \'web-*\'' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand close-wait" -l namespace -d 'Kubernetes namespace; a * at the end stands for any rest. See --netns for network namespaces' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand close-wait" -l workload -d 'What manages the Kubernetes pod: NAME, or KIND/NAME such as deployment/web. A * at the end stands for any rest. Only `sockstate run` with [kubernetes] knows it, and its recordings' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand close-wait" -l container -d 'Container: its name, its id, or at least 12 characters of its id. A * at the end stands for any rest' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand close-wait" -l check -d 'Write one line as a monitoring plugin does, with exit status 0, 1 (warning), 2 (critical) or 3 (unknown)'
complete -c sockstate -n "__fish_sockstate_using_subcommand close-wait" -s 4 -l ipv4 -d 'Only IPv4; v4-mapped addresses count as IPv4'
complete -c sockstate -n "__fish_sockstate_using_subcommand close-wait" -s 6 -l ipv6 -d 'Only IPv6'
complete -c sockstate -n "__fish_sockstate_using_subcommand close-wait" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sockstate -n "__fish_sockstate_using_subcommand sockets" -l format -d 'Format of the output [default: table on a terminal, otherwise json]' -r -f -a "table\t'A table for people'
json\t'One JSON object per line (docs/stuck.md)'"
complete -c sockstate -n "__fish_sockstate_using_subcommand sockets" -l sort -d 'The order of the sockets' -r -f -a "age\t'The oldest first'
state\t'State'
local\t'Local end'
remote\t'Remote end'
process\t'The first holder'
unread\t'The most unread bytes first'"
complete -c sockstate -n "__fish_sockstate_using_subcommand sockets" -l state -d 'Only these states, by netstat\'s or ss\'s name' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand sockets" -s p -l port -d 'Local or remote port: 443, 80,443, 8000-8099' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand sockets" -s L -l local-port -l localport -d 'Local port' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand sockets" -s D -l remote-port -l remoteport -d 'Remote port' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand sockets" -l local -d 'Local address or prefix, e.g. 10.0.0.0/8' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand sockets" -l remote -d 'Remote address or prefix' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand sockets" -l pid -d 'Whole connections of the process with this id: it opened, holds or accepted them, or owns their listener' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand sockets" -l comm -d 'Whole connections of processes with this name' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand sockets" -l netns -d 'Network namespace: its inode number, a name of `ip netns`, or a path such as /proc/PID/ns/net' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand sockets" -l cgroup -d 'Cgroup v2 of the socket, and all cgroups below it: /system.slice/nginx.service' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand sockets" -l pod -d 'Kubernetes pod: NAME, NAMESPACE/NAME, or its uid. A * at the end stands for any rest: \'web-*\'' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand sockets" -l namespace -d 'Kubernetes namespace; a * at the end stands for any rest. See --netns for network namespaces' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand sockets" -l workload -d 'What manages the Kubernetes pod: NAME, or KIND/NAME such as deployment/web. A * at the end stands for any rest. Only `sockstate run` with [kubernetes] knows it, and its recordings' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand sockets" -l container -d 'Container: its name, its id, or at least 12 characters of its id. A * at the end stands for any rest' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand sockets" -s 4 -l ipv4 -d 'Only IPv4; v4-mapped addresses count as IPv4'
complete -c sockstate -n "__fish_sockstate_using_subcommand sockets" -s 6 -l ipv6 -d 'Only IPv6'
complete -c sockstate -n "__fish_sockstate_using_subcommand sockets" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sockstate -n "__fish_sockstate_using_subcommand hunt" -l format -d 'Format of the output [default: text on a terminal, otherwise json]' -r -f -a "text\t'A report for people'
json\t'`stuck` and `resolved` records with the call path (docs/events.md)'
folded\t'Folded stacks, for flame graphs'
svg\t'A flame graph'"
complete -c sockstate -n "__fish_sockstate_using_subcommand hunt" -s o -l output -d 'Write to FILE instead of standard output' -r -F
complete -c sockstate -n "__fish_sockstate_using_subcommand hunt" -l threshold -d 'When a connection counts as stuck, instead of the defaults: [STATE][:PORTS][@COMM]=TIME, or never instead of TIME' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand hunt" -l rate -d 'Limit of call paths per process and second; further ones are counted as lost' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand hunt" -l duration -d 'End TIME after the first record was written: 10s, 5m, 1h30m; a plain number means seconds' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand hunt" -s p -l port -d 'Local or remote port: 443, 80,443, 8000-8099' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand hunt" -s L -l local-port -l localport -d 'Local port' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand hunt" -s D -l remote-port -l remoteport -d 'Remote port' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand hunt" -l local -d 'Local address or prefix, e.g. 10.0.0.0/8' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand hunt" -l remote -d 'Remote address or prefix' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand hunt" -l pid -d 'Whole connections of the process with this id: it opened, holds or accepted them, or owns their listener' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand hunt" -l comm -d 'Whole connections of processes with this name' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand hunt" -l netns -d 'Network namespace: its inode number, a name of `ip netns`, or a path such as /proc/PID/ns/net' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand hunt" -l cgroup -d 'Cgroup v2 of the socket, and all cgroups below it: /system.slice/nginx.service' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand hunt" -l pod -d 'Kubernetes pod: NAME, NAMESPACE/NAME, or its uid. A * at the end stands for any rest: \'web-*\'' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand hunt" -l namespace -d 'Kubernetes namespace; a * at the end stands for any rest. See --netns for network namespaces' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand hunt" -l workload -d 'What manages the Kubernetes pod: NAME, or KIND/NAME such as deployment/web. A * at the end stands for any rest. Only `sockstate run` with [kubernetes] knows it, and its recordings' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand hunt" -l container -d 'Container: its name, its id, or at least 12 characters of its id. A * at the end stands for any rest' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand hunt" -l ring-size -d 'Size of the ring buffer between kernel and sockstate, a power of two: 1M, 64M' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand hunt" -l resync -d 'How often sockstate compares its connections with the kernel\'s tables; it also does so after a loss. 0 means never' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand hunt" -l lock -d 'The file that a daemon locks to keep a second daemon from starting' -r -F
complete -c sockstate -n "__fish_sockstate_using_subcommand hunt" -l hook -d 'The hook that shows transitions' -r -f -a "auto\t'The best hook that works'
tp-btf\t'The BTF-typed tracepoint'
tracepoint\t'The classic tracepoint'"
complete -c sockstate -n "__fish_sockstate_using_subcommand hunt" -l tier -d 'The hooks that show mini-sockets: half-open connections, TIME_WAIT, FIN_WAIT2 after close()' -r -f -a "auto\t'The best tier that works'
fentry\t'fentry on the functions of mini-sockets'
kprobe\t'kprobes on the functions of mini-sockets'
timers\t'Tracepoints of the mini-sockets\' timers'
estimate\t'No hooks: transitions of mini-sockets are estimated'
none\t'No hooks and no estimate'"
complete -c sockstate -n "__fish_sockstate_using_subcommand hunt" -l btf -d 'Read BTF from this file instead of the kernel\'s' -r -F
complete -c sockstate -n "__fish_sockstate_using_subcommand hunt" -s 4 -l ipv4 -d 'Only IPv4; v4-mapped addresses count as IPv4'
complete -c sockstate -n "__fish_sockstate_using_subcommand hunt" -s 6 -l ipv6 -d 'Only IPv6'
complete -c sockstate -n "__fish_sockstate_using_subcommand hunt" -l alongside -d 'Do not ask whether a daemon is tracing: `run` then does not use the lock, which keeps a second daemon from starting'
complete -c sockstate -n "__fish_sockstate_using_subcommand hunt" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sockstate -n "__fish_sockstate_using_subcommand record" -l records -d 'Write only these records: transitions, connections, stuck, resolved, snapshots, resyncs, resets' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand record" -l interim -d 'With records of connections: also report those that go on, once in each interval of this length, with final false' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand record" -l sample -d 'Write the transitions and connections of one in N connections only, both ends of the same ones on all hosts; all records of stuck connections and of losses' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand record" -l metrics -d 'Serve Prometheus metrics at http://ADDRESS/metrics, and /healthz and /readyz (docs/metrics.md): 127.0.0.1:9435, or 9435 for the same' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand record" -l metrics-top -d 'Add metrics of the N processes with the most stuck sockets: up to N more series at a time' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand record" -l metrics-by -d 'Add metrics of all sockets and of the stuck ones by these labels: comm, unit, namespace, workload, pod, container, local_port, peer' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand record" -l metrics-by-limit -d 'How many combinations of the labels have series of their own: those with the most sockets. All others are counted together, with the label other="true"' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand record" -l duration -d 'End TIME after the first record was written: 10s, 5m, 1h30m; a plain number means seconds' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand record" -l count -d 'End after N transitions' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand record" -l threshold -d 'After which time in a state a connection counts as stuck, instead of the defaults: [STATE][:PORTS][@COMM]=TIME, for example CLOSE_WAIT=5m or :8080=30s. With never as TIME, it does not count as stuck' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand record" -s p -l port -d 'Local or remote port: 443, 80,443, 8000-8099' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand record" -s L -l local-port -l localport -d 'Local port' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand record" -s D -l remote-port -l remoteport -d 'Remote port' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand record" -l local -d 'Local address or prefix, e.g. 10.0.0.0/8' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand record" -l remote -d 'Remote address or prefix' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand record" -l pid -d 'Whole connections of the process with this id: it opened, holds or accepted them, or owns their listener' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand record" -l comm -d 'Whole connections of processes with this name' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand record" -l netns -d 'Network namespace: its inode number, a name of `ip netns`, or a path such as /proc/PID/ns/net' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand record" -l cgroup -d 'Cgroup v2 of the socket, and all cgroups below it: /system.slice/nginx.service' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand record" -l pod -d 'Kubernetes pod: NAME, NAMESPACE/NAME, or its uid. A * at the end stands for any rest: \'web-*\'' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand record" -l namespace -d 'Kubernetes namespace; a * at the end stands for any rest. See --netns for network namespaces' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand record" -l workload -d 'What manages the Kubernetes pod: NAME, or KIND/NAME such as deployment/web. A * at the end stands for any rest. Only `sockstate run` with [kubernetes] knows it, and its recordings' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand record" -l container -d 'Container: its name, its id, or at least 12 characters of its id. A * at the end stands for any rest' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand record" -l from -d 'State before the transition: CLOSE_WAIT, close-wait, or a group of ss, such as connected (all but LISTEN and CLOSE)' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand record" -l to -d 'State after the transition; takes the same names' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand record" -l ring-size -d 'Size of the ring buffer between kernel and sockstate, a power of two: 1M, 64M' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand record" -l resync -d 'How often sockstate compares its connections with the kernel\'s tables; it also does so after a loss. 0 means never' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand record" -l lock -d 'The file that a daemon locks to keep a second daemon from starting' -r -F
complete -c sockstate -n "__fish_sockstate_using_subcommand record" -l hook -d 'The hook that shows transitions' -r -f -a "auto\t'The best hook that works'
tp-btf\t'The BTF-typed tracepoint'
tracepoint\t'The classic tracepoint'"
complete -c sockstate -n "__fish_sockstate_using_subcommand record" -l tier -d 'The hooks that show mini-sockets: half-open connections, TIME_WAIT, FIN_WAIT2 after close()' -r -f -a "auto\t'The best tier that works'
fentry\t'fentry on the functions of mini-sockets'
kprobe\t'kprobes on the functions of mini-sockets'
timers\t'Tracepoints of the mini-sockets\' timers'
estimate\t'No hooks: transitions of mini-sockets are estimated'
none\t'No hooks and no estimate'"
complete -c sockstate -n "__fish_sockstate_using_subcommand record" -l btf -d 'Read BTF from this file instead of the kernel\'s' -r -F
complete -c sockstate -n "__fish_sockstate_using_subcommand record" -l snapshot -d 'Write the existing sockets first'
complete -c sockstate -n "__fish_sockstate_using_subcommand record" -l cmdline -d 'Add the owner\'s command line, which may have secrets'
complete -c sockstate -n "__fish_sockstate_using_subcommand record" -l nat -d 'Add how conntrack translates each connection: DNAT, SNAT, masquerade, redirection'
complete -c sockstate -n "__fish_sockstate_using_subcommand record" -l no-stuck -d 'Do not report stuck connections'
complete -c sockstate -n "__fish_sockstate_using_subcommand record" -s 4 -l ipv4 -d 'Only IPv4; v4-mapped addresses count as IPv4'
complete -c sockstate -n "__fish_sockstate_using_subcommand record" -s 6 -l ipv6 -d 'Only IPv6'
complete -c sockstate -n "__fish_sockstate_using_subcommand record" -l alongside -d 'Do not ask whether a daemon is tracing: `run` then does not use the lock, which keeps a second daemon from starting'
complete -c sockstate -n "__fish_sockstate_using_subcommand record" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sockstate -n "__fish_sockstate_using_subcommand replay" -l format -d 'Format of the output [default: table on a terminal, otherwise json: the lines of the recording]' -r -f -a "table\t'A table for people'
json\t'One JSON object per line (docs/events.md)'
csv\t'CSV with the header and columns of bcc\'s tcpstates, or tcplife'
ecs\t'Elastic Common Schema, one JSON object per line'
otlp\t'OpenTelemetry\'s log data model as JSON, one log record per line'
syslog\t'Messages of RFC 5424, one per line'"
complete -c sockstate -n "__fish_sockstate_using_subcommand replay" -l color -d 'Colour the table; auto: on a terminal, unless NO_COLOR is set' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c sockstate -n "__fish_sockstate_using_subcommand replay" -l speed -d 'Play in real time (1), or FACTOR times as fast [default: without waiting]' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand replay" -l records -d 'Write only these records: transitions, connections, stuck, resolved, snapshots, resyncs, resets' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand replay" -s p -l port -d 'Local or remote port: 443, 80,443, 8000-8099' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand replay" -s L -l local-port -l localport -d 'Local port' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand replay" -s D -l remote-port -l remoteport -d 'Remote port' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand replay" -l local -d 'Local address or prefix, e.g. 10.0.0.0/8' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand replay" -l remote -d 'Remote address or prefix' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand replay" -l pid -d 'Whole connections of the process with this id: it opened, holds or accepted them, or owns their listener' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand replay" -l comm -d 'Whole connections of processes with this name' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand replay" -l netns -d 'Network namespace: its inode number, a name of `ip netns`, or a path such as /proc/PID/ns/net' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand replay" -l cgroup -d 'Cgroup v2 of the socket, and all cgroups below it: /system.slice/nginx.service' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand replay" -l pod -d 'Kubernetes pod: NAME, NAMESPACE/NAME, or its uid. A * at the end stands for any rest: \'web-*\'' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand replay" -l namespace -d 'Kubernetes namespace; a * at the end stands for any rest. See --netns for network namespaces' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand replay" -l workload -d 'What manages the Kubernetes pod: NAME, or KIND/NAME such as deployment/web. A * at the end stands for any rest. Only `sockstate run` with [kubernetes] knows it, and its recordings' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand replay" -l container -d 'Container: its name, its id, or at least 12 characters of its id. A * at the end stands for any rest' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand replay" -l from -d 'State before the transition: CLOSE_WAIT, close-wait, or a group of ss, such as connected (all but LISTEN and CLOSE)' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand replay" -l to -d 'State after the transition; takes the same names' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand replay" -l escape-formulas -d 'In CSV, put \' before cells that a spreadsheet would read as a formula: =, +, -, @, tab'
complete -c sockstate -n "__fish_sockstate_using_subcommand replay" -s 4 -l ipv4 -d 'Only IPv4; v4-mapped addresses count as IPv4'
complete -c sockstate -n "__fish_sockstate_using_subcommand replay" -s 6 -l ipv6 -d 'Only IPv6'
complete -c sockstate -n "__fish_sockstate_using_subcommand replay" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sockstate -n "__fish_sockstate_using_subcommand diagram" -l format -d 'Format of the output' -r -f -a "text\t'Text for a terminal of 94 columns'
svg\t'A picture for light and dark backgrounds'
mermaid\t'Mermaid, for Markdown'
dot\t'Graphviz'"
complete -c sockstate -n "__fish_sockstate_using_subcommand diagram" -s o -l output -d 'Write to FILE instead of standard output' -r -F
complete -c sockstate -n "__fish_sockstate_using_subcommand diagram" -l color -d 'Colour the text; auto: on a terminal, unless NO_COLOR is set' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c sockstate -n "__fish_sockstate_using_subcommand diagram" -l from -d 'Add numbers from this recording: counts, median times, and at its end connections and stuck ones in each state' -r -F
complete -c sockstate -n "__fish_sockstate_using_subcommand diagram" -l conn -d 'Highlight the path of this connection' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand diagram" -l duration -d 'End TIME after the first record was written: 10s, 5m, 1h30m; a plain number means seconds' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand diagram" -s p -l port -d 'Local or remote port: 443, 80,443, 8000-8099' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand diagram" -s L -l local-port -l localport -d 'Local port' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand diagram" -s D -l remote-port -l remoteport -d 'Remote port' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand diagram" -l local -d 'Local address or prefix, e.g. 10.0.0.0/8' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand diagram" -l remote -d 'Remote address or prefix' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand diagram" -l pid -d 'Whole connections of the process with this id: it opened, holds or accepted them, or owns their listener' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand diagram" -l comm -d 'Whole connections of processes with this name' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand diagram" -l netns -d 'Network namespace: its inode number, a name of `ip netns`, or a path such as /proc/PID/ns/net' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand diagram" -l cgroup -d 'Cgroup v2 of the socket, and all cgroups below it: /system.slice/nginx.service' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand diagram" -l pod -d 'Kubernetes pod: NAME, NAMESPACE/NAME, or its uid. A * at the end stands for any rest: \'web-*\'' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand diagram" -l namespace -d 'Kubernetes namespace; a * at the end stands for any rest. See --netns for network namespaces' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand diagram" -l workload -d 'What manages the Kubernetes pod: NAME, or KIND/NAME such as deployment/web. A * at the end stands for any rest. Only `sockstate run` with [kubernetes] knows it, and its recordings' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand diagram" -l container -d 'Container: its name, its id, or at least 12 characters of its id. A * at the end stands for any rest' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand diagram" -l live -d 'Add numbers from this host\'s connections, and redraw the picture as they change'
complete -c sockstate -n "__fish_sockstate_using_subcommand diagram" -l alongside -d 'Do not ask whether a daemon is tracing'
complete -c sockstate -n "__fish_sockstate_using_subcommand diagram" -s 4 -l ipv4 -d 'Only IPv4; v4-mapped addresses count as IPv4'
complete -c sockstate -n "__fish_sockstate_using_subcommand diagram" -s 6 -l ipv6 -d 'Only IPv6'
complete -c sockstate -n "__fish_sockstate_using_subcommand diagram" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sockstate -n "__fish_sockstate_using_subcommand timeline" -l conn -d 'Show one connection, by its id' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand timeline" -l format -d 'Format of the output' -r -f -a "text\t'Text for a terminal'
svg\t'A picture for light and dark backgrounds'
html\t'A self-contained page that can be zoomed'"
complete -c sockstate -n "__fish_sockstate_using_subcommand timeline" -s o -l output -d 'Write to FILE instead of standard output' -r -F
complete -c sockstate -n "__fish_sockstate_using_subcommand timeline" -l color -d 'Colour the text; auto: on a terminal, unless NO_COLOR is set' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c sockstate -n "__fish_sockstate_using_subcommand timeline" -l most -d 'Limit of connections: stuck ones come first, then the longest' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand timeline" -s p -l port -d 'Local or remote port: 443, 80,443, 8000-8099' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand timeline" -s L -l local-port -l localport -d 'Local port' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand timeline" -s D -l remote-port -l remoteport -d 'Remote port' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand timeline" -l local -d 'Local address or prefix, e.g. 10.0.0.0/8' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand timeline" -l remote -d 'Remote address or prefix' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand timeline" -l pid -d 'Whole connections of the process with this id: it opened, holds or accepted them, or owns their listener' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand timeline" -l comm -d 'Whole connections of processes with this name' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand timeline" -l netns -d 'Network namespace: its inode number, a name of `ip netns`, or a path such as /proc/PID/ns/net' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand timeline" -l cgroup -d 'Cgroup v2 of the socket, and all cgroups below it: /system.slice/nginx.service' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand timeline" -l pod -d 'Kubernetes pod: NAME, NAMESPACE/NAME, or its uid. A * at the end stands for any rest: \'web-*\'' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand timeline" -l namespace -d 'Kubernetes namespace; a * at the end stands for any rest. See --netns for network namespaces' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand timeline" -l workload -d 'What manages the Kubernetes pod: NAME, or KIND/NAME such as deployment/web. A * at the end stands for any rest. Only `sockstate run` with [kubernetes] knows it, and its recordings' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand timeline" -l container -d 'Container: its name, its id, or at least 12 characters of its id. A * at the end stands for any rest' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand timeline" -s 4 -l ipv4 -d 'Only IPv4; v4-mapped addresses count as IPv4'
complete -c sockstate -n "__fish_sockstate_using_subcommand timeline" -s 6 -l ipv6 -d 'Only IPv6'
complete -c sockstate -n "__fish_sockstate_using_subcommand timeline" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sockstate -n "__fish_sockstate_using_subcommand report" -s o -l output -d 'Write to FILE instead of standard output' -r -F
complete -c sockstate -n "__fish_sockstate_using_subcommand report" -s p -l port -d 'Local or remote port: 443, 80,443, 8000-8099' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand report" -s L -l local-port -l localport -d 'Local port' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand report" -s D -l remote-port -l remoteport -d 'Remote port' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand report" -l local -d 'Local address or prefix, e.g. 10.0.0.0/8' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand report" -l remote -d 'Remote address or prefix' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand report" -l pid -d 'Whole connections of the process with this id: it opened, holds or accepted them, or owns their listener' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand report" -l comm -d 'Whole connections of processes with this name' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand report" -l netns -d 'Network namespace: its inode number, a name of `ip netns`, or a path such as /proc/PID/ns/net' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand report" -l cgroup -d 'Cgroup v2 of the socket, and all cgroups below it: /system.slice/nginx.service' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand report" -l pod -d 'Kubernetes pod: NAME, NAMESPACE/NAME, or its uid. A * at the end stands for any rest: \'web-*\'' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand report" -l namespace -d 'Kubernetes namespace; a * at the end stands for any rest. See --netns for network namespaces' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand report" -l workload -d 'What manages the Kubernetes pod: NAME, or KIND/NAME such as deployment/web. A * at the end stands for any rest. Only `sockstate run` with [kubernetes] knows it, and its recordings' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand report" -l container -d 'Container: its name, its id, or at least 12 characters of its id. A * at the end stands for any rest' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand report" -s 4 -l ipv4 -d 'Only IPv4; v4-mapped addresses count as IPv4'
complete -c sockstate -n "__fish_sockstate_using_subcommand report" -s 6 -l ipv6 -d 'Only IPv6'
complete -c sockstate -n "__fish_sockstate_using_subcommand report" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sockstate -n "__fish_sockstate_using_subcommand top" -l from -d 'Show this recording instead of this host' -r -F
complete -c sockstate -n "__fish_sockstate_using_subcommand top" -l speed -d 'Play in real time (1), or FACTOR times as fast [default: without waiting]' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand top" -l threshold -d 'When a connection counts as stuck, instead of the defaults: [STATE][:PORTS][@COMM]=TIME, or never instead of TIME' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand top" -l lang -d 'Language of explanations [default: the language of the locale, or en]' -r -f -a "en\t''
uk\t''"
complete -c sockstate -n "__fish_sockstate_using_subcommand top" -s p -l port -d 'Local or remote port: 443, 80,443, 8000-8099' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand top" -s L -l local-port -l localport -d 'Local port' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand top" -s D -l remote-port -l remoteport -d 'Remote port' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand top" -l local -d 'Local address or prefix, e.g. 10.0.0.0/8' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand top" -l remote -d 'Remote address or prefix' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand top" -l pid -d 'Whole connections of the process with this id: it opened, holds or accepted them, or owns their listener' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand top" -l comm -d 'Whole connections of processes with this name' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand top" -l netns -d 'Network namespace: its inode number, a name of `ip netns`, or a path such as /proc/PID/ns/net' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand top" -l cgroup -d 'Cgroup v2 of the socket, and all cgroups below it: /system.slice/nginx.service' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand top" -l pod -d 'Kubernetes pod: NAME, NAMESPACE/NAME, or its uid. A * at the end stands for any rest: \'web-*\'' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand top" -l namespace -d 'Kubernetes namespace; a * at the end stands for any rest. See --netns for network namespaces' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand top" -l workload -d 'What manages the Kubernetes pod: NAME, or KIND/NAME such as deployment/web. A * at the end stands for any rest. Only `sockstate run` with [kubernetes] knows it, and its recordings' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand top" -l container -d 'Container: its name, its id, or at least 12 characters of its id. A * at the end stands for any rest' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand top" -l alongside -d 'Do not ask whether a daemon is tracing'
complete -c sockstate -n "__fish_sockstate_using_subcommand top" -s 4 -l ipv4 -d 'Only IPv4; v4-mapped addresses count as IPv4'
complete -c sockstate -n "__fish_sockstate_using_subcommand top" -s 6 -l ipv6 -d 'Only IPv6'
complete -c sockstate -n "__fish_sockstate_using_subcommand top" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sockstate -n "__fish_sockstate_using_subcommand explain" -l lang -d 'Language of the texts [default: the language of the locale, or en]' -r -f -a "en\t''
uk\t''"
complete -c sockstate -n "__fish_sockstate_using_subcommand explain" -l open -d 'Explain how a connection opens, with both ends side by side'
complete -c sockstate -n "__fish_sockstate_using_subcommand explain" -l close -d 'Explain how a connection closes'
complete -c sockstate -n "__fish_sockstate_using_subcommand explain" -l simultaneous-close -d 'Explain how both ends close at the same time'
complete -c sockstate -n "__fish_sockstate_using_subcommand explain" -l reset -d 'Explain how one end resets a connection'
complete -c sockstate -n "__fish_sockstate_using_subcommand explain" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sockstate -n "__fish_sockstate_using_subcommand doctor" -l format -d 'Format of the output' -r -f -a "text\t'Lines for people'
json\t'One JSON object'"
complete -c sockstate -n "__fish_sockstate_using_subcommand doctor" -l ring-size -d 'Try a ring buffer of this size' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand doctor" -l btf -d 'Try this BTF instead of the kernel\'s' -r -F
complete -c sockstate -n "__fish_sockstate_using_subcommand doctor" -l privileges -d 'Only show what each thread of the running daemon, or of the process PID, may do' -r
complete -c sockstate -n "__fish_sockstate_using_subcommand doctor" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sockstate -n "__fish_sockstate_using_subcommand completions" -s h -l help -d 'Print help'
complete -c sockstate -n "__fish_sockstate_using_subcommand man" -s h -l help -d 'Print help'
complete -c sockstate -n "__fish_sockstate_using_subcommand help; and not __fish_seen_subcommand_from trace run detach stuck close-wait sockets hunt record replay diagram timeline report top explain doctor completions man help" -f -a "trace" -d 'Trace transitions (what plain `sockstate` does)'
complete -c sockstate -n "__fish_sockstate_using_subcommand help; and not __fish_seen_subcommand_from trace run detach stuck close-wait sockets hunt record replay diagram timeline report top explain doctor completions man help" -f -a "run" -d 'Trace as a daemon, and deliver to the sinks of a configuration'
complete -c sockstate -n "__fish_sockstate_using_subcommand help; and not __fish_seen_subcommand_from trace run detach stuck close-wait sockets hunt record replay diagram timeline report top explain doctor completions man help" -f -a "detach" -d 'Remove the kernel programs that a daemon has left attached'
complete -c sockstate -n "__fish_sockstate_using_subcommand help; and not __fish_seen_subcommand_from trace run detach stuck close-wait sockets hunt record replay diagram timeline report top explain doctor completions man help" -f -a "stuck" -d 'Show stuck sockets: since when, whose, why, and what to do'
complete -c sockstate -n "__fish_sockstate_using_subcommand help; and not __fish_seen_subcommand_from trace run detach stuck close-wait sockets hunt record replay diagram timeline report top explain doctor completions man help" -f -a "close-wait" -d 'Show sockets that are stuck in CLOSE_WAIT'
complete -c sockstate -n "__fish_sockstate_using_subcommand help; and not __fish_seen_subcommand_from trace run detach stuck close-wait sockets hunt record replay diagram timeline report top explain doctor completions man help" -f -a "sockets" -d 'Show all TCP sockets of this host'
complete -c sockstate -n "__fish_sockstate_using_subcommand help; and not __fish_seen_subcommand_from trace run detach stuck close-wait sockets hunt record replay diagram timeline report top explain doctor completions man help" -f -a "hunt" -d 'Find the code that opens stuck connections'
complete -c sockstate -n "__fish_sockstate_using_subcommand help; and not __fish_seen_subcommand_from trace run detach stuck close-wait sockets hunt record replay diagram timeline report top explain doctor completions man help" -f -a "record" -d 'Record every transition into a compressed file'
complete -c sockstate -n "__fish_sockstate_using_subcommand help; and not __fish_seen_subcommand_from trace run detach stuck close-wait sockets hunt record replay diagram timeline report top explain doctor completions man help" -f -a "replay" -d 'Show the records of a recording in the formats of `trace`'
complete -c sockstate -n "__fish_sockstate_using_subcommand help; and not __fish_seen_subcommand_from trace run detach stuck close-wait sockets hunt record replay diagram timeline report top explain doctor completions man help" -f -a "diagram" -d 'Draw TCP\'s state machine, alone or with connections'
complete -c sockstate -n "__fish_sockstate_using_subcommand help; and not __fish_seen_subcommand_from trace run detach stuck close-wait sockets hunt record replay diagram timeline report top explain doctor completions man help" -f -a "timeline" -d 'Show the connections of a recording over time'
complete -c sockstate -n "__fish_sockstate_using_subcommand help; and not __fish_seen_subcommand_from trace run detach stuck close-wait sockets hunt record replay diagram timeline report top explain doctor completions man help" -f -a "report" -d 'Write an HTML report of a recording'
complete -c sockstate -n "__fish_sockstate_using_subcommand help; and not __fish_seen_subcommand_from trace run detach stuck close-wait sockets hunt record replay diagram timeline report top explain doctor completions man help" -f -a "top" -d 'Watch the sockets of this host or of a recording'
complete -c sockstate -n "__fish_sockstate_using_subcommand help; and not __fish_seen_subcommand_from trace run detach stuck close-wait sockets hunt record replay diagram timeline report top explain doctor completions man help" -f -a "explain" -d 'Explain a state, a step, or both ends of a connection'
complete -c sockstate -n "__fish_sockstate_using_subcommand help; and not __fish_seen_subcommand_from trace run detach stuck close-wait sockets hunt record replay diagram timeline report top explain doctor completions man help" -f -a "doctor" -d 'Check what works on this host, and what to do'
complete -c sockstate -n "__fish_sockstate_using_subcommand help; and not __fish_seen_subcommand_from trace run detach stuck close-wait sockets hunt record replay diagram timeline report top explain doctor completions man help" -f -a "completions" -d 'Print the completions for a shell'
complete -c sockstate -n "__fish_sockstate_using_subcommand help; and not __fish_seen_subcommand_from trace run detach stuck close-wait sockets hunt record replay diagram timeline report top explain doctor completions man help" -f -a "man" -d 'Show the manual page of sockstate, or of one of its commands'
complete -c sockstate -n "__fish_sockstate_using_subcommand help; and not __fish_seen_subcommand_from trace run detach stuck close-wait sockets hunt record replay diagram timeline report top explain doctor completions man help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
