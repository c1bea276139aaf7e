package main

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"
)

// task is one that was handed out and not reported yet.
type task struct {
	handed     time.Time
	execution  time.Duration
	executions int
}

type account struct {
	requests, polls, handedOut, executed, twice, reported, unknown int64
}

// platform is the queue, the executors and the counts.
type platform struct {
	delay time.Duration

	mutex    sync.Mutex
	account  account
	limit    int64
	pace     pace
	out      map[string]*task
	overhead histogram
	// Ids that were executed without being handed out here: they were in another queue (Celery's).
	foreign map[string]bool
	// The time of the last answer to the slot of that name (only Celery's slots have names, see execute).
	answered map[string]time.Time
}

func newPlatform(delay time.Duration) *platform {
	return &platform{
		delay: delay, out: map[string]*task{}, foreign: map[string]bool{}, answered: map[string]time.Time{},
	}
}

func (p *platform) respond(path string, body []byte) []byte {
	path, query, _ := strings.Cut(path, "?")
	p.mutex.Lock()
	p.account.requests++
	p.mutex.Unlock()
	switch {
	case path == "/tasks/next":
		return p.pull()
	case strings.HasSuffix(path, "/execute"):
		return p.execute(body, query)
	case strings.HasPrefix(path, "/tasks/"):
		id, _, _ := strings.Cut(path[len("/tasks/"):], "/")
		return p.report(id)
	case strings.HasPrefix(path, "/control/"):
		return p.control(path[len("/control/"):])
	case path == "/status":
		return []byte(`{"queued":0}`)
	}
	return []byte(`{"status":"healthy"}`)
}

func (p *platform) pull() []byte {
	p.mutex.Lock()
	p.account.polls++
	if p.account.handedOut >= p.limit {
		p.mutex.Unlock()
		return []byte("null")
	}
	p.account.handedOut++
	number := p.account.handedOut
	wait := time.Until(p.pace.next())
	p.mutex.Unlock()
	if wait > 0 {
		time.Sleep(wait)
	}
	id := "t" + strconv.FormatInt(number, 10)
	p.mutex.Lock()
	p.out[id] = &task{handed: time.Now()}
	p.mutex.Unlock()
	return []byte(`{"eval_id":"` + id + `","code":"print(1)","language":"python","engine":"docker","timeout":30}`)
}

// execute gets the name of the slot in the query if the caller's queue is not ours. The overhead is then the time between
// two executions in one slot, from an answer to the next request.
func (p *platform) execute(body []byte, slot string) []byte {
	id := evalID(body)
	started := time.Now()
	if p.delay > 0 {
		time.Sleep(p.delay)
	}
	p.mutex.Lock()
	p.account.executed++
	if known := p.out[id]; known != nil {
		known.executions++
		known.execution += time.Since(started)
		if known.executions > 1 {
			p.account.twice++
		}
	} else if p.foreign[id] {
		p.account.twice++
	} else {
		p.foreign[id] = true
	}
	if slot != "" {
		if before, known := p.answered[slot]; known {
			p.overhead.observe(started.Sub(before))
		}
		p.answered[slot] = time.Now()
	}
	p.mutex.Unlock()
	return []byte(`{"eval_id":"` + id + `","status":"completed","output":"1\n","error":null,"exit_code":0,"executor_id":"stub","container_id":"c"}`)
}

func (p *platform) report(id string) []byte {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	known := p.out[id]
	if known == nil {
		p.account.unknown++
	} else {
		delete(p.out, id)
		p.account.reported++
		p.overhead.observe(time.Since(known.handed) - known.execution)
	}
	return []byte(`{"status":"completed"}`)
}

func (p *platform) control(command string) []byte {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	verb, argument, _ := strings.Cut(command, "/")
	value, _ := strconv.ParseFloat(argument, 64)
	switch verb {
	case "allow": // hand out this many more tasks
		p.limit = p.account.handedOut + int64(value)
	case "rate": // tasks per second, at random times; 0: one for every pull
		p.pace = newPace(value)
	case "measure": // discard the times that were observed so far
		p.overhead = histogram{}
	}
	a := p.account
	return []byte(fmt.Sprintf(
		`{"requests":%d,"polls":%d,"handed_out":%d,"executed":%d,"twice":%d,"reported":%d,"unknown":%d,"p50":%g,"p99":%g}`,
		a.requests, a.polls, a.handedOut, a.executed, a.twice, a.reported, a.unknown,
		p.overhead.quantile(0.5), p.overhead.quantile(0.99),
	))
}

func evalID(body []byte) string {
	_, rest, found := bytes.Cut(body, []byte(`"eval_id":`))
	if !found {
		return ""
	}
	_, rest, _ = bytes.Cut(rest, []byte(`"`))
	id, _, _ := bytes.Cut(rest, []byte(`"`))
	return string(id)
}
