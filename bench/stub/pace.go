package main

import (
	"math/rand"
	"time"
)

// pace spreads tasks over time as a Poisson process. A late pull gets a task that arrived in the meantime at once.
type pace struct {
	mean time.Duration
	at   time.Time
	rng  *rand.Rand
}

func newPace(perSecond float64) pace {
	if perSecond <= 0 {
		return pace{}
	}
	return pace{mean: time.Duration(float64(time.Second) / perSecond), rng: rand.New(rand.NewSource(1))}
}

// next returns the time of the next task; the zero time if there is no pace.
func (p *pace) next() time.Time {
	if p.mean == 0 {
		return time.Time{}
	}
	if p.at.IsZero() { // the process starts with the first pull
		p.at = time.Now()
	}
	p.at = p.at.Add(time.Duration(p.rng.ExpFloat64() * float64(p.mean)))
	return p.at
}
