package main

import (
	"context"
	"log/slog"
	"time"

	"lastcall/drain"
	"lastcall/internal/events"
	"lastcall/internal/termination"
)

// lastEvents is how long the process may stay to write its last events.
// Together with lastAnswers it fits in the rest of the grace period.
const lastEvents = 500 * time.Millisecond

// observer receives the events of drains. Flush delivers them before the process
// ends.
type observer interface {
	drain.Observer
	Flush(ctx context.Context)
}

// observe creates the observers that report drains to people.
func (p *process) observe() ([]observer, error) {
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

// flush makes the observers deliver their events, for as long as there is time:
// less in a short grace period.
func (p *process) flush() {
	ctx, cancel := context.WithTimeout(context.Background(), min(lastEvents, p.GracePeriod/20))
	defer cancel()
	for _, o := range p.observers {
		o.Flush(ctx)
	}
}

// writeTerminationMessage tells the kubelet why the process could not start.
func writeTerminationMessage(text string) {
	if err := termination.Write(termination.Path, text); err != nil {
		slog.Warn("the termination message cannot be written", "error", err)
	}
}
