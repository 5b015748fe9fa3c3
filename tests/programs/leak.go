// Leaks what it accepts: for tests/live/hunt.rs. Says "ready", and ends when its standard input does.
package main

import (
	"fmt"
	"io"
	"net"
	"os"
)

//go:noinline
func takeOne(listener net.Listener) net.Conn {
	connection, _ := listener.Accept() // here
	return connection
}

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:"+os.Args[1])
	if err != nil {
		panic(err)
	}
	go func() {
		var taken []net.Conn
		for {
			taken = append(taken, takeOne(listener))
		}
	}()
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
}
