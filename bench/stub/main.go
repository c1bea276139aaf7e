// A queue and its executors in one process, fast enough not to limit what is measured.
//
// Every pull gets a task with a new id, and every report is checked against the tasks that were handed out. The protocol is
// that of docs/wire.md. With -load it is a client of such a stub, for measuring the stub itself.
package main

import (
	"flag"
	"fmt"
	"log"
	"net"
	"time"
)

func main() {
	port := flag.Int("port", 0, "port on the loopback; 0: any free port")
	executors := flag.Int("executors", 1, "number of executors, each with its own address: 127.1.0.1, 127.1.0.2 …")
	delay := flag.Duration("delay", 0, "duration of an execution")
	target := flag.String("load", "", "be a client of the stub at this host:port, and print the number of tasks")
	connections := flag.Int("connections", 16, "with -load: number of connections")
	duration := flag.Duration("for", 3*time.Second, "with -load: duration")
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
