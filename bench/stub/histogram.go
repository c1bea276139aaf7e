package main

import (
	"math"
	"time"
)

const (
	finest = time.Microsecond
	growth = 1.02
	top    = 1024 // finest × growth^top is about ten minutes
)

// histogram counts durations on a logarithmic scale; the error of a quantile is at most 2 %.
type histogram struct {
	counts [top + 1]int64
	total  int64
}

func (h *histogram) observe(duration time.Duration) {
	bucket := 0
	if duration > finest {
		bucket = min(top, int(math.Log(float64(duration)/float64(finest))/math.Log(growth))+1)
	}
	h.counts[bucket]++
	h.total++
}

// quantile returns seconds; 0 if nothing was observed.
func (h *histogram) quantile(q float64) float64 {
	rank := int64(math.Ceil(q * float64(h.total)))
	if rank == 0 {
		return 0
	}
	seen := int64(0)
	for bucket, count := range h.counts {
		if seen += count; seen >= rank {
			return finest.Seconds() * math.Pow(growth, float64(bucket))
		}
	}
	return 0
}
