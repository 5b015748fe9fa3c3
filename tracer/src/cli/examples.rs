//! Examples and exit codes, which `--help` shows below the flags.

pub(super) const HUNT_EXAMPLES: &str = "\
Examples:
  sockstate hunt --threshold CLOSE_WAIT=10s           until Ctrl-C: every call path and its stuck sockets
  sockstate hunt --comm python3 --duration 10m        one program
  sockstate hunt --duration 1h --format svg -o leak.svg";

pub(super) const EXPLAIN_EXAMPLES: &str = "\
Examples:
  sockstate explain                             every state in one line
  sockstate explain CLOSE_WAIT                  what it means, who must act, what limits it, when it is a fault
  sockstate explain FIN_WAIT2 TIME_WAIT         one step
  sockstate explain --close                     both ends, side by side
  sockstate explain --lang uk CLOSE_WAIT        in Ukrainian";

pub(super) const RECORD_EXAMPLES: &str = "\
Examples:
  sockstate record --duration 10m night.zst              all transitions of ten minutes, and the existing sockets
  sockstate replay night.zst                             show it as `sockstate` shows a trace
  sockstate replay --speed 10 --to CLOSE_WAIT night.zst  ten times as fast, only these transitions
  sockstate report night.zst -o night.html               write an HTML report";

pub(super) const DIAGRAM_EXAMPLES: &str = "\
Examples:
  sockstate diagram                                   the state machine
  sockstate diagram --format svg -o tcp.svg           as a picture
  sockstate diagram --live                            with this host's connections, live
  sockstate diagram --from night.zst --format svg     with the connections of a recording
  sockstate diagram --from night.zst --conn 004f020000000025   the path of one connection";

pub(super) const TIMELINE_EXAMPLES: &str = "\
Examples:
  sockstate timeline night.zst                                on the terminal
  sockstate timeline night.zst --format html -o night.html    for a browser
  sockstate timeline night.zst --comm nginx --port 443        one service
  sockstate timeline night.zst --conn 004f020000000025        one connection, step by step";

pub(super) const TOP_EXAMPLES: &str = "\
Examples:
  sockstate top                               this host; ? shows the keys
  sockstate top --comm nginx                  one program
  sockstate top --from night.zst --speed 10   a recording, ten times as fast";

pub(super) const STUCK_EXAMPLES: &str = "\
Examples:
  sockstate stuck                                 sockets past the threshold of their state, holders, reasons
  sockstate close-wait --group-by process         which processes leak, and how many sockets
  sockstate stuck --older-than 10s --port 443     one service, ten seconds or longer in a state
  sockstate stuck --check --warn 10 --crit 100    for Nagios and compatible monitoring
  sockstate stuck --from night.zst                at the end of a recording";

pub(super) const SOCKETS_EXAMPLES: &str = "\
Examples:
  sockstate sockets                               like ss -tan, for all network namespaces, with ages and holders
  sockstate sockets --state LISTEN --sort unread  the fullest accept queues first
  sockstate sockets --comm nginx --format json    one program, for a script";

pub(super) const DOCTOR_EXAMPLES: &str = "\
Examples:
  sockstate doctor                                what works here, and what to do about the rest
  sockstate doctor --ring-size 64M                does a larger ring fit?
  sockstate doctor --format json                  for a script";

pub(super) const DETACH_EXAMPLES: &str = "\
Examples:
  sockstate detach                                the programs of `pin = \"/sys/fs/bpf/sockstate\"`
  sockstate detach --pin /sys/fs/bpf/mine         another directory";

pub(super) const RUN_EXAMPLES: &str = "\
Examples:
  sockstate run --example > config.toml         an example configuration
  sockstate run --config config.toml --check    check it
  sockstate run --config config.toml            SIGHUP reloads it, SIGTERM stops the daemon";

pub(super) const EXAMPLES: &str = "\
Examples:
  sockstate                                      every transition, live
  sockstate --to CLOSE_WAIT                      connections that the peer has closed
  sockstate --local-port 443 --format json       one service, as NDJSON
  sockstate --comm nginx --snapshot              one program, existing sockets first
  sockstate --remote 10.0.0.0/8 --output t.json  one network, into a file
  sockstate stuck                                stuck sockets, holders, reasons
  sockstate sockets --state CLOSE_WAIT           like ss, for all namespaces, with ages and holders
  sockstate top                                  a live screen
  sockstate explain CLOSE_WAIT                   what a state means, and who must act
  sockstate doctor                               what works here, and what to do about the rest

Exit status:
  0  ended by a signal, --duration, --count or a closed pipe
  1  the output failed; doctor: tracing does not work
  2  bad arguments
  3  this kernel cannot trace
  4  privileges are missing
  5  another sockstate is tracing";
