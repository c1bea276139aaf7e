// A queue and an executor in one process, fast enough not to be the limit of what is measured.
//
// Every pull gets a task with a new id; every report is held against what was handed out. It speaks
// docs/wire.md over HTTP/1.1 with just the parsing that this takes: request line, Content-Length, body.
package main

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

var (
	next     atomic.Int64
	reported atomic.Int64
	unknown  atomic.Int64
	limit    atomic.Int64
	mutex    sync.Mutex
	out      = map[int64]bool{}
	delay    = flag.Duration("delay", 0, "how long an execution takes")
)

var head = []byte("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ")

func main() {
	port := flag.Int("port", 0, "port on the loopback; 0: any free one")
	flag.Parse()
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", *port))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("listening on http://%s\n", listener.Addr())
	for {
		connection, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go serve(connection)
	}
}

func serve(connection net.Conn) {
	defer connection.Close()
	reader := bufio.NewReaderSize(connection, 16384)
	answer := make([]byte, 0, 1024)
	for {
		line, err := reader.ReadSlice('\n')
		if err != nil {
			return
		}
		fields := bytes.Fields(line)
		if len(fields) < 2 {
			return
		}
		path := string(fields[1])
		length := 0
		for {
			line, err = reader.ReadSlice('\n')
			if err != nil {
				return
			}
			if len(line) <= 2 {
				break
			}
			if len(line) > 15 && bytes.EqualFold(line[:15], []byte("content-length:")) {
				length, _ = strconv.Atoi(string(bytes.TrimSpace(line[15:])))
			}
		}
		body := make([]byte, length)
		if _, err = io.ReadFull(reader, body); err != nil {
			return
		}
		content := respond(path, body)
		answer = append(append(answer[:0], head...), strconv.Itoa(len(content))...)
		answer = append(append(answer, "\r\n\r\n"...), content...)
		if _, err = connection.Write(answer); err != nil {
			return
		}
	}
}

func respond(path string, body []byte) []byte {
	switch {
	case path == "/tasks/next":
		id := next.Add(1)
		if id > limit.Load() {
			next.Add(-1)
			return []byte("null")
		}
		mutex.Lock()
		out[id] = true
		mutex.Unlock()
		return []byte(fmt.Sprintf(`{"eval_id":"t%d","code":"print(1)","language":"python","engine":"docker","timeout":30}`, id))
	case len(path) > 7 && path[:7] == "/tasks/":
		rest := path[7:]
		for i := 0; i < len(rest); i++ {
			if rest[i] == '/' {
				id, _ := strconv.ParseInt(rest[1:i], 10, 64)
				mutex.Lock()
				known := out[id]
				delete(out, id)
				mutex.Unlock()
				if known {
					reported.Add(1)
				} else {
					unknown.Add(1)
				}
				return []byte(`{"status":"completed"}`)
			}
		}
	case path == "/account":
		return []byte(fmt.Sprintf(`{"handed_out":%d,"reported":%d,"unknown":%d}`, next.Load(), reported.Load(), unknown.Load()))
	case len(path) > 7 && path[:7] == "/allow/":
		more, _ := strconv.ParseInt(path[7:], 10, 64)
		limit.Add(more)
		return []byte("{}")
	case len(path) >= 8 && path[len(path)-8:] == "/execute":
		if *delay > 0 {
			time.Sleep(*delay)
		}
		from := bytes.Index(body, []byte(`"eval_id":`)) + 10
		from += bytes.IndexByte(body[from:], '"') + 1
		id := body[from : from+bytes.IndexByte(body[from:], '"')]
		return []byte(fmt.Sprintf(`{"eval_id":"%s","status":"completed","output":"1\n","error":null,"exit_code":0,"executor_id":"stub","container_id":"c"}`, id))
	}
	return []byte(`{"status":"healthy"}`)
}
