# Leaks what it accepts: for tests/live/interpreters.rs. Says "ready", and ends when its standard input does.
use strict;
use warnings;
use Socket;

sub take_one {
    my ($listener) = @_;
    accept(my $taken, $listener) or die "accept: $!";
    return $taken;
}

socket(my $listener, PF_INET, SOCK_STREAM, 0) or die "socket: $!";
bind($listener, sockaddr_in($ARGV[0], INADDR_LOOPBACK)) or die "bind: $!";
listen($listener, 16) or die "listen: $!";
$| = 1;
print "ready\n";
my @taken;
while (1) {
    my $ready = '';
    vec($ready, fileno($_), 1) = 1 for \*STDIN, $listener;
    select($ready, undef, undef, undef);
    last if vec($ready, fileno(STDIN), 1);
    push @taken, take_one($listener);
}
