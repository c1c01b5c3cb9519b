package main

import (
	"context"
	"log/slog"
	"time"

	"lastcall/drain"
	"lastcall/internal/events"
	"lastcall/internal/termination"
)

// lastEvents is how long the process may stay to have its last events written.
// With lastAnswers it fits in what is left of the grace period then.
const lastEvents = 500 * time.Millisecond

// observer is told of drains, and hands on what it was told before the process
// ends.
type observer interface {
	drain.Observer
	Flush(ctx context.Context)
}

// observe makes those who tell people of drains.
func (p *app) observe() ([]observer, error) {
	all := []observer{termination.New(termination.Path)}
	if !p.Events {
		return all, nil
	}
	writer, err := events.New(events.InCluster())
	if err != nil {
		return nil, err
	}
	return append(all, writer), nil
}

// flush has the observers hand on what they were told, for as long as there is
// time. In a short grace period there is less.
func (p *app) flush() {
	ctx, cancel := context.WithTimeout(context.Background(), min(lastEvents, p.GracePeriod/20))
	defer cancel()
	for _, o := range p.observers {
		o.Flush(ctx)
	}
}

// writeTerminationMessage tells the kubelet why the process cannot be what it is for.
func writeTerminationMessage(text string) {
	if err := termination.Write(termination.Path, text); err != nil {
		slog.Warn("the termination message cannot be written", "error", err)
	}
}
