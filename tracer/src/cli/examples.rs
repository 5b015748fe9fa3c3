//! What `--help` shows below the flags.

pub(super) const HUNT_EXAMPLES: &str = "\
Examples:
  sockstate hunt --threshold CLOSE_WAIT=10s           until Ctrl-C: every path, and what of it is stuck
  sockstate hunt --comm python3 --duration 10m        one program's
  sockstate hunt --duration 1h --format svg -o leak.svg";

pub(super) const EXPLAIN_EXAMPLES: &str = "\
Examples:
  sockstate explain                             every state in a line
  sockstate explain CLOSE_WAIT                  what it means, whose turn it is, what bounds it, when it is a fault
  sockstate explain FIN_WAIT2 TIME_WAIT         one step
  sockstate explain --close                     both ends, side by side
  sockstate explain --lang uk CLOSE_WAIT        in Ukrainian";

pub(super) const RECORD_EXAMPLES: &str = "\
Examples:
  sockstate record --duration 10m night.zst              every transition of ten minutes, and the sockets that were there first
  sockstate replay night.zst                             as `sockstate` would have shown it
  sockstate replay --speed 10 --to CLOSE_WAIT night.zst  ten times as fast as it happened, and only these
  sockstate report night.zst -o night.html               a page about it";

pub(super) const DIAGRAM_EXAMPLES: &str = "\
Examples:
  sockstate diagram                                   the state machine
  sockstate diagram --format svg -o tcp.svg           as a picture
  sockstate diagram --live                            how this host's connections go through it now
  sockstate diagram --from night.zst --format svg     how those of a recording did
  sockstate diagram --from night.zst --conn 004f020000000025   one connection's path";

pub(super) const TIMELINE_EXAMPLES: &str = "\
Examples:
  sockstate timeline night.zst                                on the terminal
  sockstate timeline night.zst --format html -o night.html    in a browser, to zoom into
  sockstate timeline night.zst --comm nginx --port 443        one service
  sockstate timeline night.zst --conn 004f020000000025        one connection, step by step";

pub(super) const TOP_EXAMPLES: &str = "\
Examples:
  sockstate top                               this host; ? shows the keys
  sockstate top --comm nginx                  one program
  sockstate top --from night.zst --speed 10   a recording, ten times as fast as it happened";

pub(super) const STUCK_EXAMPLES: &str = "\
Examples:
  sockstate stuck                                 what has passed its state's threshold, who holds it, why
  sockstate close-wait --group-by process         who leaks, and how many
  sockstate stuck --older-than 10s --port 443     anything of one service for longer than ten seconds
  sockstate stuck --check --warn 10 --crit 100    for Nagios and its kin
  sockstate stuck --from night.zst                at the end of a recording";

pub(super) const SOCKETS_EXAMPLES: &str = "\
Examples:
  sockstate sockets                               like ss -tan, of all network namespaces, with ages and holders
  sockstate sockets --state LISTEN --sort unread  the fullest accept queues first
  sockstate sockets --comm nginx --format json    one program's, for a script";

pub(super) const DOCTOR_EXAMPLES: &str = "\
Examples:
  sockstate doctor                                what works here, and what to do about the rest
  sockstate doctor --ring-size 64M                does a larger ring fit?
  sockstate doctor --format json                  for a script";

pub(super) const DETACH_EXAMPLES: &str = "\
Examples:
  sockstate detach                                what `pin = \"/sys/fs/bpf/sockstate\"` has left
  sockstate detach --pin /sys/fs/bpf/mine         another directory";

pub(super) const RUN_EXAMPLES: &str = "\
Examples:
  sockstate run --example > config.toml         a configuration to start from
  sockstate run --config config.toml --check    is it right?
  sockstate run --config config.toml            SIGHUP reads it again, SIGTERM ends it";

pub(super) const EXAMPLES: &str = "\
Examples:
  sockstate                                      every transition, live
  sockstate --to CLOSE_WAIT                      whose peers have closed
  sockstate --local-port 443 --format json       one service, as NDJSON
  sockstate --comm nginx --snapshot              one program, existing sockets first
  sockstate --remote 10.0.0.0/8 --output t.json  one network, into a file
  sockstate stuck                                what does not move on, who holds it, why
  sockstate sockets --state CLOSE_WAIT           like ss, with ages and holders, of all namespaces
  sockstate top                                  all of it, live, on a screen
  sockstate explain CLOSE_WAIT                   what a state means, and whose turn it is
  sockstate doctor                               what works here, and what to do about the rest

Exit status:
  0  ended by a signal, --duration, --count or a closed pipe
  1  the output failed; doctor: tracing does not work
  2  bad arguments
  3  this kernel cannot
  4  not permitted
  5  another sockstate is tracing";
