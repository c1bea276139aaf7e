package main

import (
	"bufio"
	"fmt"
	"io"
	"log"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// drive repeats a task's three calls on every connection, and prints the number of tasks that it processed.
func drive(target string, connections int, duration time.Duration) {
	var tasks atomic.Int64
	var group sync.WaitGroup
	deadline := time.Now().Add(duration)
	for i := 0; i < connections; i++ {
		connection, err := net.Dial("tcp", target)
		if err != nil {
			log.Fatal(err)
		}
		group.Add(1)
		go func() {
			defer group.Done()
			defer connection.Close()
			reader := bufio.NewReader(connection)
			for time.Now().Before(deadline) {
				id := evalID(exchange(connection, reader, "GET", "/tasks/next", ""))
				if id == "" {
					log.Fatal("the stub has no task: allow some")
				}
				order := `{"eval_id":"` + id + `","code":"print(1)","timeout":30}`
				result := exchange(connection, reader, "POST", "/execute", order)
				exchange(connection, reader, "POST", "/tasks/"+id+"/complete", `{"output":`+string(result)+`}`)
				tasks.Add(1)
			}
		}()
	}
	group.Wait()
	fmt.Printf("%d\n", tasks.Load())
}

func exchange(connection net.Conn, reader *bufio.Reader, method, path, body string) []byte {
	request := fmt.Sprintf(
		"%s %s HTTP/1.1\r\nHost: stub\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		method, path, len(body), body)
	if _, err := connection.Write([]byte(request)); err != nil {
		log.Fatal(err)
	}
	if _, err := reader.ReadSlice('\n'); err != nil {
		log.Fatal(err)
	}
	length, err := contentLength(reader)
	if err != nil {
		log.Fatal(err)
	}
	content := make([]byte, length)
	if _, err := io.ReadFull(reader, content); err != nil {
		log.Fatal(err)
	}
	return content
}
