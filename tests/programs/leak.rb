# Leaks what it accepts: for tests/live/interpreters.rs. Says "ready", and ends when its standard input does.
require 'socket'

def take_one(listener)
  listener.accept
end

listener = TCPServer.new('127.0.0.1', ARGV[0].to_i)
taken = []
$stdout.sync = true
puts 'ready'
loop do
  ready, = IO.select([$stdin, listener])
  break if ready.include?($stdin)

  taken << take_one(listener)
end
