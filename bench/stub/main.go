// A queue and its executors in one process, fast enough not to be the limit of what is measured.
//
// Every pull gets a task with a new id; every report is held against what was handed out. It speaks docs/wire.md. With
// -load it is the other side: a client that drives such a stub, to tell what the stub itself allows.
package main

import (
	"flag"
	"fmt"
	"log"
	"net"
	"time"
)

func main() {
	port := flag.Int("port", 0, "port on the loopback; 0: any free one")
	executors := flag.Int("executors", 1, "executors, each on an address of its own: 127.1.0.1, 127.1.0.2 …")
	delay := flag.Duration("delay", 0, "how long an execution takes")
	target := flag.String("load", "", "be the client of the stub at this host:port instead, and print what it did")
	connections := flag.Int("connections", 16, "with -load: connections")
	duration := flag.Duration("for", 3*time.Second, "with -load: how long")
	flag.Parse()
	if *target != "" {
		drive(*target, *connections, *duration)
		return
	}
	first, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", *port))
	if err != nil {
		log.Fatal(err)
	}
	bound := first.Addr().(*net.TCPAddr).Port
	platform := newPlatform(*delay)
	for i := 1; i <= *executors; i++ {
		listener, err := net.Listen("tcp", fmt.Sprintf("127.1.%d.%d:%d", i>>8, i&0xff, bound))
		if err != nil {
			log.Fatal(err)
		}
		go accept(listener, platform)
	}
	fmt.Printf("listening on http://127.0.0.1:%d\n", bound)
	accept(first, platform)
}

func accept(listener net.Listener, platform *platform) {
	for {
		connection, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go serve(connection, platform)
	}
}
