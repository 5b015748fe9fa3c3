#!/usr/bin/perl
# Connections and collectors for the test of the service. Debian's smallest systems have this Perl, and no Python.
use strict;
use warnings;
use IO::Handle;
use IO::Socket::INET;
use IO::Socket::UNIX;

$SIG{CHLD} = 'IGNORE';

# A listener of 127.0.0.1.
sub listener {
    my ($port) = @_;
    return IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $port, Listen => 5, ReuseAddr => 1)
        || die "port $port: $!";
}

# Both ends of a new connection.
sub connection {
    my ($listener) = @_;
    my $client = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $listener->sockport) || die "connect: $!";
    my $server = $listener->accept || die "accept: $!";
    return ($client, $server);
}

# Keeps a socket in CLOSE_WAIT.
sub leak {
    my ($port) = @_;
    $0 = 'leaker';
    my ($client, $server) = connection(listener($port));
    close $client;
    sleep;
}

# Keeps a connection open. Each SIGUSR1 ends a part of it: first the client's end, then the server's.
sub hold {
    my ($port) = @_;
    $0 = 'holder';
    my @ends = connection(listener($port));
    $SIG{USR1} = sub { close shift @ends };
    sleep while @ends;
    sleep;
}

# Appends everything that arrives at each connection of a listener to a file.
sub lines {
    my ($listener, $file) = @_;
    serve($listener, sub {
        my ($connection) = @_;
        print {$file} $_ while <$connection>;
    });
}

# Answers each request with 200, and appends its body to the file that has the name of the path.
sub http {
    my ($listener, $directory) = @_;
    serve($listener, sub {
        my ($connection) = @_;
        while (defined(my $request = <$connection>)) {
            my ($path) = $request =~ m{^POST /(\S+)};
            $path =~ tr{/}{-};
            my $length = 0;
            while (defined(my $header = <$connection>)) {
                $length = $1 if $header =~ /^content-length: (\d+)/i;
                last if $header =~ /^\r?\n$/;
            }
            read $connection, my ($body), $length;
            print { appending("$directory/$path") } "$body\n";
            print {$connection} "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
        }
    });
}

sub appending {
    my ($path) = @_;
    open my $file, '>>', $path or die "$path: $!";
    $file->autoflush;
    return $file;
}

# Calls `work` in a process for each connection.
sub serve {
    my ($listener, $work) = @_;
    return if fork;
    while (my $connection = $listener->accept) {
        next if fork;
        $connection->autoflush;
        $work->($connection);
        exit;
    }
}

# Collectors of lines at a TCP port and at a unix socket, and one of HTTP. What they get is in files of this directory.
sub collect {
    my ($directory) = @_;
    my $unix = IO::Socket::UNIX->new(Local => "$directory/socket", Listen => 5) || die "unix: $!";
    # The sinks are not root's.
    chmod 0666, "$directory/socket";
    lines(listener(6001), appending("$directory/tcp"));
    lines($unix, appending("$directory/unix"));
    http(listener(6002), $directory);
    sleep;
}

# Appends everything that arrives at a TCP port to a file.
sub collect_late {
    my ($port, $path) = @_;
    lines(listener($port), appending($path));
    sleep;
}

my %commands = (leak => \&leak, hold => \&hold, collect => \&collect, 'collect-late' => \&collect_late);
my $command = shift @ARGV;
$commands{$command}->(@ARGV);
