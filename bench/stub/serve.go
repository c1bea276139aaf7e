package main

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"strconv"
)

var head = []byte("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ")

// serve answers the requests of one connection: HTTP/1.1 with only the parsing that our clients need (request line,
// Content-Length, body).
func serve(connection net.Conn, platform *platform) {
	defer connection.Close()
	reader := bufio.NewReaderSize(connection, 16384)
	answer := make([]byte, 0, 1024)
	body := make([]byte, 0, 1024)
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
		length, err := contentLength(reader)
		if err != nil {
			return
		}
		if cap(body) < length {
			body = make([]byte, length)
		}
		body = body[:length]
		if _, err = io.ReadFull(reader, body); err != nil {
			return
		}
		content := platform.respond(path, body)
		answer = append(append(answer[:0], head...), strconv.Itoa(len(content))...)
		answer = append(append(answer, "\r\n\r\n"...), content...)
		if _, err = connection.Write(answer); err != nil {
			return
		}
	}
}

// contentLength reads to the end of the header.
func contentLength(reader *bufio.Reader) (int, error) {
	length := 0
	for {
		line, err := reader.ReadSlice('\n')
		if err != nil || len(line) <= 2 {
			return length, err
		}
		if len(line) > 15 && bytes.EqualFold(line[:15], []byte("content-length:")) {
			length, _ = strconv.Atoi(string(bytes.TrimSpace(line[15:])))
		}
	}
}
